//! The way to the agent.

use std::{io, os::unix::fs::FileTypeExt, path::PathBuf, time::Duration};

use nsm_proto::admin::admin_client::AdminClient;
use tokio::time::Instant;
use tonic::transport::Channel;

/// The agent at a socket.
pub(crate) struct Agent {
    pub(crate) socket: PathBuf,
    timeout: Duration,
}

/// No agent answers, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    /// The socket is not there.
    #[error("no agent at {}: start nsm-agent, or name its socket with --cni-socket", .0.display())]
    NoSocket(PathBuf),
    /// The path is something else.
    #[error("{} is no socket: name the agent's with --cni-socket", .0.display())]
    NotASocket(PathBuf),
    /// Only root may.
    #[error("permission denied for {}: it is root's only, use sudo", .0.display())]
    Denied(PathBuf),
    /// A socket that nobody listens on.
    #[error("nobody listens on {}: the agent has ended without removing it; start nsm-agent", .0.display())]
    Refused(PathBuf),
    /// Anything else.
    #[error("the agent at {} does not answer: {cause}", socket.display())]
    Silent {
        /// Where.
        socket: PathBuf,
        /// Why.
        cause: String,
    },
}

impl Agent {
    pub(crate) fn new(socket: PathBuf, timeout: Duration) -> Self {
        Self { socket, timeout }
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> Result<AdminClient<Channel>, Unreachable> {
        let socket = self.socket.clone();
        match std::fs::metadata(&socket) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unreachable::NoSocket(socket)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(Unreachable::Denied(socket)),
            Ok(metadata) if !metadata.file_type().is_socket() => return Err(Unreachable::NotASocket(socket)),
            Ok(_) | Err(_) => {}
        }
        match nsm_fdpass::connect(&socket, Instant::now() + self.timeout).await {
            Ok(connected) => Ok(AdminClient::new(connected.channel).max_decoding_message_size(64 * 1024 * 1024)),
            Err(nsm_fdpass::ConnectError::Missing(_)) => Err(Unreachable::NoSocket(socket)),
            Err(nsm_fdpass::ConnectError::Refused(_)) => Err(Unreachable::Refused(socket)),
            Err(nsm_fdpass::ConnectError::Denied { .. }) => Err(Unreachable::Denied(socket)),
            Err(error) => Err(Unreachable::Silent { socket, cause: error.to_string() }),
        }
    }

    /// A request that ends in time.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.timeout);
        request
    }
}
