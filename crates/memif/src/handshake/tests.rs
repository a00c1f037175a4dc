use super::{client, server, *};
use crate::{
    control::{AddRing, Init, Message},
    layout::Layout,
    settings::{Identity, Limits, Rings},
    text::{Name, Secret},
};

struct One(Limits);

impl server::Interfaces for One {
    fn admit(&self, init: &Init) -> Result<(Identity, Limits), Refusal> {
        if init.id == 7 { Ok((Identity::new(7), self.0)) } else { Err(Refusal::UnknownId(init.id)) }
    }
}

/// Runs both machines against each other; what the server ends with, and all that was said.
fn run(rings: Rings, limits: Limits) -> (server::Announced<()>, Vec<&'static str>) {
    let mut client = client::Client::new(Identity::new(7), rings);
    let mut server = server::Server::new();
    let mut said = Vec::new();
    let mut answer = server::hello(Name::cut("server"), limits);
    loop {
        said.push(answer.name());
        let (message, attachment) = match client.receive(answer).unwrap() {
            client::Step::Make(agreed) => client.announce(&Layout::new(agreed, 2048).unwrap()),
            client::Step::Send(message, attachment) => (message, attachment),
            client::Step::Connected(_) => unreachable!("the server has not said so"),
        };
        said.push(message.name());
        let file = (attachment != client::Attachment::None).then_some(());
        match server.receive(message, file, &One(limits)).unwrap() {
            server::Step::Send(message) => answer = message,
            server::Step::Connect(announced) => {
                let connected = Message::Connected { interface: Name::cut("memif7") };
                assert_eq!(client.receive(connected).unwrap(), client::Step::Connected(Name::cut("memif7")));
                return (*announced, said);
            }
        }
    }
}

#[test]
fn each_message_has_its_answer() {
    let (announced, said) = run(Rings::default(), Limits::default());
    let expected = ["HELLO", "INIT", "ACK", "ADD_REGION", "ACK", "ADD_RING", "ACK", "ADD_RING", "ACK", "CONNECT"];
    assert_eq!(said, expected);
    assert_eq!(announced.interface, Name::cut("memif7"));
    assert_eq!((announced.regions[0].0, announced.to_client[0].place.offset), (4_227_328, 16512));
}

#[test]
fn the_smaller_wish_is_taken() {
    let limits = Limits::default().rings(2).unwrap().slots(256).unwrap();
    let (announced, _) = run(Rings::default().queues(4, 1).unwrap().slots(1024).unwrap(), limits);
    assert_eq!((announced.to_server.len(), announced.to_client.len()), (2, 1));
    assert!(announced.to_server.iter().all(|ring| ring.place.log2_ring_size == 8));
}

fn hello(change: impl FnOnce(&mut crate::control::Hello)) -> Message {
    let Message::Hello(mut hello) = server::hello(Name::cut("x"), Limits::default()) else { unreachable!() };
    change(&mut hello);
    Message::Hello(hello)
}

#[test]
fn servers_announce_more_than_fits_a_byte() {
    let mut client = client::Client::new(Identity::new(7), Rings::default().queues(256, 256).unwrap());
    let vpp = hello(|hello| (hello.max_m2s_ring, hello.max_s2m_ring) = (256, u16::MAX));
    let agreed = Agreed { to_server: 256, to_client: 256, log2_ring_size: 10 };
    assert_eq!(client.receive(vpp).unwrap(), client::Step::Make(agreed));
}

#[test]
fn a_client_goes_on_with_its_version_alone() {
    for (min, max, good) in [(0x0100, 0x0300, true), (0x0201, 0x0300, false), (0x0100, 0x01ff, false)] {
        let mut client = client::Client::new(Identity::new(7), Rings::default());
        let step = client.receive(hello(|hello| (hello.min_version, hello.max_version) = (min, max)));
        if good {
            assert!(step.is_ok());
        } else {
            assert_eq!(step, Err(client::Failed::Refusal(Refusal::Versions { min, max })));
        }
    }
}

#[test]
fn a_client_refuses_what_is_out_of_order() {
    let mut client = client::Client::new(Identity::new(7), Rings::default());
    let order = |got, expected| Err(client::Failed::Refusal(Refusal::Order { got, expected }));
    assert_eq!(client.receive(Message::Ack), order("ACK", "HELLO"));
    client.receive(hello(|_| ())).unwrap();
    assert_eq!(client.receive(hello(|_| ())), order("HELLO", "HELLO"));
    let reason = Text::cut("ID not found");
    let refused = client.receive(Message::Disconnect { code: 0, reason });
    assert_eq!(refused, Err(client::Failed::Refused { code: 0, reason }));
}

fn init() -> Init {
    Init { version: VERSION, id: 7, mode: Mode::Ethernet, secret: Secret::NONE, name: Name::cut("c") }
}

fn ring(direction: Direction, index: u16) -> AddRing {
    AddRing { direction, index, region: 0, offset: 0, log2_ring_size: 4 }
}

/// What a server says to the last of these messages, all others being in order.
fn refusal(messages: Vec<(Message, bool)>, limits: Limits) -> String {
    let mut server = server::Server::new();
    let last = messages.len() - 1;
    for (place, (message, file)) in messages.into_iter().enumerate() {
        match server.receive(message, file.then_some(()), &One(limits)) {
            Ok(_) => assert!(place < last, "the last one was taken"),
            Err(server::Failed::Refusal(refusal)) if place == last => {
                // Who was admitted is known also afterwards.
                assert_eq!(server.id(), (place > 0).then_some(7));
                return refusal.to_string();
            }
            Err(other) => panic!("message {place}: {other:?}"),
        }
    }
    unreachable!("no message")
}

#[test]
fn a_server_refuses_each_thing_by_name() {
    let start = || vec![(Message::Init(init()), false)];
    let region = |index, size| (Message::AddRegion { index, size }, true);
    let add = |direction, index| (Message::AddRing(ring(direction, index)), true);
    let limits = Limits::default().regions(2).unwrap().rings(1).unwrap().slots(1024).unwrap().memory(8192).unwrap();
    let refused = |more: Vec<(Message, bool)>| refusal(start().into_iter().chain(more).collect(), limits);
    let (s2m, m2s) = (Direction::ToServer, Direction::ToClient);

    assert_eq!(refusal(vec![region(0, 1)], limits), "ADD_REGION is out of order: expected INIT");
    let version = Message::Init(Init { version: 0x0100, ..init() });
    assert_eq!(refusal(vec![(version, false)], limits), "memif version 0x0100: expected 0x0200");
    let id = Message::Init(Init { id: 8, ..init() });
    assert_eq!(refusal(vec![(id, false)], limits), "unknown interface id 8");
    assert_eq!(refused(start()), "INIT is out of order: expected ADD_REGION, ADD_RING or CONNECT");
    assert_eq!(refused(vec![(region(0, 1).0, false)]), "ADD_REGION with no file: expected a file");
    assert_eq!(refused(vec![(Message::Ack, true)]), "ACK with a file: expected no file");
    assert_eq!(refused(vec![region(1, 1)]), "region 1: expected 0 as the next");
    assert_eq!(refused(vec![region(0, 0)]), "region 0: its size is 0");
    assert_eq!(refused(vec![region(0, 1), region(1, 1), region(2, 1)]), "region 2: expected at most 2");
    let too_much = "region 1: 8192 bytes, and 1 before it: expected at most 8192";
    assert_eq!(refused(vec![region(0, 1), region(1, 8192)]), too_much);
    let wrapping = format!("region 1: {} bytes, and 1 before it: expected at most 8192", u64::MAX);
    assert_eq!(refused(vec![region(0, 1), region(1, u64::MAX)]), wrapping);
    assert_eq!(refused(vec![add(s2m, 0)]), "S2M ring 0 at 0 of region 0: expected a region that was announced");
    let outside = "S2M ring 0 at 0 of region 0: expected all of it to lie in the region";
    assert_eq!(refused(vec![region(0, 383), add(s2m, 0)]), outside);
    let far = Message::AddRing(AddRing { offset: u32::MAX, ..ring(m2s, 0) });
    assert!(refused(vec![region(0, 4096), (far, true)]).ends_with("expected all of it to lie in the region"));
    assert_eq!(refused(vec![region(0, 384), add(m2s, 1)]), "M2S ring 1: expected 0 as the next");
    assert_eq!(refused(vec![region(0, 384), add(s2m, 0), add(s2m, 1)]), "S2M ring 1: expected at most 1");
    let large = Message::AddRing(AddRing { log2_ring_size: 11, ..ring(s2m, 0) });
    let too_large = "S2M ring 0 of 2^11 slots: expected at most 2^10";
    assert_eq!(refused(vec![region(0, 384), (large, true)]), too_large);
    let late = "ADD_REGION is out of order: expected ADD_RING or CONNECT";
    assert_eq!(refused(vec![region(0, 384), add(s2m, 0), region(1, 1)]), late);
    let connect = || (Message::Connect { interface: Name::cut("c") }, false);
    assert_eq!(refused(vec![connect()]), "no S2M ring: expected one or more");
    assert_eq!(refused(vec![region(0, 384), add(s2m, 0), connect()]), "no M2S ring: expected one or more");
}

#[test]
fn what_a_peer_is_told_fits_and_is_the_same() {
    let refusal = Refusal::Mode { got: Mode::Ip, expected: Mode::Ethernet };
    assert_eq!(refusal.text().to_string(), refusal.to_string());
    assert!(Refusal::Malformed("x".repeat(500)).text().bytes().len() == 95);
}
