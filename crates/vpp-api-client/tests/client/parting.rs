//! How a connection ends from this side: VPP is told, as it keeps what it has of a client that only hangs up.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;
use std::time::Duration;

use vpp_api_client::client::EventError;
use vpp_api_client::fake::{Deed, Fake, Nature};
use vpp_api_client::message::Message;
use vpp_api_client::messages::{CliInband, WantInterfaceEvents};
use vpp_api_client::{Client, Error, Loss, Sent, Session};

use super::{options, pair, place, usual};

const DELETE: u16 = 17;
const FIRST: u16 = 100;

async fn heard(fake: &Fake, goodbyes: usize) {
    let all = async {
        while fake.goodbyes() < goodbyes {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.unwrap();
    assert_eq!(fake.goodbyes(), goodbyes);
}

#[tokio::test]
async fn vpp_is_told_when_the_last_who_uses_it_goes() {
    let (_dir, fake, vpp) = pair(Nature::default(), usual).await;
    let events = vpp.subscribe(&WantInterfaceEvents { enable_disable: 1, pid: 1 }).await.unwrap();
    let other = vpp.clone();
    drop(vpp);
    drop(events);
    other.ping().await.unwrap();
    assert_eq!(fake.goodbyes(), 0);
    drop(other);
    heard(&fake, 1).await;
}

#[tokio::test]
async fn who_closes_it_waits_until_vpp_has_heard() {
    let (_dir, fake, vpp) = pair(Nature::default(), usual).await;
    let mut events = vpp.subscribe(&WantInterfaceEvents { enable_disable: 1, pid: 1 }).await.unwrap();
    let other = vpp.clone();
    vpp.close().await.unwrap();
    assert_eq!(fake.goodbyes(), 1);
    assert!(matches!(events.next().await, Err(EventError::Lost(Loss::Here))));
    assert!(matches!(other.ping().await, Err(Error::Lost { sent: Sent::No, loss: Loss::Here, .. })));
    // Once is enough, and what is over is closed.
    other.close().await.unwrap();
    drop(events);
    heard(&fake, 1).await;
}

#[tokio::test]
async fn who_closes_it_waits_no_longer_than_for_a_call() {
    let (_dir, _fake, vpp) = pair(Nature::default(), |_| vec![Deed::Hang]).await;
    let vpp = vpp.within(Duration::from_millis(20));
    vpp.ping().await.unwrap_err();
    let other = vpp.clone();
    let error = vpp.close().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(matches!(other.ping().await, Err(Error::Lost { loss: Loss::Here, .. })));
}

#[tokio::test]
async fn a_session_says_it_too() {
    let (_dir, path) = place();
    let fake = Fake::start(&path, Nature::default(), usual).unwrap();
    let session = Session::start(&path, options(), Duration::from_hours(1));
    session.client().await.unwrap();
    session.close().await.unwrap();
    assert_eq!(fake.goodbyes(), 1);
    let session = Session::start(&path, options(), Duration::from_hours(1));
    session.client().await.unwrap();
    drop(session);
    heard(&fake, 2).await;
}

#[tokio::test]
async fn it_comes_where_the_runtime_has_ended() {
    let (dir, path) = place();
    let fake = Fake::start(&path, Nature::default(), usual).unwrap();
    let client = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Client::connect(path, options())).unwrap()
    });
    while !client.is_finished() {
        tokio::task::yield_now().await;
    }
    drop(client.join().unwrap());
    heard(&fake, 1).await;
    drop(dir);
}

/// Greets, and reads no more until it is told; then all that came, as ids of whole messages and the bytes of one that is cut.
fn slow(path: &std::path::Path) -> (mpsc::Sender<()>, std::thread::JoinHandle<(Vec<u16>, usize)>) {
    let listener = UnixListener::bind(path).unwrap();
    let (go_on, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        greet(&mut stream);
        told.recv().unwrap();
        let mut all = Vec::new();
        let mut ids = Vec::new();
        while ids.last() != Some(&DELETE) {
            let mut room = [0; 4096];
            match stream.read(&mut room).unwrap() {
                0 => break,
                read => all.extend_from_slice(&room[..read]),
            }
            while let Some(id) = take(&mut all) {
                ids.push(id);
            }
        }
        (ids, all.len())
    });
    (go_on, thread)
}

/// The id of the first message, if it is whole.
fn take(all: &mut Vec<u8>) -> Option<u16> {
    let (header, behind) = all.split_at_checked(16)?;
    let length = u32::from_be_bytes(header[8..12].try_into().unwrap()) as usize;
    let (message, rest) = behind.split_at_checked(length)?;
    let id = u16::from_be_bytes([message[0], message[1]]);
    *all = rest.to_vec();
    Some(id)
}

/// The connection's task has to run meanwhile: what it holds is closed with it.
async fn read_by(server: std::thread::JoinHandle<(Vec<u16>, usize)>) -> (Vec<u16>, usize) {
    let ended = async {
        while !server.is_finished() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
    server.join().unwrap()
}

fn greet(stream: &mut UnixStream) {
    let mut create = [0; 16 + 70];
    stream.read_exact(&mut create).unwrap();
    let messages = [
        (DELETE, "sockclnt_delete_8ac76db6".to_owned()),
        (18, "sockclnt_delete_reply_8f38b1ee".to_owned()),
        (FIRST, format!("{}_{:08x}", CliInband::NAME, CliInband::CRC)),
        (FIRST + 1, "cli_inband_reply_05879051".to_owned()),
    ];
    let mut reply = [&16_u16.to_be_bytes()[..], &[0; 4], &1_u32.to_be_bytes(), &[0; 4], &[0, 0, 0, 5]].concat();
    reply.extend_from_slice(&4_u16.to_be_bytes());
    for (id, name) in messages {
        reply.extend_from_slice(&id.to_be_bytes());
        reply.extend_from_slice(name.as_bytes());
        reply.resize(reply.len() + 64 - name.len(), 0);
    }
    let mut header = [0; 16];
    header[8..12].copy_from_slice(&u32::try_from(reply.len()).unwrap().to_be_bytes());
    stream.write_all(&[&header[..], &reply].concat()).unwrap();
}

/// More than the socket takes.
async fn fill(vpp: &Client) {
    let long = CliInband { cmd: "x".repeat(300 << 10) };
    for _ in 0..3 {
        let late = vpp.within(Duration::from_millis(10)).call(&long).await.unwrap_err();
        assert!(matches!(late, Error::Timeout { .. }), "{late}");
    }
}

#[tokio::test]
async fn it_never_comes_inside_another_message() {
    let (_dir, path) = place();
    let (go_on, server) = slow(&path);
    let vpp = Client::connect(&path, options()).await.unwrap();
    fill(&vpp).await;
    drop(vpp);
    go_on.send(()).unwrap();
    let (ids, cut) = read_by(server).await;
    // The socket is full in the midst of the first.
    assert!(ids.is_empty() && cut > 1000, "{ids:?} {cut}");
}

#[tokio::test]
async fn it_comes_behind_all_that_was_sent_where_vpp_reads_again() {
    let (_dir, path) = place();
    let (go_on, server) = slow(&path);
    let vpp = Client::connect(&path, options()).await.unwrap();
    fill(&vpp).await;
    let closing = tokio::spawn(vpp.close());
    go_on.send(()).unwrap();
    let (ids, cut) = read_by(server).await;
    // It does not answer, but hangs up.
    closing.await.unwrap().unwrap();
    assert_eq!((ids, cut), (vec![FIRST, FIRST, FIRST, DELETE], 0));
}
