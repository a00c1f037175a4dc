//! The endpoint's gRPC server: NetworkService, MonitorConnection and health on its own socket.

use std::path::Path;

use nsm_fdpass::{BindError, Permissions};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;

use crate::{Chain, monitor::Monitor, serve::Serve};

/// Only root and the endpoint's own user connect: the agent.
const MODE: u32 = 0o600;
/// What health says is served, besides the empty name for all.
const SERVICES: [&str; 2] = ["networkservice.NetworkService", "connection.MonitorConnection"];

/// A running server; dropped, it is cut off.
pub(super) struct Serving {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Serving {
    pub(super) async fn start(socket: &Path, chain: Chain, monitor: &Monitor) -> Result<Self, BindError> {
        let socket = nsm_fdpass::bind(socket, Permissions { mode: MODE, uid: None, gid: None })?;
        let (reporter, health) = tonic_health::server::health_reporter();
        for service in SERVICES {
            reporter.set_service_status(service, ServingStatus::Serving).await;
        }
        let server = Server::builder().add_service(Serve::new(chain)).add_service(monitor.server()).add_service(health);
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move {
            if let Err(error) = server.serve_with_incoming_shutdown(socket.incoming(), stopped).await {
                tracing::error!(%error, "the endpoint no longer serves");
            }
        });
        Ok(Self { stop, task })
    }

    /// Lets running calls end, until the deadline.
    pub(super) async fn stop(mut self, deadline: Instant) {
        self.stop.cancel();
        if tokio::time::timeout_at(deadline, &mut self.task).await.is_err() {
            tracing::debug!("calls were still running at the deadline");
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}
