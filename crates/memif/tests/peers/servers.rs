//! One socket, many interfaces and clients.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::FileTypeExt},
    thread,
    time::Duration,
};

use memif::{Address, Client, ConnectError, Limits, ListenError, Listener, Mode, Refusal, Secret, Server};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use crate::{
    pairs::{pair, place},
    raw::SOON,
};

fn refused(client: &Client) -> String {
    match client.connect(SOON).unwrap_err() {
        ConnectError::Refused { code: 0, reason, .. } => reason,
        other => panic!("{other}"),
    }
}

#[test]
fn each_interface_has_its_own_secret_mode_limits_and_users() {
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let client = |id| Client::new(address.clone()).id(id);
    let secret = |secret| Secret::new(secret).unwrap();
    let me = rustix::process::geteuid().as_raw();
    let _one = listener.add(Server::new(1).secret(secret("one"))).unwrap();
    let _two = listener.add(Server::new(2).secret(secret("two")).mode(Mode::Ip)).unwrap();
    let small = Limits::default().slots(256).unwrap();
    let _three = listener.add(Server::new(3).limits(small).only_users([me])).unwrap();
    let _four = listener.add(Server::new(4).only_users([me + 1])).unwrap();

    assert_eq!(refused(&client(0)), "unknown interface id 0");
    assert_eq!(refused(&client(1)), "secret required for interface id 1");
    assert_eq!(refused(&client(1).secret(secret("two"))), "incorrect secret for interface id 1");
    assert_eq!(refused(&client(2).secret(secret("two"))), "mode mismatch: Ethernet, expected IP");
    assert_eq!(refused(&client(4)), format!("user {me} may not connect to interface id 4"));
    // HELLO speaks for all of them, so the smaller limit is told when it is exceeded.
    assert_eq!(refused(&client(3)), "S2M ring 0 of 2^10 slots: expected at most 2^8");
    let all = listener.take_refused();
    assert_eq!(all.len(), 6);
    assert!(all.iter().all(|refused| refused.credentials.unwrap().user == me));
    assert_eq!(all[1].why, Refusal::SecretRequired(1));
    assert!(listener.take_refused().is_empty());

    let connections = [client(1).secret(secret("one")), client(2).secret(secret("two")).mode(Mode::Ip)]
        .map(|client| client.connect(SOON).unwrap());
    assert_eq!(connections.map(|connection| connection.id), [1, 2]);
}

#[test]
fn an_interface_has_one_client_until_that_is_gone() {
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let client = Client::new(address.clone());
    let (first, held, port) = pair(&Client::new(address), Server::new(0), &listener);
    assert!(listener.add(Server::new(0)).is_err());
    assert_eq!(refused(&client), "interface id 0 is already connected");
    // The server's end of the old one is still there, and is no hindrance.
    drop(first);
    let second = client.connect(SOON).unwrap();
    let accepted = port.accept(SOON).unwrap().unwrap();
    assert!(held.link.check().is_err() && accepted.link.check().is_ok());
    drop(second);
    drop(port);
    assert_eq!(refused(&client), "unknown interface id 0");
}

#[test]
fn a_client_that_was_never_accepted_hears_of_the_end() {
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let port = listener.add(Server::new(0)).unwrap();
    let near = Client::new(address).connect(SOON).unwrap();
    drop(port);
    assert_eq!(
        near.link.wait_down(SOON).unwrap().to_string(),
        "the peer disconnected: the interface is being removed (code 0)"
    );
    let port = listener.add(Server::new(0)).unwrap();
    assert!(port.accept(Duration::ZERO).unwrap().is_none());
}

#[test]
fn a_file_that_was_left_behind_is_replaced_and_others_are_not() {
    let (dir, address) = place();
    let path = address.as_path().unwrap();
    let first = Listener::bind(&address).unwrap();
    assert!(matches!(Listener::bind(&address), Err(ListenError::InUse { .. })));
    drop(first);
    assert!(!path.exists(), "the file goes with its listener");
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    drop(socket);
    assert!(fs::symlink_metadata(path).unwrap().file_type().is_socket());
    let second = Listener::bind(&address).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert!(matches!(Listener::bind(&Address::path(&file).unwrap()), Err(ListenError::NoSocket { .. })));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    // Another's file is left alone.
    fs::remove_file(path).unwrap();
    fs::write(path, "another's").unwrap();
    drop(second);
    assert!(path.exists());
}

#[test]
fn who_cannot_bind_or_connect_is_told_what_to_do_about_it() {
    let (dir, address) = place();
    let says = |address: &Address, expected: &str| {
        let error = Client::new(address.clone()).connect(SOON).unwrap_err();
        let said = error.to_string();
        assert!(said.ends_with(expected), "{said}");
        // What a chain of causes would print a second time.
        assert!(std::error::Error::source(&error).is_none(), "{said}");
    };
    let nobody = "(os error 111); does the server run, and in the same network namespace?";
    says(&Address::abstract_name(address.to_string()).unwrap(), nobody);
    says(&address, "(os error 2); does the server run?");
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    says(&Address::path(file).unwrap(), "(os error 111); the file is no listening socket: does the server run?");
    let missing = Listener::bind(&Address::path(dir.path().join("none/memif.sock")).unwrap()).unwrap_err();
    assert!(matches!(missing, ListenError::NoDirectory { .. }), "{missing}");
    assert!(missing.to_string().ends_with("create the directory first"), "{missing}");
    let _listener = Listener::bind(&address).unwrap();
    let taken = Listener::bind(&address).unwrap_err().to_string();
    assert!(taken.contains("in use by a listener"), "{taken}");
}

#[test]
fn a_socket_can_be_given() {
    let (_dir, address) = place();
    let socket = || socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let given: OwnedFd = socket();
    bind(&given, &SocketAddrUnix::new(address.as_path().unwrap()).unwrap()).unwrap();
    listen(&given, 4).unwrap();
    let listener = Listener::from_socket(given).unwrap();
    let (near, _far, _port) = pair(&Client::new(address), Server::new(0), &listener);
    assert_eq!(near.link.check(), Ok(()));
    assert!(matches!(Listener::from_socket(socket()), Err(ListenError::WrongSocket)));
    let file = fs::File::open("/dev/null").unwrap();
    assert!(matches!(Listener::from_socket(file.into()), Err(ListenError::WrongSocket)));
}

#[test]
fn who_comes_before_the_first_interface_waits_for_it() {
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let early = Client::new(address);
    assert!(matches!(early.connect(Duration::from_millis(30)), Err(ConnectError::Timeout { .. })));
    let waiting = thread::spawn(move || early.connect(SOON));
    let port = listener.add(Server::new(0)).unwrap();
    let accepted = port.accept(SOON).unwrap().expect("the one that waited, not the one that gave up");
    let connected = waiting.join().unwrap().unwrap();
    assert!(accepted.link.check().is_ok() && connected.link.check().is_ok());
}

#[test]
fn many_clients_connect_at_the_same_time() {
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let ports: Vec<_> = (0..40).map(|id| listener.add(Server::new(id)).unwrap()).collect();
    let clients = (0..40).map(|id| {
        let client = Client::new(address.clone()).id(id);
        // A process has few places at the same time: who finds none comes again.
        thread::spawn(move || {
            loop {
                match client.connect(SOON) {
                    Ok(connection) => return connection,
                    Err(ConnectError::Refused { reason, .. }) => {
                        assert!(reason.contains("at once"), "{reason}");
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect::<Vec<_>>().into_iter().map(|client| client.join().unwrap()).collect();
    for (port, client) in ports.iter().zip(&clients) {
        let accepted = port.accept(SOON).unwrap().unwrap();
        assert_eq!((accepted.id, client.id), (port.id(), port.id()));
    }
}

#[test]
fn nobody_there_and_somebody_silent_are_told_apart() {
    let (_dir, address) = place();
    let nobody = Client::new(address.clone()).connect(SOON).unwrap_err();
    assert!(matches!(nobody, ConnectError::Connect { .. }), "{nobody}");
    let silent = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    bind(&silent, &SocketAddrUnix::new(address.as_path().unwrap()).unwrap()).unwrap();
    listen(&silent, 4).unwrap();
    let timeout = Client::new(address).connect(Duration::from_millis(30)).unwrap_err();
    assert!(timeout.to_string().ends_with("no HELLO within 30ms"), "{timeout}");
}
