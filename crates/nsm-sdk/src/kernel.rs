//! The KERNEL mechanism: an interface in a network namespace, at both ends.
//!
//! Guarantees: the namespace travels as an open file in `call.files`, named by `inodeURL`; an endpoint's interface name is
//! at most 15 bytes, the same for the same connection, also after a restart, and differs between connections; a request
//! without a mechanism that is served is refused with the list of what it offered.
//!
//! Assumes: the forwarder makes the interfaces; nothing here touches the kernel but to open a namespace.

mod name;

use std::{fs::File, io, os::fd::OwnedFd, sync::Arc};

use async_trait::async_trait;
use nsm_fdpass::InodeId;
use nsm_proto::{
    connection::{Connection, Mechanism},
    mechanism::{INODE_URL, INTERFACE_NAME, KERNEL, LOCAL, MTU},
};

pub use self::name::{InterfaceName, InvalidInterfaceName};
use crate::{Close, Element, Error, Kind, Next, Request};

/// The request offers no mechanism that is served here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no mechanism that {service:?} serves: offered {offered}, expected {LOCAL}/{KERNEL}")]
pub struct NoMechanism {
    /// The network service asked for.
    pub service: String,
    /// What was offered, best first.
    pub offered: String,
}

/// The endpoint's side: answers with the endpoint's own namespace and interface name.
#[derive(Debug, Clone)]
pub struct KernelServer {
    netns: Arc<OwnedFd>,
}

impl KernelServer {
    /// Offers the network namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc/thread-self/ns/net` cannot be opened.
    pub fn new() -> io::Result<Self> {
        Ok(Self::in_netns(own_netns()?))
    }

    /// Offers this network namespace.
    pub fn in_netns(netns: impl Into<Arc<OwnedFd>>) -> Self {
        Self { netns: netns.into() }
    }
}

#[async_trait]
impl Element for KernelServer {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        let connection = &mut request.connection;
        // A refresh names the mechanism that was chosen; a peer's own parameters in it are no business of this side.
        let chosen = connection.mechanism.iter().chain(&request.preferences).find(|offer| is_local_kernel(offer));
        if chosen.is_none() {
            let offered = list(connection.mechanism.iter().chain(&request.preferences));
            return Err(NoMechanism { service: connection.network_service.clone(), offered }.into());
        }
        let file = request.call.files.add(self.netns.clone())?;
        let name = InterfaceName::derived(&connection.network_service, &connection.id);
        let mut mechanism = kernel(&name, file);
        if let Some(mtu) = connection.context.as_ref().map(|context| context.mtu).filter(|mtu| *mtu != 0) {
            mechanism.parameters.insert(MTU.into(), mtu.to_string());
        }
        connection.mechanism = Some(mechanism);
        next.request(request).await
    }
}

/// The client's side: offers an interface in a namespace.
#[derive(Debug, Clone)]
pub struct KernelClient {
    netns: Arc<OwnedFd>,
    name: Option<InterfaceName>,
}

impl KernelClient {
    /// Wants the interface in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc/thread-self/ns/net` cannot be opened.
    pub fn new() -> io::Result<Self> {
        Ok(Self::in_netns(own_netns()?))
    }

    /// Wants the interface in this network namespace.
    pub fn in_netns(netns: impl Into<Arc<OwnedFd>>) -> Self {
        Self { netns: netns.into(), name: None }
    }

    /// Wants this name, unless a request's own preference names another; without either it is derived from service and
    /// connection id.
    #[must_use]
    pub fn named(mut self, name: InterfaceName) -> Self {
        self.name = Some(name);
        self
    }

    /// Passes the namespace, and points the connection's own mechanism at it: after a restart it may name a file of old.
    fn bring(&self, connection: &mut Connection, call: &crate::Call) -> Result<InodeId, Error> {
        let file = call.files.add(self.netns.clone())?;
        if let Some(mechanism) = connection.mechanism.as_mut().filter(|mechanism| is_local_kernel(mechanism)) {
            mechanism.parameters.insert(INODE_URL.into(), file.to_string());
        }
        Ok(file)
    }
}

#[async_trait]
impl Element for KernelClient {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        let file = self.bring(&mut request.connection, &request.call)?;
        let connection = &request.connection;
        let derived = || InterfaceName::derived(&connection.network_service, &connection.id);
        let asked = || {
            let offer = request.preferences.iter().find(|offer| is_local_kernel(offer))?;
            offer.parameters.get(INTERFACE_NAME)?.parse().ok()
        };
        let name = asked().or_else(|| self.name.clone()).unwrap_or_else(derived);
        // A refresh comes with the preference of last time: one offer, not one more each time.
        request.preferences.retain(|offer| !is_local_kernel(offer));
        request.preferences.push(kernel(&name, file));
        next.request(request).await
    }

    async fn close(&self, mut close: Close, next: Next) -> Result<(), Error> {
        self.bring(&mut close.connection, &close.call)?;
        next.close(close).await
    }
}

impl From<NoMechanism> for Error {
    fn from(error: NoMechanism) -> Self {
        Self::new(Kind::Refused, error)
    }
}

/// Whether it is LOCAL/KERNEL; Go clients may leave the class out.
fn is_local_kernel(mechanism: &Mechanism) -> bool {
    mechanism.r#type == KERNEL && (mechanism.cls == LOCAL || mechanism.cls.is_empty())
}

fn kernel(name: &InterfaceName, netns: InodeId) -> Mechanism {
    let parameters = [(INTERFACE_NAME.into(), name.to_string()), (INODE_URL.into(), netns.to_string())];
    Mechanism { cls: LOCAL.into(), r#type: KERNEL.into(), parameters: parameters.into() }
}

/// Offers as `CLS/TYPE`, at most eight of them: the text goes back to whoever sent them.
fn list<'a>(offers: impl Iterator<Item = &'a Mechanism>) -> String {
    let short = |text: &str| text.chars().take(16).collect::<String>();
    let mut texts: Vec<_> = offers.map(|offer| format!("{}/{}", short(&offer.cls), short(&offer.r#type))).collect();
    let more = texts.len().saturating_sub(8);
    texts.truncate(8);
    match (texts.is_empty(), more) {
        (true, _) => "nothing".into(),
        (false, 0) => texts.join(", "),
        (false, more) => format!("{} and {more} more", texts.join(", ")),
    }
}

fn own_netns() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, chain};

    fn request(preferences: Vec<Mechanism>) -> Request {
        let connection =
            Connection { id: "a".into(), network_service: "icmp-responder".into(), ..Connection::default() };
        Request { connection, preferences, call: Call::default() }
    }

    #[tokio::test]
    async fn both_sides_pass_their_namespace_and_agree() {
        let name: InterfaceName = "nsm-1".parse().unwrap();
        let chain = chain![KernelClient::new().unwrap().named(name), KernelServer::new().unwrap()];
        let request = request(Vec::new());
        let call = request.call.clone();
        let answer = chain.request(request).await.unwrap();
        let mechanism = answer.mechanism.unwrap();
        assert!(call.files.of(&mechanism).unwrap().is_some());
        assert_eq!(mechanism.parameters[INTERFACE_NAME].len(), 15);
    }

    #[tokio::test]
    async fn a_refresh_keeps_name_and_mechanism() {
        let chain = chain![KernelServer::new().unwrap()];
        let offer = Mechanism { cls: LOCAL.into(), r#type: KERNEL.into(), ..Mechanism::default() };
        let first = chain.request(request(vec![offer])).await.unwrap();
        let mut again = request(Vec::new());
        again.connection = first.clone();
        assert_eq!(chain.request(again).await.unwrap(), first);
    }

    #[tokio::test]
    async fn what_is_not_served_is_refused_by_name() {
        let chain = chain![KernelServer::new().unwrap()];
        let offer = Mechanism { cls: LOCAL.into(), r#type: "MEMIF".into(), ..Mechanism::default() };
        let error = chain.request(request(vec![offer])).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().contains("offered LOCAL/MEMIF"), "{error}");
        let error = chain.request(request(Vec::new())).await.unwrap_err();
        assert!(error.to_string().contains("offered nothing"), "{error}");
    }

    #[tokio::test]
    async fn a_second_request_offers_once() {
        let element = KernelClient::new().unwrap();
        let chain = chain![element.clone(), element, Count];
        let answer = chain.request(request(Vec::new())).await.unwrap();
        assert_eq!(answer.labels["offers"], "1");
    }

    struct Count;

    #[async_trait]
    impl Element for Count {
        async fn request(&self, mut request: Request, _: Next) -> Result<Connection, Error> {
            request.connection.labels.insert("offers".into(), request.preferences.len().to_string());
            Ok(request.connection)
        }
    }
}
