//! Peers that say and write what the tests tell them: no rules, and no code of the crate but its messages.

use std::{
    fs::File,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    time::Duration,
};

use memif::{
    Address, Mode, Name, Secret, Text,
    control::{AddRing, Direction, Init, Message, VERSION},
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::{MemfdFlags, ftruncate, memfd_create},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
    },
};

pub(crate) const SLOTS: u16 = 8;
pub(crate) const LOG2: u8 = 3;
/// Bytes of a ring of that size.
pub(crate) const RING: u64 = 128 + 16 * 8;
pub(crate) const SIZE: u64 = 65536;
const COOKIE: u32 = 0x03e3_1f20;

/// Where a field lies in a ring.
pub(crate) const HEAD: u64 = 6;
pub(crate) const TAIL: u64 = 64;

/// A client of the wire alone.
pub(crate) struct RawClient {
    pub(crate) socket: OwnedFd,
    pub(crate) memory: File,
    pub(crate) events: [OwnedFd; 2],
}

pub(crate) fn unsealed() -> File {
    memory(MemfdFlags::CLOEXEC)
}

pub(crate) fn memory(flags: MemfdFlags) -> File {
    let file = memfd_create("raw", flags).unwrap();
    ftruncate(&file, SIZE).unwrap();
    file.into()
}

pub(crate) fn init(id: u32) -> Init {
    Init {
        version: VERSION,
        id,
        mode: Mode::Ethernet,
        // Nothing is asked for.
        secret: Secret::new("x").unwrap(),
        name: Name::cut("raw"),
    }
}

pub(crate) fn add_ring(direction: Direction, offset: u64) -> Message {
    let offset = u32::try_from(offset).unwrap();
    Message::AddRing(AddRing { direction, index: 0, region: 0, offset, log2_ring_size: LOG2 })
}

impl RawClient {
    pub(crate) fn dial(address: &Address) -> Self {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let path = address.as_path().expect("a file");
        connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        let memory = memory(MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let client = Self { socket, memory, events: [event(), event()] };
        for ring in [0, RING] {
            client.put(ring, &COOKIE.to_ne_bytes());
        }
        client
    }

    /// All of the handshake but CONNECT, and none of the answers but HELLO's looked at.
    pub(crate) fn announce(&self, id: u32, more: Option<&File>) -> Message {
        assert!(matches!(self.hear(), Message::Hello(_)));
        let mut answer = self.ask(&Message::Init(init(id)), None);
        answer = self.then(answer, &Message::AddRegion { index: 0, size: SIZE }, Some(self.memory.as_fd()));
        if let Some(more) = more {
            answer = self.then(answer, &Message::AddRegion { index: 1, size: SIZE }, Some(more.as_fd()));
        }
        answer = self.then(answer, &add_ring(Direction::ToServer, 0), Some(self.events[0].as_fd()));
        self.then(answer, &add_ring(Direction::ToClient, RING), Some(self.events[1].as_fd()))
    }

    pub(crate) fn connect(&self) -> Message {
        self.ask(&Message::Connect { interface: Name::cut("raw0") }, None)
    }

    /// Up, with the second region if there is one.
    pub(crate) fn up(&self, id: u32, more: Option<&File>) {
        assert_eq!(self.announce(id, more), Message::Ack);
        assert!(matches!(self.connect(), Message::Connected { .. }));
    }

    fn then(&self, before: Message, message: &Message, file: Option<BorrowedFd<'_>>) -> Message {
        if before == Message::Ack { self.ask(message, file) } else { before }
    }

    pub(crate) fn ask(&self, message: &Message, file: Option<BorrowedFd<'_>>) -> Message {
        say(&self.socket, &message.encode(), file.as_slice());
        self.hear()
    }

    pub(crate) fn hear(&self) -> Message {
        hear(&self.socket).expect("a message")
    }

    pub(crate) fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, at).unwrap();
    }

    pub(crate) fn index(&self, at: u64) -> u16 {
        let mut bytes = [0; 2];
        self.memory.read_exact_at(&mut bytes, at).unwrap();
        u16::from_ne_bytes(bytes)
    }

    pub(crate) fn set_index(&self, at: u64, value: u16) {
        self.put(at, &value.to_ne_bytes());
    }

    /// Flags, region, length, offset.
    pub(crate) fn descriptor(&self, ring: u64, slot: u16, (flags, region, length, offset): (u16, u16, u32, u32)) {
        let at = ring + 128 + 16 * u64::from(slot % SLOTS);
        self.put(at, &flags.to_ne_bytes());
        self.put(at + 2, &region.to_ne_bytes());
        self.put(at + 4, &length.to_ne_bytes());
        self.put(at + 8, &offset.to_ne_bytes());
    }

    pub(crate) fn length(&self, ring: u64, slot: u16) -> (u16, u32) {
        let at = ring + 128 + 16 * u64::from(slot % SLOTS);
        let mut length = [0; 4];
        self.memory.read_exact_at(&mut length, at + 4).unwrap();
        (self.index(at), u32::from_ne_bytes(length))
    }
}

pub(crate) fn say(socket: &OwnedFd, bytes: &[u8], files: &[BorrowedFd<'_>]) {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(files)));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
}

/// The next message, or none at the end.
pub(crate) fn hear(socket: &OwnedFd) -> Option<Message> {
    let bound = Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&bound)).unwrap(), 1, "nothing comes");
    let mut bytes = [0; 200];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty());
    match received {
        Ok(received) if received.bytes > 0 => Some(Message::parse(&bytes[..received.bytes]).unwrap()),
        Ok(_) | Err(rustix::io::Errno::CONNRESET) => None,
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn reason(message: &Message) -> String {
    let Message::Disconnect { code: 0, reason } = message else { panic!("{message:?} is no DISCONNECT") };
    let reason: &Text<96> = reason;
    reason.to_string()
}

pub(crate) const SOON: Duration = Duration::from_secs(20);
