//! The client's side of both registries: register, find, watch, unregister, and stay registered.
//!
//! Guarantees: each call ends within its timeout; a service is registered without `matches`, so that a start-up never erases
//! an operator's; the endpoint's listening socket goes ahead of the call that names it. What [`Registry::keep`] registered stays
//! so: it is renewed at two thirds of its life and registered again when the registry restarts or forgets it, after a pause of
//! at least 50 ms that grows with each failure.
//!
//! Assumes: a registry on a unix socket, as the agent serves it.

mod keep;
mod pause;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use nsm_fdpass::{FdChannel, InodeId};
use nsm_proto::{
    header,
    registry::{
        NetworkService, NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceEndpointResponse,
        NetworkServiceQuery, NetworkServiceResponse,
        network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient as EndpointsClient,
        network_service_registry_client::NetworkServiceRegistryClient as ServicesClient,
    },
};
use serde::Serialize;
use tonic::{Code, Status, Streaming, metadata::AsciiMetadataValue};

pub use self::keep::{Offer, Registration};
use crate::{
    Call, DEFAULT_TIMEOUT, Error, Kind,
    connect::{Peers, Target, said},
    limits,
    token::{TokenSource, Unsigned},
    token_headers,
};

/// A registry behind a unix socket. Clones share the connection, which is made when it is first needed.
#[derive(Clone)]
pub struct Registry {
    target: Target,
    peers: Peers,
    tokens: Arc<dyn TokenSource>,
    timeout: Duration,
}

/// An endpoint's listening socket, as it is passed to a registry: its path is of no use in another mount namespace.
#[derive(Debug, Clone)]
pub struct ListeningSocket {
    file: Arc<OwnedFd>,
    id: InodeId,
}

impl ListeningSocket {
    /// The socket at this path.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn at(path: &Path) -> std::io::Result<Self> {
        let file = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let id = InodeId::of(&file)?;
        Ok(Self { file: Arc::new(file), id })
    }
}

/// What `path` says: whose call it is. JSON with the field names of the Go side.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PathHeader<'a> {
    index: u32,
    path_segments: [PathHeaderSegment<'a>; 1],
}

#[derive(Serialize)]
struct PathHeaderSegment<'a> {
    token: &'a str,
}

impl Registry {
    /// The registry at this socket.
    pub fn connect_to(socket: impl Into<PathBuf>) -> Self {
        let tokens = Arc::new(Unsigned::new(format!("pid-{}", std::process::id())));
        Self { target: Target::Unix(socket.into()), peers: Peers::new(), tokens, timeout: DEFAULT_TIMEOUT }
    }

    /// Calls carry these tokens.
    #[must_use]
    pub fn tokens(mut self, tokens: Arc<dyn TokenSource>) -> Self {
        self.tokens = tokens;
        self
    }

    /// Each call gets this much time.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Registers a network service, or changes it. Without `matches` an operator's stay as they are.
    pub async fn register_service(&self, service: NetworkService) -> Result<NetworkService, Error> {
        let (peer, call) = self.peer().await?;
        let rpc = self.with_path(service, &call).await?;
        let mut client = ServicesClient::new(peer.channel).max_decoding_message_size(limits::MESSAGE);
        self.bounded(&call, client.register(rpc)).await
    }

    /// Removes a network service.
    pub async fn unregister_service(&self, service: NetworkService) -> Result<(), Error> {
        let (peer, call) = self.peer().await?;
        let rpc = self.with_path(service, &call).await?;
        self.bounded(&call, ServicesClient::new(peer.channel).unregister(rpc)).await
    }

    /// Registers an endpoint; with a socket, that becomes its `url`. The answer says until when.
    pub async fn register_endpoint(
        &self,
        mut endpoint: NetworkServiceEndpoint,
        socket: Option<&ListeningSocket>,
    ) -> Result<NetworkServiceEndpoint, Error> {
        let (peer, call) = self.peer().await?;
        pass(&peer, &mut endpoint, socket)?;
        let rpc = self.with_path(endpoint, &call).await?;
        let mut client = EndpointsClient::new(peer.channel).max_decoding_message_size(limits::MESSAGE);
        self.bounded(&call, client.register(rpc)).await
    }

    /// Removes an endpoint; harmless when it is not there.
    pub async fn unregister_endpoint(
        &self,
        mut endpoint: NetworkServiceEndpoint,
        socket: Option<&ListeningSocket>,
    ) -> Result<(), Error> {
        let (peer, call) = self.peer().await?;
        pass(&peer, &mut endpoint, socket)?;
        let rpc = self.with_path(endpoint, &call).await?;
        self.bounded(&call, EndpointsClient::new(peer.channel).unregister(rpc)).await
    }

    /// All services that the template fits; unset fields fit any.
    pub async fn find_services(&self, template: NetworkService) -> Result<Vec<NetworkService>, Error> {
        let mut answers = self.stream_services(template, Find::Once).await?;
        let mut found = Vec::new();
        while let Some(answer) = answers.message().await.map_err(|status| self.failed(&status))? {
            found.extend(answer.network_service);
        }
        Ok(found)
    }

    /// All endpoints that the template fits; unset fields fit any.
    pub async fn find_endpoints(&self, template: NetworkServiceEndpoint) -> Result<Vec<NetworkServiceEndpoint>, Error> {
        let mut answers = self.stream_endpoints(template, Find::Once).await?;
        let mut found = Vec::new();
        while let Some(answer) = answers.message().await.map_err(|status| self.failed(&status))? {
            found.extend(answer.network_service_endpoint);
        }
        Ok(found)
    }

    /// The services that the template fits, and then their changes, until the stream is dropped.
    pub async fn watch_services(&self, template: NetworkService) -> Result<Streaming<NetworkServiceResponse>, Error> {
        self.stream_services(template, Find::Watch).await
    }

    /// The endpoints that the template fits, and then their changes, until the stream is dropped.
    pub async fn watch_endpoints(
        &self,
        template: NetworkServiceEndpoint,
    ) -> Result<Streaming<NetworkServiceEndpointResponse>, Error> {
        self.stream_endpoints(template, Find::Watch).await
    }

    async fn stream_services(
        &self,
        template: NetworkService,
        find: Find,
    ) -> Result<Streaming<NetworkServiceResponse>, Error> {
        let (peer, call) = self.peer().await?;
        let query = NetworkServiceQuery { network_service: Some(template), watch: find.watches() };
        let mut rpc = self.headed(query).await?;
        if !find.watches() {
            rpc.set_timeout(call.remaining());
        }
        let mut client = ServicesClient::new(peer.channel).max_decoding_message_size(limits::MESSAGE);
        self.bounded(&call, client.find(rpc)).await
    }

    async fn stream_endpoints(
        &self,
        template: NetworkServiceEndpoint,
        find: Find,
    ) -> Result<Streaming<NetworkServiceEndpointResponse>, Error> {
        let (peer, call) = self.peer().await?;
        let query = NetworkServiceEndpointQuery { network_service_endpoint: Some(template), watch: find.watches() };
        let mut rpc = self.headed(query).await?;
        if !find.watches() {
            rpc.set_timeout(call.remaining());
        }
        let mut client = EndpointsClient::new(peer.channel).max_decoding_message_size(limits::MESSAGE);
        self.bounded(&call, client.find(rpc)).await
    }

    async fn peer(&self) -> Result<(FdChannel, Call), Error> {
        let call = Call::new(self.timeout);
        Ok((self.peers.channel(&self.target, &call).await?, call))
    }

    async fn with_path<T>(&self, message: T, call: &Call) -> Result<tonic::Request<T>, Error> {
        let mut rpc = self.headed(message).await?;
        rpc.set_timeout(call.remaining());
        let token = rpc.metadata().get(header::CLIENT_TOKEN).and_then(|token| token.to_str().ok()).unwrap_or_default();
        let path = PathHeader { index: 0, path_segments: [PathHeaderSegment { token }] };
        let json = serde_json::to_string(&path).map_err(|error| Error::new(Kind::Internal, error))?;
        rpc.metadata_mut().insert(header::PATH, text(json)?);
        Ok(rpc)
    }

    /// With this process's token, without a deadline.
    async fn headed<T>(&self, message: T) -> Result<tonic::Request<T>, Error> {
        let own = self.tokens.token(None).await?;
        let mut rpc = tonic::Request::new(message);
        rpc.metadata_mut().insert(header::CLIENT_TOKEN, text(own.token)?);
        rpc.metadata_mut().insert(header::CLIENT_TOKEN_EXPIRES, text(token_headers::format(own.expires))?);
        Ok(rpc)
    }

    async fn bounded<T>(
        &self,
        call: &Call,
        rpc: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout_at(call.deadline, rpc).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(Error::new(Kind::Deadline, "the registry did not answer in time")),
        }
    }

    /// A socket that failed is given up: the next call dials.
    fn failed(&self, status: &Status) -> Error {
        // The stream of a watch ends so with its socket: no answer of the registry's, which would come without a source.
        let broken =
            std::error::Error::source(status).is_some() && matches!(status.code(), Code::Internal | Code::Unknown);
        let error = if broken { Error::new(Kind::Unavailable, status.message()) } else { said(status) };
        if error.kind() == Kind::Unavailable || status.code() == Code::Cancelled {
            self.forget();
        }
        error
    }

    fn forget(&self) {
        self.peers.forget(&self.target);
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("target", &self.target).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// How long a Find goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Find {
    /// Until what there is has been told.
    Once,
    /// Until somebody leaves.
    Watch,
}

impl Find {
    fn watches(self) -> bool {
        match self {
            Self::Once => false,
            Self::Watch => true,
        }
    }
}

fn pass(
    peer: &FdChannel,
    endpoint: &mut NetworkServiceEndpoint,
    socket: Option<&ListeningSocket>,
) -> Result<(), Error> {
    let Some(socket) = socket else { return Ok(()) };
    endpoint.url = socket.id.to_string();
    peer.outbox.send(socket.file.clone()).map_err(|error| Error::new(Kind::Exhausted, error))
}

fn text(value: String) -> Result<AsciiMetadataValue, Error> {
    AsciiMetadataValue::try_from(value).map_err(|error| Error::new(Kind::Internal, error))
}
