//! Finds a client's connections again after its restart.
//!
//! Guarantees: the first Request of an id asks the next hop what it still has of that client and id, for at most
//! [`PATIENCE`]; what it finds goes on with the Request, so that path, addresses and endpoint stay, and one that is down is
//! reselected. Whatever goes wrong with asking, the Request goes on as it came.
//!
//! Assumes: the client's ids are the same after a restart, [`Path::client`](crate::path::Path::client) and
//! [`KernelClient`](crate::kernel::KernelClient) come earlier, and the next hop lets this process watch what is its own.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use nsm_proto::{
    connection::{Connection, MonitorScopeSelector, PathSegment, State},
    mechanism::INODE_URL,
};

use crate::{
    Call, Close, Element, Error, Next, Request,
    connect::{Peers, Target},
};

/// How long the next hop may take to say what it has.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The element, on the client's side.
#[derive(Clone)]
pub struct Recover {
    target: Target,
    /// Ids that this process has asked for.
    asked: Arc<Mutex<HashSet<String>>>,
}

impl Recover {
    /// Asks this next hop.
    pub fn from_next_hop(target: Target) -> Self {
        Self { target, asked: Arc::default() }
    }

    /// What the next hop has of this client.
    async fn find(&self, connection: &Connection, call: &Call) -> Option<Connection> {
        let own = connection.path.as_ref()?.path_segments.first()?;
        let segment = PathSegment { id: own.id.clone(), name: own.name.clone(), ..PathSegment::default() };
        let selector = MonitorScopeSelector { path_segments: vec![segment], network_services: Vec::new() };
        // A socket of its own: it is asked once in the life of a connection.
        let mut monitor = Peers::new().monitor(&self.target, call).await.ok()?;
        let mut events = monitor.monitor_connections(selector).await.ok()?.into_inner();
        let first = events.message().await.ok()??;
        first.connections.into_values().find(|found| {
            let path = found.path.as_ref();
            path.is_some_and(|path| path.index == 1 && path.path_segments.first().is_some_and(|s| s.id == own.id))
                && found.network_service == connection.network_service
        })
    }

    fn is_first(&self, id: &str) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned())
    }
}

#[async_trait]
impl Element for Recover {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        if request.connection.mechanism.is_none() && self.is_first(&request.connection.id) {
            let call = request.call.derive(PATIENCE.min(request.call.remaining()));
            let found = tokio::time::timeout_at(call.deadline, self.find(&request.connection, &call)).await;
            if let Ok(Some(found)) = found {
                tracing::info!(
                    connection = request.connection.id,
                    endpoint = found.network_service_endpoint_name,
                    "found again"
                );
                go_on_with(found, &mut request);
            }
        }
        next.request(request).await
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&close.connection.id);
        next.close(close).await
    }
}

fn go_on_with(found: Connection, request: &mut Request) {
    let connection = &mut request.connection;
    if let (Some(path), Some(theirs)) = (connection.path.as_mut(), found.path) {
        path.path_segments.truncate(1);
        path.path_segments.extend(theirs.path_segments.into_iter().skip(1));
    }
    let excluded = connection.context.take().and_then(|context| context.ip_context).map(|ip| ip.excluded_prefixes);
    connection.context = found.context;
    if let Some(ip) = connection.context.as_mut().and_then(|context| context.ip_context.as_mut()) {
        ip.excluded_prefixes = excluded.unwrap_or_default();
    }
    connection.payload = found.payload;
    if found.state == i32::from(State::Down) {
        connection.set_state(State::ReselectRequested);
        return;
    }
    if connection.network_service_endpoint_name.is_empty() {
        connection.network_service_endpoint_name = found.network_service_endpoint_name;
    }
    // Its namespace may have another name now: the one that this process passes.
    let offer = found.mechanism.as_ref().and_then(|mechanism| {
        request.preferences.iter().find(|offer| offer.r#type == mechanism.r#type && offer.cls == mechanism.cls)
    });
    if let (Some(mut mechanism), Some(offer)) = (found.mechanism.clone(), offer) {
        if let Some(url) = offer.parameters.get(INODE_URL) {
            mechanism.parameters.insert(INODE_URL.into(), url.clone());
        }
        connection.mechanism = Some(mechanism);
    }
}

#[cfg(test)]
mod tests {
    use nsm_fdpass::Permissions;
    use tonic::transport::Server;

    use super::*;
    use crate::{
        Chain,
        begin::Begin,
        chain,
        connect::Connect,
        ipam::PointToPoint,
        kernel::{KernelClient, KernelServer},
        monitor::Monitor,
        path::Path,
        serve::Serve,
    };

    /// A process's chain, and the id that it uses each time.
    fn client(target: &Target) -> Chain {
        chain![
            Path::client("nsc"),
            Begin::new(),
            KernelClient::new().unwrap(),
            Recover::from_next_hop(target.clone()),
            Connect::to(Peers::new(), target.clone())
        ]
    }

    fn request() -> Request {
        let connection = Connection { id: "nsc-0".into(), network_service: "s".into(), ..Connection::default() };
        Request { connection, preferences: Vec::new(), call: Call::default() }
    }

    #[tokio::test]
    async fn a_restarted_client_goes_on_with_its_connection() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let monitor = Monitor::new();
        let ipam = PointToPoint::new("10.0.0.0/24".parse().unwrap());
        let chain =
            chain![Path::server("agent"), Begin::new(), monitor.clone(), ipam.clone(), KernelServer::new().unwrap()];
        let socket = nsm_fdpass::bind(&path, Permissions { mode: 0o600, uid: None, gid: None }).unwrap();
        let server = Server::builder().add_service(Serve::new(chain)).add_service(monitor.server());
        let task = tokio::spawn(server.serve_with_incoming(socket.incoming()));
        let target = Target::Unix(path);

        let before = client(&target).request(request()).await.unwrap();
        let after = client(&target).request(request()).await.unwrap();
        let ids = |connection: &Connection| {
            let path = connection.path.clone().unwrap_or_default();
            path.path_segments.into_iter().map(|segment| segment.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&after), ids(&before), "the same connection");
        assert_eq!(after.context, before.context);
        assert_eq!(ipam.pool().leases(), 1);
        task.abort();
    }

    #[tokio::test]
    async fn without_a_monitor_the_request_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let chain = chain![Path::client("nsc"), Recover::from_next_hop(Target::Unix(folder.path().join("none")))];
        assert_eq!(chain.request(request()).await.unwrap().id, "nsc-0");
    }
}
