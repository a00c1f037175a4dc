//! Real sockets, real files, both directions, and peers that mean no good.

use std::{
    io::{IoSlice, Read, Seek, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
            net::UnixStream as Plain,
        },
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nsm_fdpass::{
    BindError, Bounds, ConnectError, Connection, InodeId, MAX_FILES, Permissions, bind, connect, connect_file,
    connect_here,
};
use nsm_proto::{
    connection::Connection as Message,
    networkservice::{
        NetworkServiceRequest,
        network_service_client::NetworkServiceClient,
        network_service_server::{NetworkService, NetworkServiceServer},
    },
};
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status};

const OPEN: Permissions = Permissions { mode: 0o600, uid: None, gid: None };
const LIMIT: Duration = Duration::from_secs(10);

/// Answers the text of the file whose URL is the connection's id, and passes a file of its own back.
struct Reader;

#[tonic::async_trait]
impl NetworkService for Reader {
    async fn request(&self, rpc: Request<NetworkServiceRequest>) -> Result<Response<Message>, Status> {
        let socket = rpc.extensions().get::<Connection>().unwrap().clone();
        let url = rpc.into_inner().connection.unwrap_or_default().id;
        let id: InodeId = url.parse().map_err(|_| Status::invalid_argument("no inode"))?;
        let file = socket.inbox.take(id).ok_or_else(|| Status::invalid_argument("not passed"))?;
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text)?;
        let answer = written(&format!("{text} and back"));
        let id = InodeId::of(&answer).unwrap().to_string();
        socket.outbox.send(Arc::new(answer)).unwrap();
        Ok(Response::new(Message { id, payload: socket.peer.pid.to_string(), ..Message::default() }))
    }

    async fn close(&self, _: Request<Message>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }
}

fn written(text: &str) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file.into()
}

fn serve(path: &Path) -> tokio::task::JoinHandle<()> {
    serve_within(path, Bounds::default())
}

fn serve_within(path: &Path, bounds: Bounds) -> tokio::task::JoinHandle<()> {
    let incoming = bind(path, OPEN).unwrap().incoming_within(bounds);
    tokio::spawn(async move {
        let server = tonic::transport::Server::builder().add_service(NetworkServiceServer::new(Reader));
        server.serve_with_incoming(incoming).await.unwrap();
    })
}

fn soon() -> Instant {
    Instant::now() + LIMIT
}

async fn ask(channel: &nsm_fdpass::FdChannel, url: String) -> Result<Message, Status> {
    let connection = Some(Message { id: url, ..Message::default() });
    let message = NetworkServiceRequest { connection, ..NetworkServiceRequest::default() };
    let mut client = NetworkServiceClient::new(channel.channel.clone());
    timeout(LIMIT, client.request(message)).await.expect("no answer").map(Response::into_inner)
}

async fn round_trip(channel: &nsm_fdpass::FdChannel, text: &str) {
    let file = Arc::new(written(text));
    let id = InodeId::of(&*file).unwrap();
    channel.outbox.send(file).unwrap();
    let answer = ask(channel, id.to_string()).await.unwrap();
    assert_eq!(answer.payload, std::process::id().to_string(), "the kernel tells the peer");
    let back = channel.inbox.take(answer.id.parse().unwrap()).expect("the answer's file comes before it");
    let mut read = String::new();
    std::fs::File::from(back).read_to_string(&mut read).unwrap();
    assert_eq!(read, format!("{text} and back"));
}

#[tokio::test]
async fn files_precede_their_message_in_both_directions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deeper/s");
    let server = serve(&path);
    let channel = connect(&path, soon()).await.unwrap();
    // More than may wait at a time: what is claimed does not count.
    for number in 0..2 * MAX_FILES {
        round_trip(&channel, &number.to_string()).await;
    }
    let passed: OwnedFd =
        std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_PATH).open(&path).unwrap().into();
    round_trip(&connect_file(&passed, soon()).await.unwrap(), "through the socket's file").await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_pass_the_same_file_each() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let server = serve(&path);
    let channel = connect(&path, soon()).await.unwrap();
    let file = Arc::new(written("same"));
    let url = InodeId::of(&*file).unwrap().to_string();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (channel, file, url) = (channel.clone(), file.clone(), url.clone());
        calls.spawn(async move {
            channel.outbox.send(file).unwrap();
            ask(&channel, url).await.unwrap();
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    server.abort();
}

#[tokio::test]
async fn a_file_that_was_not_passed_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let server = serve(&path);
    let channel = connect(&path, soon()).await.unwrap();
    assert_eq!(ask(&channel, "inode://1/2".into()).await.unwrap_err().message(), "not passed");
    server.abort();
}

/// Waits until the server has hung up.
fn hung_up(mut socket: Plain) {
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut byte = [0; 4096];
    loop {
        match socket.read(&mut byte) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("still connected: {error}"),
        }
    }
}

/// How many descriptors of this file are open here: other tests run in the same process.
fn descriptors_of(id: InodeId) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let named = open.filter_map(|fd| std::fs::metadata(fd.path()).ok());
    named.filter(|file| InodeId { dev: file.dev(), ino: file.ino() } == id).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_peers_lose_their_connection_and_nobody_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let server = serve(&path);
    let channel = connect(&path, soon()).await.unwrap();
    round_trip(&channel, "before").await;
    let hostile = path.clone();
    let file = written("many");
    let id = InodeId::of(&file).unwrap();
    tokio::task::spawn_blocking(move || {
        let fds = [file.as_raw_fd(); 200];
        let flood = Plain::connect(&hostile).unwrap();
        sendmsg::<()>(
            flood.as_raw_fd(),
            &[IoSlice::new(b"P")],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        hung_up(flood);
        for bytes in [&b"\x16\x03\x01\x02\x00\x01"[..], &[0xff; 200], b"GET / HTTP/1.1\r\n\r\n"] {
            let mut socket = Plain::connect(&hostile).unwrap();
            socket.write_all(bytes).unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
            hung_up(socket);
        }
    })
    .await
    .unwrap();
    round_trip(&channel, "after").await;
    let end = std::time::Instant::now() + LIMIT;
    while descriptors_of(id) > 0 {
        assert!(std::time::Instant::now() < end, "{} descriptors are still open", descriptors_of(id));
        tokio::task::yield_now().await;
    }
    server.abort();
}

#[tokio::test]
async fn a_channel_ends_with_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let incoming = bind(&path, OPEN).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        tonic::transport::Server::builder()
            .add_service(NetworkServiceServer::new(Reader))
            .serve_with_incoming_shutdown(incoming.incoming(), async { drop(stopped.await) })
            .await
    });
    let channel = connect(&path, soon()).await.unwrap();
    round_trip(&channel, "x").await;
    assert!(!channel.is_closed());
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    timeout(LIMIT, async {
        while !channel.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the end of the socket is noticed");
    assert!(!path.exists(), "the name goes with the socket");
    let again = serve(&path);
    assert_eq!(ask(&channel, String::new()).await.unwrap_err().code(), tonic::Code::Unavailable);
    again.abort();
}

#[tokio::test]
async fn a_path_is_taken_over_from_the_dead_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    assert!(matches!(connect(&path, soon()).await, Err(ConnectError::Missing(_))));
    assert!(matches!(connect_here(&path, soon()).await, Err(ConnectError::Missing(_))));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(connect(&path, soon()).await, Err(ConnectError::Refused(_))));
    assert!(matches!(connect_here(&path, soon()).await, Err(ConnectError::Refused(_))));
    let socket = bind(&path, Permissions { mode: 0o640, ..OPEN }).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    assert!(matches!(bind(&path, OPEN), Err(BindError::InUse(_))));
    std::fs::rename(&path, folder.path().join("moved")).unwrap();
    std::fs::write(&path, "a file").unwrap();
    drop(socket);
    assert!(path.exists(), "another's file stays");
    assert!(matches!(bind(&path, OPEN), Err(BindError::NoSocket(_))));
}

#[tokio::test]
async fn a_listener_that_does_not_accept_costs_no_more_than_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut waiting = Vec::new();
    while let Some(socket) = one_more(&path) {
        waiting.push(socket);
    }
    let started = Instant::now();
    let result = connect(&path, Instant::now() + Duration::from_millis(50)).await;
    assert!(matches!(result, Err(ConnectError::Timeout(_))), "{result:?}");
    let result = connect_here(&path, Instant::now() + Duration::from_millis(50)).await;
    assert!(matches!(result, Err(ConnectError::Timeout(_))), "{result:?}");
    assert!(started.elapsed() < LIMIT);
    assert!(matches!(bind(&path, OPEN), Err(BindError::InUse(_))), "a full queue is somebody's");
}

/// One more waiting connection; `None` when the queue is full.
fn one_more(path: &Path) -> Option<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    connect(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).ok().map(|()| socket)
}

/// A socket that was made in a namespace of its own is of that namespace, whoever uses it.
#[tokio::test]
async fn the_kernel_tells_the_namespace_that_the_peers_socket_was_made_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let elsewhere = path.clone();
    let (socket, netns) = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs CAP_SYS_ADMIN");
        let netns = InodeId::of(std::fs::File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
        (Plain::connect(elsewhere).unwrap(), netns)
    })
    .join()
    .unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let peer = nsm_fdpass::Peer::of(&accepted).unwrap();
    let own = InodeId::of(std::fs::File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
    assert_ne!(netns, own);
    assert_eq!(peer.netns.expect("this test needs CAP_NET_ADMIN").id, netns);
    drop(socket);
}

#[tokio::test]
async fn the_end_of_the_peers_process_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let script = "import socket,sys,time; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()";
    let mut child = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("this test needs python3");
    let (accepted, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    let peer = nsm_fdpass::Peer::of(&accepted).unwrap();
    assert_eq!(peer.pid, i32::try_from(child.id()).unwrap());
    assert!(matches!(peer.process, nsm_fdpass::Process::Proved(_)), "this test needs Linux 6.5");
    assert!(timeout(Duration::from_millis(20), peer.ended()).await.is_err(), "it lives");
    child.kill().unwrap();
    timeout(LIMIT, peer.ended()).await.expect("its end is told").unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_sent_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let server = serve_within(&path, Bounds { silence: Duration::from_millis(100), ..Bounds::default() });
    let speaks = connect(&path, soon()).await.unwrap();
    ask(&speaks, "inode://1/2".into()).await.unwrap_err();
    let (silent, mut slow) = (Plain::connect(&path).unwrap(), Plain::connect(&path).unwrap());
    // Part of what a client says first.
    slow.write_all(b"PRI * HTTP/2").unwrap();
    let gone = tokio::task::spawn_blocking(|| {
        hung_up(silent);
        hung_up(slow);
    });
    gone.await.unwrap();
    let status = ask(&speaks, "inode://1/2".into()).await.unwrap_err();
    assert_eq!(status.message(), "not passed", "who has spoken may be silent afterwards");
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_has_its_part_of_the_connections() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    // Root may take them all.
    let most = 8;
    let server = serve_within(&path, Bounds { per_peer: most, total: most, ..Bounds::default() });
    let mut held: Vec<Plain> = (0..most).map(|_| Plain::connect(&path).unwrap()).collect();
    let one_more = Plain::connect(&path).unwrap();
    tokio::task::spawn_blocking(|| hung_up(one_more)).await.unwrap();
    held.pop();
    let end = soon();
    while connect(&path, soon()).await.is_err() || !asked(&path).await {
        assert!(Instant::now() < end, "the place of one that left is free");
    }
    server.abort();
}

async fn asked(path: &Path) -> bool {
    let Ok(channel) = connect(path, soon()).await else { return false };
    ask(&channel, "inode://1/2".into()).await.is_err_and(|status| status.message() == "not passed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unclaimed_files_count_over_all_connections_of_a_peer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let server = serve_within(&path, Bounds { files: 4, ..Bounds::default() });
    let file = written("unclaimed");
    let id = InodeId::of(&file).unwrap();
    let mut sockets: Vec<Plain> = (0..3).map(|_| Plain::connect(&path).unwrap()).collect();
    let fds = [file.as_raw_fd(); 2];
    for socket in &sockets {
        socket.set_nonblocking(true).unwrap();
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(b"P")], &rights, MsgFlags::MSG_NOSIGNAL, None).unwrap();
    }
    let mut ended = |socket: &mut Plain| match socket.read(&mut [0; 4096]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    };
    let end = soon();
    // The last to be heard is one too many. A descriptor is ours.
    while !sockets.iter_mut().any(&mut ended) || descriptors_of(id) != 5 {
        assert!(Instant::now() < end, "{} descriptors", descriptors_of(id));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_start_at_once_one_is_refused() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let starts = [0; 4].map(|_| {
            let path = path.clone();
            tokio::spawn(async move { bind(&path, OPEN) })
        });
        let mut bound = Vec::new();
        for start in starts {
            match start.await.unwrap() {
                Ok(socket) => bound.push(socket),
                Err(error) => assert!(matches!(error, BindError::InUse(_)), "{error}"),
            }
        }
        assert_eq!(bound.len(), 1);
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["s"]);
    }
}
