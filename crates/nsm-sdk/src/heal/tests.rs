use std::{
    path::{Path as File, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use nsm_proto::connectioncontext::{ConnectionContext, IpContext};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::*;
use crate::{
    Call, Chain,
    begin::Begin,
    chain,
    connect::Connect,
    fail_at::{FailAt, fail_at},
    monitor::Monitor,
    path::{Path, Verify},
    serve::Serve,
};

/// A next hop on a socket.
struct Hop {
    begin: Begin,
    monitor: Monitor,
    events: FailAt,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

/// Names the endpoint, and gives an address to who has none.
struct Answer(String);

#[async_trait]
impl Element for Answer {
    async fn request(&self, request: Request, _: Next) -> Result<Connection, Error> {
        let mut connection = request.connection;
        connection.network_service_endpoint_name.clone_from(&self.0);
        let addresses = connection.context.get_or_insert_default().ip_context.get_or_insert_default();
        if addresses.src_ip_addrs.is_empty() {
            addresses.src_ip_addrs.push(format!("address of {}", self.0));
        }
        Ok(connection)
    }
}

impl Hop {
    fn start(socket: &File) -> Self {
        Self::with(socket, Some(Monitor::new()))
    }

    fn with(socket: &File, shown: Option<Monitor>) -> Self {
        let name = socket.file_name().unwrap().to_str().unwrap().to_owned();
        let (begin, monitor, events) = (Begin::new(), shown.clone().unwrap_or_default(), fail_at(usize::MAX));
        let path = Path::server(&name);
        let chain = chain![path, begin.clone(), monitor.clone(), events.clone(), Answer(name)];
        let permissions = nsm_fdpass::Permissions { mode: 0o600, uid: None, gid: None };
        let socket = nsm_fdpass::bind(socket, permissions).unwrap();
        let server = Server::builder()
            .add_service(Serve::new(chain))
            .add_optional_service(shown.map(|monitor| monitor.server()));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let serving = tokio::spawn(async move {
            server.serve_with_incoming_shutdown(socket.incoming(), stopped).await.unwrap();
        });
        Self { begin, monitor, events, stop, serving }
    }

    async fn stop(self) {
        self.monitor.shut_down();
        self.stop.cancel();
        bounded(self.serving).await.unwrap();
    }
}

/// Chooses a next hop: another one with each reselect.
struct Choose {
    hops: Vec<PathBuf>,
    at: Arc<AtomicUsize>,
}

impl Choose {
    fn note(&self, call: &Call) {
        call.note(Target::Unix(self.hops[self.at.load(Ordering::SeqCst) % self.hops.len()].clone()));
    }
}

#[async_trait]
impl Element for Choose {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        if request.connection.state() == State::ReselectRequested {
            self.at.fetch_add(1, Ordering::SeqCst);
        }
        self.note(&request.call);
        next.request(request).await
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        self.note(&close.call);
        next.close(close).await
    }
}

struct Client {
    chain: Chain,
    begin: Begin,
    heal: Heal,
    reselects: Arc<AtomicUsize>,
}

impl Client {
    fn of(hops: &[&File], heal: impl FnOnce(Heal) -> Heal) -> Self {
        let (peers, begin, at) = (Peers::new(), Begin::new(), Arc::new(AtomicUsize::new(0)));
        let heal = heal(Heal::new(peers.clone(), "nsc"));
        let choose = Choose { hops: hops.iter().map(|hop| hop.to_path_buf()).collect(), at: at.clone() };
        let chain =
            chain![Path::client("nsc"), begin.clone(), heal.clone(), choose, Verify, Connect::noted(peers.clone())];
        Self { chain, begin, heal, reselects: at }
    }

    async fn request(&self) -> Connection {
        let connection = Connection { id: "a".into(), ..Connection::default() };
        let request = Request { connection, preferences: Vec::new(), call: Call::default() };
        self.chain.request(request).await.unwrap()
    }

    async fn served_by(&self, hop: &str) -> Connection {
        until(hop, || self.begin.last("a").is_some_and(|c| c.network_service_endpoint_name == hop)).await;
        self.begin.last("a").unwrap()
    }

    fn reselects(&self) -> usize {
        self.reselects.load(Ordering::SeqCst)
    }
}

async fn bounded<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), work).await.expect("it takes too long")
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    bounded(async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert!(holds(), "{what}");
}

/// Two sockets in a folder of their own.
fn sockets() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    (folder, one, two)
}

#[tokio::test]
async fn a_connection_that_is_down_moves_and_keeps_id_and_addresses() {
    let (_folder, one, two) = sockets();
    let (first, second) = (Hop::start(&one), Hop::start(&two));
    let client = Client::of(&[&one, &two], |heal| heal);
    let before = client.request().await;
    assert_eq!(before.network_service_endpoint_name, "one");
    let at_hop = first.begin.connections().remove(0).id;
    first.monitor.announce(&at_hop, State::Down);
    let after = client.served_by("two").await;
    assert_eq!((&after.id, &after.context), (&before.id, &before.context));
    assert_eq!((first.begin.connections().len(), second.begin.connections().len()), (0, 1), "the old one is closed");
    assert_eq!(client.reselects(), 1);
}

#[tokio::test]
async fn a_hop_that_is_gone_is_replaced_after_patience() {
    let (_folder, one, two) = sockets();
    let (first, _second) = (Hop::start(&one), Hop::start(&two));
    let client = Client::of(&[&one, &two], |heal| heal.patience(Duration::ZERO));
    client.request().await;
    first.stop().await;
    client.served_by("two").await;
}

#[tokio::test]
async fn a_hop_that_restarts_is_asked_again_as_it_was() {
    let (_folder, one, two) = sockets();
    let (first, _second) = (Hop::start(&one), Hop::start(&two));
    let client = Client::of(&[&one, &two], |heal| heal);
    let before = client.request().await;
    first.stop().await;
    let again = Hop::start(&one);
    until("the new process knows it", || !again.begin.connections().is_empty()).await;
    assert_eq!(again.begin.connections()[0].context, before.context);
    assert_eq!(client.reselects(), 0);
}

#[tokio::test]
async fn a_deleted_connection_is_requested_again() {
    let (_folder, one, _) = sockets();
    let hop = Hop::start(&one);
    let client = Client::of(&[&one], |heal| heal);
    client.request().await;
    let id = hop.begin.connections().remove(0).id;
    // Not before the stream is open: an event that nobody hears is no event.
    until("the client watches", || client.heal.hops.is_watching()).await;
    hop.monitor.forget(&id);
    until("it is requested again", || hop.events.seen() == 2).await;
    assert_eq!(client.reselects(), 0);
}

#[tokio::test]
async fn a_refresh_that_is_asked_for_comes_at_once() {
    let (_folder, one, _) = sockets();
    let hop = Hop::start(&one);
    let client = Client::of(&[&one], |heal| heal);
    client.request().await;
    let id = hop.begin.connections().remove(0).id;
    until("the client watches", || client.heal.hops.is_watching()).await;
    for round in 2..5 {
        hop.monitor.announce(&id, State::RefreshRequested);
        until("it is refreshed", || hop.events.seen() == round).await;
        until("healing is over", || !client.heal.shared.healing.is_running("a")).await;
    }
    assert_eq!(client.reselects(), 0);
}

#[tokio::test]
async fn a_failed_heal_is_tried_until_it_works() {
    let (_folder, one, two) = sockets();
    let first = Hop::start(&one);
    let client = Client::of(&[&one, &two], |heal| heal.patience(Duration::ZERO));
    client.request().await;
    first.stop().await;
    until("it is tried in vain", || client.reselects() > 2).await;
    let _second = Hop::start(&two);
    client.served_by("two").await;
}

#[tokio::test]
async fn a_closed_connection_is_left_alone() {
    let (_folder, one, two) = sockets();
    let (first, second) = (Hop::start(&one), Hop::start(&two));
    let client = Client::of(&[&one, &two], |heal| heal.patience(Duration::ZERO));
    let connection = client.request().await;
    client.chain.close(Close { connection, call: Call::default() }).await.unwrap();
    assert!(client.heal.shared.known().is_empty());
    assert!(!client.heal.hops.is_watching());
    first.stop().await;
    assert_eq!((client.reselects(), second.events.seen()), (0, 0));
}

#[tokio::test]
async fn a_close_ends_a_heal_that_finds_nobody() {
    let (_folder, one, _) = sockets();
    let first = Hop::start(&one);
    let client = Client::of(&[&one], |heal| heal.patience(Duration::ZERO));
    let connection = client.request().await;
    first.stop().await;
    until("it is tried in vain", || client.reselects() > 1).await;
    let _unreachable = client.chain.close(Close { connection, call: Call::default() }).await;
    assert_eq!(client.heal.shared.healing.running(), 0);
    assert!(client.begin.connections().is_empty());
}

#[tokio::test]
async fn a_dead_wire_moves_the_connection_and_a_live_one_does_not() {
    struct Wire(AtomicBool);
    #[async_trait]
    impl Liveness for Wire {
        async fn alive(&self, connection: &Connection) -> bool {
            connection.network_service_endpoint_name == "two" || self.0.load(Ordering::SeqCst)
        }
    }
    let (_folder, one, two) = sockets();
    let (first, _second) = (Hop::start(&one), Hop::start(&two));
    let wire = Arc::new(Wire(AtomicBool::new(true)));
    let client = Client::of(&[&one, &two], |heal| {
        heal.patience(Duration::ZERO).liveness(wire.clone(), Duration::from_millis(5), Duration::from_secs(1))
    });
    client.request().await;
    first.stop().await;
    let first = Hop::start(&one);
    until("it is refreshed", || !first.begin.connections().is_empty()).await;
    assert_eq!(client.reselects(), 0, "the wire lives");
    wire.0.store(false, Ordering::SeqCst);
    client.served_by("two").await;
}

async fn causes_nothing(shown: Option<Monitor>) {
    let (_folder, one, two) = sockets();
    let (first, _second) = (Hop::with(&one, shown), Hop::start(&two));
    let client = Client::of(&[&one, &two], |heal| heal.patience(Duration::ZERO));
    client.request().await;
    until("the stream is given up", || client.heal.hops.streams_ended()).await;
    assert_eq!((client.reselects(), first.events.seen()), (0, 1));
    assert_eq!(client.heal.hops.is_up("a"), Some(true));
}

#[tokio::test]
async fn a_hop_without_monitor_causes_nothing() {
    causes_nothing(None).await;
}

#[tokio::test]
async fn a_hop_that_refuses_to_be_watched_causes_nothing() {
    causes_nothing(Some(Monitor::guarded(|_| Err(tonic::Status::permission_denied("not for you"))))).await;
}

#[tokio::test]
async fn a_hop_that_has_too_much_to_do_is_asked_again() {
    let (_folder, one, two) = sockets();
    let asked = Arc::new(AtomicUsize::new(0));
    let busy_once = Monitor::guarded({
        let asked = asked.clone();
        move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Err(tonic::Status::resource_exhausted("too many watches")),
            _ => Ok(Arc::new(|_| true)),
        }
    });
    let (_first, _second) = (Hop::with(&one, Some(busy_once)), Hop::start(&two));
    let client = Client::of(&[&one, &two], |heal| heal.patience(Duration::ZERO));
    client.request().await;
    until("it was refused", || asked.load(Ordering::SeqCst) == 1).await;
    assert!(!client.heal.hops.is_watching() && !client.heal.hops.streams_ended());
    let watched = async {
        while !client.heal.hops.is_watching() {
            tokio::time::pause();
            tokio::time::advance(hops::NOT_NOW).await;
            tokio::time::resume();
            // For the sockets between them.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
    };
    let bound = std::time::Instant::now() + Duration::from_secs(10);
    tokio::select! {
        () = watched => {}
        () = async { while std::time::Instant::now() < bound { tokio::task::yield_now().await } } => panic!("never asked again"),
    }
    assert_eq!(client.reselects(), 0);
}

#[tokio::test]
async fn connections_from_before_a_restart_are_deleted_where_the_hop_lacks_them() {
    let (_folder, one, _) = sockets();
    let _hop = Hop::start(&one);
    let client = Client::of(&[&one], |heal| heal);
    let known = client.request().await;
    let mut lost = known.clone();
    lost.id = "lost".into();
    lost.path.as_mut().unwrap().path_segments[0].id = "lost".into();

    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let hops = NextHops::new(Peers::new(), "nsc", move |event| tell.send(event).unwrap());
    let target = Target::Unix(one);
    hops.resume(&[known], &target);
    until("the stream is open", || hops.is_watching()).await;
    hops.resume(&[lost], &target);
    let event = bounded(told.recv()).await.unwrap();
    assert_eq!(event, HopEvent { id: "lost".into(), change: Change::Deleted });
    assert_eq!((hops.is_up("a"), hops.is_up("lost")), (Some(true), Some(false)));
}

#[tokio::test]
async fn only_our_own_connections_are_heard() {
    let (_folder, one, _) = sockets();
    let hop = Hop::start(&one);
    let client = Client::of(&[&one], |heal| heal);
    client.request().await;
    until("the client watches", || client.heal.hops.is_watching()).await;
    let mut other = hop.begin.connections().remove(0);
    other.id = "other".into();
    let path = other.path.as_mut().unwrap();
    path.path_segments[0].id = "b".into();
    path.path_segments[1].id = "other".into();
    // The same id in a place where it is not ours.
    path.path_segments.push(nsm_proto::connection::PathSegment { id: "a".into(), ..Default::default() });
    other.context = Some(ConnectionContext { ip_context: Some(IpContext::default()), ..Default::default() });
    hop.monitor.adopt(other);
    hop.monitor.announce("other", State::Down);
    let ours = hop.begin.connections().remove(0).id;
    hop.monitor.announce(&ours, State::RefreshRequested);
    until("ours is refreshed", || hop.events.seen() == 2).await;
    assert_eq!(client.reselects(), 0);
}
