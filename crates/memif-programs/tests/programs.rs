//! The programs, as a user starts them, against each other and against the library.

use std::{
    io::Read as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use memif::{Address, Connection, Listener, Server};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

/// A program that ends with its test, however that ends.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, dir: &TempDir, args: &[&str]) -> Program {
    let mut command = Command::new(program);
    command.args(["--socket", &dir.path().join("memif.sock").display().to_string()]).args(args);
    Program(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

const GEN: &str = env!("CARGO_BIN_EXE_memif-gen");
const DUMP: &str = env!("CARGO_BIN_EXE_memif-dump");
const PING: &str = env!("CARGO_BIN_EXE_memif-ping");

/// What it printed, once it has ended well.
fn ended(mut program: Program) -> String {
    let child = &mut program.0;
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(child.wait().unwrap().success(), "{out}{err}");
    out
}

/// What it said, once it has failed.
fn failed(mut program: Program) -> String {
    let mut said = String::new();
    program.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!program.0.wait().unwrap().success(), "{said}");
    said
}

fn terminate(program: &Program) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(program.0.id().cast_signed()), nix::sys::signal::Signal::SIGTERM)
        .unwrap();
}

fn stopped(program: Program) -> String {
    terminate(&program);
    ended(program)
}

fn value(line: &str, name: &str) -> u64 {
    let found = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {line}")).parse().unwrap()
}

#[test]
fn what_is_sent_comes_back_and_is_counted() {
    for (mode, receive) in [("ethernet", "wait"), ("ip", "wait"), ("ethernet", "poll")] {
        let dir = tempfile::tempdir().unwrap();
        let both = ["--mode", mode, "--receive", receive];
        let echo = start(GEN, &dir, &[&["--role", "server"], &both[..], &["echo"]].concat());
        // Fewer than a ring has slots: nothing is ever dropped for want of one, however slow the machine.
        let work = ["send", "--rate", "20000", "--count", "900", "--size", "700"];
        let line = ended(start(GEN, &dir, &[&both[..], &work].concat()));
        assert_eq!((value(&line, "received"), value(&line, "lost")), (value(&line, "sent"), 0), "{line}");
        assert_eq!(value(&line, "received_bytes"), value(&line, "sent") * 700, "{line}");
        let line = stopped(echo);
        assert_eq!(value(&line, "received"), value(&line, "sent"), "{line}");
    }
}

fn server(dir: &TempDir, program: &str, args: &[&str]) -> (Connection, Program) {
    let listener = Listener::bind(&Address::path(dir.path().join("memif.sock")).unwrap()).unwrap();
    let port = listener.add(Server::new(0)).unwrap();
    let child = start(program, dir, args);
    (port.accept(SOON).unwrap().expect("the program connects"), child)
}

#[test]
fn what_comes_back_late_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (mut connection, sender) = server(&dir, GEN, &["send", "--count", "20"]);
    let mut packets = Vec::new();
    while packets.len() < 20 {
        assert!(connection.rx[0].wait(SOON).unwrap());
        packets.extend(connection.rx[0].burst(64).unwrap().iter().map(|packet| packet.to_vec()));
    }
    assert!(!connection.rx[0].wait(Duration::from_millis(800)).unwrap());
    for packet in &packets {
        while connection.tx[0].send(packet).unwrap().is_err() {}
    }
    let line = ended(sender);
    assert_eq!((value(&line, "received"), value(&line, "lost")), (20, 0), "{line}");
}

#[test]
fn what_arrives_is_captured() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("capture.pcap");
    let args = ["--write", file.to_str().unwrap(), "--count", "2", "--snaplen", "100"];
    let (mut connection, dump) = server(&dir, DUMP, &args);
    while connection.tx[0].send(&[7; 60]).unwrap().is_err() {}
    connection.tx[0].send(&[8; 3000]).unwrap().unwrap();
    ended(dump);
    let capture = std::fs::read(&file).unwrap();
    assert_eq!(capture.len(), 24 + 16 + 60 + 16 + 100);
    assert_eq!((&capture[40..100], &capture[116..]), ([7; 60].as_slice(), [8; 100].as_slice()));
    assert_eq!(capture[112..116], 3000_u32.to_ne_bytes());
}

#[test]
fn a_ping_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (mut connection, ping) = server(&dir, PING, &["--address", "10.0.0.1", "--mac", "02:00:00:00:00:01"]);
    let mut request = vec![0xff; 6];
    request.extend([2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2]);
    request.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    while connection.tx[0].send(&request).unwrap().is_err() {}
    assert!(connection.rx[0].wait(SOON).unwrap());
    let answer = connection.rx[0].burst(1).unwrap().iter().next().unwrap().to_vec();
    assert_eq!((&answer[..6], &answer[20..28]), ([2, 0, 0, 0, 0, 2].as_slice(), [0, 2, 2, 0, 0, 0, 0, 1].as_slice()));
    assert_eq!(stopped(ping), "answered=1\n");
}

#[test]
fn what_cannot_be_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |program, args: &[&str]| failed(start(program, &dir, args));
    assert!(fails(GEN, &["--ring-size", "1000", "sink"]).contains("ring size 1000: expected a power of two"));
    assert!(fails(PING, &["--address", "10.0.0.1", "--mac", "01:00:00:00:00:00"]).contains("not of a group"));
    let ends = |said: &str, expected: &str| {
        let error = said.lines().find_map(|line| line.strip_prefix("Error: "));
        assert!(error.is_some_and(|error| error.contains(expected)), "{said}");
    };
    for said in [fails(GEN, &["--seconds", "1", "sink"]), fails(PING, &["--seconds", "1", "--address", "10.0.0.1"])] {
        ends(&said, "never connected: memif socket");
        ends(&said, "does the server run");
    }
    let listening = ["--role", "server", "--id", "4", "--seconds", "1"];
    ends(&fails(GEN, &[&listening[..], &["sink"]].concat()), "never connected: no client came for interface id 4");
    let (connection, ping) = server(&dir, PING, &["--address", "10.0.0.1"]);
    terminate(&ping);
    ends(&failed(ping), "nobody asked");
    drop(connection);
}
