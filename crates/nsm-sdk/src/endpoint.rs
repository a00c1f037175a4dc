//! An endpoint in a few lines: its own socket, its chain, its registration.
//!
//! Guarantees: [`Builder::start`] returns when the endpoint serves and the registry has it; it stays registered across restarts
//! of the agent; [`Endpoint::stop`] unregisters, tells and closes its connections, and ends in bounded time; dropped without
//! it, nothing of it runs on and its socket is gone, and the agent notices. An endpoint that comes back after a crash gets
//! its connections, and with [`PointToPoint`](crate::ipam::PointToPoint) their addresses, from its clients' refreshes.
//!
//! What a client says of addresses is a wish, and of routes and neighbours in the endpoint's namespace nothing at all: see
//! [`asked`](crate::asked).
//!
//! Assumes: it runs in the network namespace that it offers, and under a name that no other process registers.
//!
//! ```no_run
#![doc = include_str!("../examples/endpoint.rs")]
//! ```

mod folder;
mod serving;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nsm_proto::{
    connection::{Connection, State},
    payload,
    registry::{NetworkService, NetworkServiceEndpoint, NetworkServiceLabels},
};
use tokio::{sync::watch, time::Instant};

use self::{folder::Folder, serving::Serving};
use crate::{
    Chain, DEFAULT_TIMEOUT, Element, Error,
    asked::WordsOfClient,
    begin::Begin,
    expiry::Expiry,
    kernel::KernelServer,
    monitor::Monitor,
    path::Path as PathElement,
    registry::{ListeningSocket, Offer, Registration, Registry},
    token::{DEFAULT_LIFETIME, Token, TokenSource, Unsigned},
};

/// Where the agent listens by default.
pub const DEFAULT_AGENT: &str = "/var/lib/networkservicemesh/nsm.io.sock";

/// Most time that [`Endpoint::stop`] gives to connections and to calls that still run.
const GRACE: Duration = Duration::from_secs(3);

/// Why an endpoint does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It offers nothing.
    #[error("endpoint {0:?} offers no network service: name one with `service`")]
    NoService(String),
    /// Its namespace cannot be opened.
    #[error("cannot open the network namespace that this process runs in")]
    Netns(#[source] std::io::Error),
    /// Its private folder cannot be made, or its socket there not be opened.
    #[error("cannot make a socket of its own at {path}")]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] nsm_fdpass::BindError),
    /// The registry says no.
    #[error("cannot register endpoint {name:?}")]
    Register {
        /// The endpoint.
        name: String,
        /// Why.
        source: Error,
    },
}

/// What an endpoint is made of. See [`Endpoint::builder`].
pub struct Builder {
    name: String,
    services: Vec<String>,
    labels: BTreeMap<String, String>,
    payload: String,
    register_services: bool,
    elements: Vec<Arc<dyn Element>>,
    connect_to: PathBuf,
    listen_on: Option<PathBuf>,
    netns: Option<OwnedFd>,
    token_lifetime: Duration,
    call_timeout: Duration,
}

impl Builder {
    /// Serves this network service; call it again for more.
    #[must_use]
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.services.push(name.into());
        self
    }

    /// Labels by which matches choose it, for each of its services.
    #[must_use]
    pub fn labels<K: Into<String>, V: Into<String>>(mut self, labels: impl IntoIterator<Item = (K, V)>) -> Self {
        self.labels.extend(labels.into_iter().map(|(key, value)| (key.into(), value.into())));
        self
    }

    /// What its services carry: [`payload::IP`] (the default) or [`payload::ETHERNET`].
    #[must_use]
    pub fn payload(mut self, payload: impl Into<String>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Whether its services are registered too (the default), or an operator has done so.
    #[must_use]
    pub fn register_services(mut self, register: bool) -> Self {
        self.register_services = register;
        self
    }

    /// Adds an element to its chain, behind those added before.
    #[must_use]
    pub fn element(mut self, element: impl Element) -> Self {
        self.elements.push(Arc::new(element));
        self
    }

    /// The agent's socket; [`DEFAULT_AGENT`] unless set.
    #[must_use]
    pub fn connect_to(mut self, socket: impl Into<PathBuf>) -> Self {
        self.connect_to = socket.into();
        self
    }

    /// Its own socket; in a private folder under the system's temporary one unless set.
    #[must_use]
    pub fn listen_on(mut self, socket: impl Into<PathBuf>) -> Self {
        self.listen_on = Some(socket.into());
        self
    }

    /// The network namespace that it offers; that of the thread which calls `start` unless set.
    #[must_use]
    pub fn netns(mut self, netns: OwnedFd) -> Self {
        self.netns = Some(netns);
        self
    }

    /// How long its tokens live: a peer that hears nothing for that long forgets it. Ten minutes unless set.
    #[must_use]
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.token_lifetime = lifetime;
        self
    }

    /// Most time that one call to the agent takes.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Listens, serves and registers. While the agent is not there it waits, without end: bound it with
    /// [`tokio::time::timeout`] if need be.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(self) -> Result<Endpoint, StartError> {
        if self.services.is_empty() {
            return Err(StartError::NoService(self.name));
        }
        let kernel = match self.netns {
            Some(netns) => KernelServer::in_netns(netns),
            None => KernelServer::new().map_err(StartError::Netns)?,
        };
        let (folder, listen_on) = if let Some(path) = self.listen_on {
            (None, path)
        } else {
            let folder = Folder::make(&std::env::temp_dir())?;
            let socket = folder.path().join("endpoint.sock");
            (Some(folder), socket)
        };
        let tokens: Arc<dyn TokenSource> = Arc::new(Unsigned::new(&self.name).lifetime(self.token_lifetime));
        let (begin, monitor) = (Begin::new(), Monitor::new());
        let mut elements: Vec<Arc<dyn Element>> = vec![
            Arc::new(PathElement::server(&self.name)),
            Arc::new(begin.clone()),
            Arc::new(Token::server(tokens.clone())),
            Arc::new(monitor.clone()),
            Arc::new(Expiry::new()),
            Arc::new(WordsOfClient),
        ];
        elements.extend(self.elements);
        elements.push(Arc::new(kernel));
        let serving = Serving::start(&listen_on, Chain::new(elements), &monitor).await?;
        let socket =
            ListeningSocket::at(&listen_on).map_err(|source| StartError::Folder { path: listen_on.clone(), source })?;

        let labels = NetworkServiceLabels { labels: self.labels };
        let endpoint = NetworkServiceEndpoint {
            name: self.name.clone(),
            network_service_names: self.services.clone(),
            network_service_labels: self.services.iter().map(|name| (name.clone(), labels.clone())).collect(),
            ..NetworkServiceEndpoint::default()
        };
        let service = |name| NetworkService { name, payload: self.payload.clone(), ..NetworkService::default() };
        let services = if self.register_services { self.services } else { Vec::new() };
        let offer = Offer { services: services.into_iter().map(service).collect(), endpoint, socket: Some(socket) };
        let registry = Registry::connect_to(self.connect_to).tokens(tokens).timeout(self.call_timeout);
        let registration =
            registry.keep(offer).await.map_err(|source| StartError::Register { name: self.name.clone(), source })?;
        let chain = Running { begin, monitor };
        Ok(Endpoint { name: self.name, chain, serving, registration, listen_on, _folder: folder })
    }
}

/// An endpoint that serves and is registered.
pub struct Endpoint {
    name: String,
    // In this order: unregistered before it stops to serve, its folder last.
    registration: Registration,
    serving: Serving,
    chain: Running,
    listen_on: PathBuf,
    _folder: Option<Folder>,
}

/// What keeps the chain, whose connections and their tasks keep each other; dropped, they end.
struct Running {
    begin: Begin,
    monitor: Monitor,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.begin.cut_off();
        self.monitor.shut_down();
    }
}

impl Endpoint {
    /// An endpoint of this name, still to be made.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder {
            name: name.into(),
            services: Vec::new(),
            labels: BTreeMap::new(),
            payload: payload::IP.into(),
            register_services: true,
            elements: Vec::new(),
            connect_to: DEFAULT_AGENT.into(),
            listen_on: None,
            netns: None,
            token_lifetime: DEFAULT_LIFETIME,
            call_timeout: DEFAULT_TIMEOUT,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own socket.
    pub fn socket(&self) -> &Path {
        &self.listen_on
    }

    /// Its connections, as last known.
    pub fn connections(&self) -> Vec<Connection> {
        self.chain.begin.connections()
    }

    /// Its monitor, e.g. to announce that a connection is down.
    pub fn monitor(&self) -> &Monitor {
        &self.chain.monitor
    }

    /// Whether the registry has it now; changes can be waited for.
    pub fn registered(&self) -> watch::Receiver<bool> {
        self.registration.registered()
    }

    /// Unregisters, tells its clients that their connections are down, closes these and stops serving.
    pub async fn stop(self) {
        self.registration.stop().await;
        let deadline = Instant::now() + GRACE;
        for connection in self.chain.begin.connections() {
            self.chain.monitor.announce(&connection.id, State::Down);
            if let Some(events) = self.chain.begin.events(&connection.id)
                && !matches!(tokio::time::timeout_at(deadline, events.close(|_| true)).await, Ok(Ok(_)))
            {
                tracing::warn!(connection = connection.id, "cannot close the connection in order");
            }
        }
        self.chain.begin.drain(deadline).await;
        self.chain.monitor.shut_down();
        self.serving.stop(deadline).await;
        tracing::info!(endpoint = self.name, "stopped");
    }
}
