//! A client in a few lines: connections that stay up until they are closed.
//!
//! Guarantees: a connection is refreshed before it expires, and healed when its endpoint, its wire or the agent goes, with the
//! same id; [`Client::stop`] closes all and ends in bounded time. A client that is dropped leaves its connections to expire;
//! nothing of it runs on.
//!
//! Assumptions: the agent listens on a unix socket; a Tokio runtime; interfaces are wanted in the network namespace of the thread
//! that builds the client, unless another one is given.
//!
//! ```no_run
#![doc = include_str!("../examples/client.rs")]
//! ```

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::{Path as FilePath, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nsm_proto::{
    connection::{Connection as Message, Mechanism},
    mechanism::{INTERFACE_NAME, KERNEL, LOCAL},
};
use tokio::time::Instant;

use crate::{
    Call, Chain, Close, DEFAULT_TIMEOUT, Element, Error, Kind, Request,
    begin::{Begin, Events},
    connect::{Connect, Peers, Target},
    heal::{Heal, Liveness},
    kernel::{InterfaceName, KernelClient},
    path::{Path, Verify, new_id},
    refresh::Refresh,
    token::{DEFAULT_LIFETIME, Token, Unsigned},
};

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Service {
    name: String,
    id: Option<String>,
    labels: BTreeMap<String, String>,
    endpoint: String,
    interface: Option<InterfaceName>,
}

impl Service {
    /// A network service, from any endpoint.
    pub fn new(name: impl Into<String>) -> Self {
        let (labels, endpoint) = (BTreeMap::new(), String::new());
        Self { name: name.into(), id: None, labels, endpoint, interface: None }
    }

    /// A label by which matches choose the endpoint.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Labels by which matches choose the endpoint.
    #[must_use]
    pub fn labels(mut self, labels: impl IntoIterator<Item = (String, String)>) -> Self {
        self.labels.extend(labels);
        self
    }

    /// The interface's name; made from service and connection id unless set.
    #[must_use]
    pub fn interface(mut self, name: InterfaceName) -> Self {
        self.interface = Some(name);
        self
    }

    /// Only this endpoint, until it is gone.
    #[must_use]
    pub fn endpoint(mut self, name: impl Into<String>) -> Self {
        self.endpoint = name.into();
        self
    }

    /// The connection's id: the same one after a restart of the client finds the same connection. Random unless set.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }
}

/// What a client is made of. See [`Client::connect_to`].
pub struct Builder {
    target: PathBuf,
    name: Option<String>,
    netns: Option<OwnedFd>,
    elements: Vec<Arc<dyn Element>>,
    token_lifetime: Duration,
    call_timeout: Duration,
    patience: Option<Duration>,
    liveness: Option<(Arc<dyn Liveness>, Duration, Duration)>,
}

impl Builder {
    /// Its name in paths; random unless set.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The network namespace in which the interfaces are wanted; that of the thread which calls `build` unless set.
    #[must_use]
    pub fn netns(mut self, netns: OwnedFd) -> Self {
        self.netns = Some(netns);
        self
    }

    /// Adds an element, between what keeps connections up and what calls the agent.
    #[must_use]
    pub fn element(mut self, element: impl Element) -> Self {
        self.elements.push(Arc::new(element));
        self
    }

    /// How long the agent keeps a connection when it hears nothing. Ten minutes unless set.
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

    /// How long an agent that cannot be reached is waited for before it is asked for another endpoint.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Heals a connection too when this check fails, asked `every` so often for at most `timeout`.
    #[must_use]
    pub fn liveness(mut self, liveness: Arc<dyn Liveness>, every: Duration, timeout: Duration) -> Self {
        self.liveness = Some((liveness, every, timeout));
        self
    }

    /// The client. It calls nobody yet.
    ///
    /// # Errors
    /// When the network namespace of this thread cannot be opened.
    pub fn build(self) -> io::Result<Client> {
        let kernel = match self.netns {
            Some(netns) => KernelClient::in_netns(netns),
            None => KernelClient::new()?,
        };
        let name = self.name.unwrap_or_else(|| format!("nsc-{}", new_id()));
        let (peers, target) = (Peers::new(), Target::Unix(self.target));
        let begin = Begin::new().event_timeout(self.call_timeout);
        let mut heal = Heal::new(peers.clone(), &name).to(target.clone());
        if let Some(patience) = self.patience {
            heal = heal.patience(patience);
        }
        if let Some((liveness, every, timeout)) = self.liveness {
            heal = heal.liveness(liveness, every, timeout);
        }
        let tokens = Unsigned::new(&name).lifetime(self.token_lifetime);
        let mut elements: Vec<Arc<dyn Element>> = vec![
            Arc::new(Path::client(&name)),
            Arc::new(begin.clone()),
            Arc::new(Refresh::new()),
            Arc::new(heal),
            Arc::new(Token::client(Arc::new(tokens))),
            Arc::new(kernel),
        ];
        elements.extend(self.elements);
        elements.push(Arc::new(Verify));
        elements.push(Arc::new(Connect::to(peers, target)));
        let inner =
            Inner { begin, chain: Chain::new(elements), call_timeout: self.call_timeout, asked: Mutex::default() };
        Ok(Client { inner: Arc::new(inner) })
    }
}

/// A client of an agent. Clones are the same client; it ends with the last of them and of its connections' handles.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    begin: Begin,
    chain: Chain,
    call_timeout: Duration,
    /// What was asked for and not closed, by id.
    asked: Mutex<BTreeMap<String, Message>>,
}

impl Inner {
    fn asked(&self) -> MutexGuard<'_, BTreeMap<String, Message>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.begin.abandon();
    }
}

impl Client {
    /// A client of the agent at this socket, a path or `unix://` URL.
    pub fn connect_to(socket: impl AsRef<FilePath>) -> Builder {
        let socket = socket.as_ref();
        let target =
            socket.to_str().and_then(|url| url.strip_prefix("unix://")).map_or_else(|| socket.into(), Into::into);
        Builder {
            target,
            name: None,
            netns: None,
            elements: Vec::new(),
            token_lifetime: DEFAULT_LIFETIME,
            call_timeout: DEFAULT_TIMEOUT,
            patience: None,
            liveness: None,
        }
    }

    /// Connects to a network service.
    ///
    /// # Errors
    /// What the agent or the endpoint said; [`Kind::Unavailable`] when there is no agent.
    pub async fn request(&self, service: Service) -> Result<Connection, Error> {
        let connection = Message {
            id: service.id.unwrap_or_else(new_id),
            network_service: service.name,
            labels: service.labels,
            network_service_endpoint_name: service.endpoint,
            ..Message::default()
        };
        let preferences = service.interface.iter().map(|name| Mechanism {
            cls: LOCAL.into(),
            r#type: KERNEL.into(),
            parameters: [(INTERFACE_NAME.into(), name.to_string())].into(),
        });
        let request =
            Request { connection, preferences: preferences.collect(), call: Call::new(self.inner.call_timeout) };
        let asked = request.connection.clone();
        self.inner.asked().insert(asked.id.clone(), asked.clone());
        let first = self.inner.chain.request(request).await.inspect_err(|_| {
            self.inner.asked().remove(&asked.id);
        })?;
        let gone = || Error::new(Kind::Cancelled, "the connection was closed while it was made");
        let events = self.inner.begin.events(&first.id).ok_or_else(gone)?;
        Ok(Connection { inner: self.inner.clone(), events, first })
    }

    /// Closes all connections, at most until the deadline. Later requests are refused.
    pub async fn stop(&self, deadline: Instant) {
        // One that is requested or moved right now is not among the known ones: its Close waits for that.
        let mut open = std::mem::take(&mut *self.inner.asked());
        open.extend(self.inner.begin.connections().into_iter().map(|known| (known.id.clone(), known)));
        let closing = open.into_values().map(|connection| {
            let call = Call::new(deadline.saturating_duration_since(Instant::now()));
            self.inner.chain.close(Close { connection, call })
        });
        for error in futures::future::join_all(closing).await.into_iter().filter_map(Result::err) {
            tracing::debug!(%error, "a connection did not close cleanly");
        }
        self.inner.begin.drain(deadline).await;
    }
}

/// A connection. It stays up without its handle too: [`Connection::close`] ends it.
pub struct Connection {
    inner: Arc<Inner>,
    events: Events,
    first: Message,
}

impl Connection {
    /// Its id, which never changes.
    pub fn id(&self) -> &str {
        self.events.id()
    }

    /// As it is now: the last heal may have moved it.
    pub fn current(&self) -> Message {
        self.events.last().unwrap_or_else(|| self.first.clone())
    }

    /// Our own addresses, as CIDR.
    pub fn addresses(&self) -> Vec<String> {
        self.current().context.and_then(|context| context.ip_context).map(|ip| ip.src_ip_addrs).unwrap_or_default()
    }

    /// The endpoint's addresses, as CIDR.
    pub fn endpoint_addresses(&self) -> Vec<String> {
        self.current().context.and_then(|context| context.ip_context).map(|ip| ip.dst_ip_addrs).unwrap_or_default()
    }

    /// The endpoint's name.
    pub fn endpoint(&self) -> String {
        self.current().network_service_endpoint_name
    }

    /// The interface's name, for a KERNEL connection.
    pub fn interface(&self) -> Option<String> {
        self.current().mechanism.and_then(|mut mechanism| mechanism.parameters.remove(INTERFACE_NAME))
    }

    /// Closes it. Whatever the answer, nothing is refreshed or healed any more.
    ///
    /// # Errors
    /// What the agent said; the agent then forgets the connection when it expires.
    pub async fn close(self) -> Result<(), Error> {
        self.inner.asked().remove(self.id());
        let close = Close { connection: self.current(), call: Call::new(self.inner.call_timeout) };
        self.inner.chain.close(close).await
    }
}
