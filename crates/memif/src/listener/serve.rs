//! The listener's thread: all handshakes that are under way.

use std::{
    os::fd::OwnedFd,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rustix::net::{SocketFlags, accept_with};

use super::{HANDSHAKE, MOST_AT_ONCE, MOST_OF_ONE, MOST_OF_USER, Refused, Shared, Visit};
use crate::{
    channel::{self, left, readable, wait},
    connection::Connection,
    control::Message,
    handshake::{
        Refusal,
        server::{Announced, Failed, Server as Handshake, Step, hello},
    },
    peer::Credentials,
    settings::Limits,
    sys,
    text::Name,
};

/// How long no connection is accepted after the kernel could not give one: descriptors may be scarce.
const PAUSE: Duration = Duration::from_millis(100);
/// How long clients in the middle of a handshake are listened to when the listener closes. They answer in microseconds.
const FAREWELL: Duration = Duration::from_millis(200);

/// A client that has not told all.
struct Visitor {
    control: OwnedFd,
    handshake: Handshake<OwnedFd>,
    credentials: Option<Credentials>,
    deadline: Instant,
}

/// What became of a visitor.
enum Turn {
    Stays,
    Leaves,
}

pub(super) fn serve(socket: &OwnedFd, shared: &Shared) {
    let mut visitors: Vec<Visitor> = Vec::new();
    let mut paused_until = Instant::now();
    while !shared.stop.load(Ordering::Acquire) {
        let opened = shared.opened.load(Ordering::Acquire);
        let accepting = opened && visitors.len() < MOST_AT_ONCE && left(paused_until).is_zero();
        let mut files = vec![readable(&shared.wake)];
        files.extend(visitors.iter().map(|visitor| readable(&visitor.control)));
        if accepting {
            files.push(readable(socket));
        }
        let next = visitors.iter().map(|visitor| left(visitor.deadline)).min();
        let pause = (!left(paused_until).is_zero()).then(|| left(paused_until));
        let timeout = next.into_iter().chain(pause).min().unwrap_or(Duration::from_hours(1));
        // A failure here would be for want of memory: try again, slowly.
        if wait(&mut files, timeout).is_err() {
            paused_until = Instant::now() + PAUSE;
        }
        let _ = rustix::io::read(&shared.wake, &mut [0; 8]);
        visitors.retain_mut(|visitor| matches!(visitor.turn(shared), Turn::Stays));
        if accepting {
            paused_until = welcome(socket, shared, &mut visitors);
        }
    }
    farewell(shared, visitors, FAREWELL);
}

/// Lets each client say what it is about to say, and refuses that: VPP (26.06) does not survive when a connection ends to which it has
/// something to say.
fn farewell(shared: &Shared, mut visitors: Vec<Visitor>, longest: Duration) {
    let end = Instant::now() + longest;
    while !visitors.is_empty() && !left(end).is_zero() {
        let mut files: Vec<_> = visitors.iter().map(|visitor| readable(&visitor.control)).collect();
        if wait(&mut files, left(end)).is_err() {
            return;
        }
        visitors.retain(|visitor| match channel::receive(&visitor.control) {
            Ok(None) => true,
            Ok(Some(_)) => {
                visitor.refuse(shared, Refusal::Closing);
                false
            }
            Err(_) => false,
        });
    }
}

/// Accepts who is waiting, but not all who come meanwhile: those who are here already have their turns, too. Until when nobody is accepted then.
fn welcome(socket: &OwnedFd, shared: &Shared, visitors: &mut Vec<Visitor>) -> Instant {
    let now = Instant::now();
    for _ in visitors.len()..MOST_AT_ONCE {
        let control = match accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(control) => control,
            Err(rustix::io::Errno::AGAIN) => return now,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
            Err(_) => return now + PAUSE,
        };
        let credentials = sys::credentials(&control).ok();
        let visitor = Visitor { control, handshake: Handshake::new(), credentials, deadline: now + HANDSHAKE };
        if is_crowded(visitors.iter().map(|inside| inside.credentials), visitor.credentials) {
            visitor.refuse(shared, Refusal::Crowded);
        } else if channel::send(&visitor.control, &greeting(shared), None).is_ok() {
            visitors.push(visitor);
        }
    }
    now
}

/// Whether those inside leave no place to another of the same process, or of the same user. Who is not known shares with the others of whom
/// nothing is known.
fn is_crowded(inside: impl Iterator<Item = Option<Credentials>> + Clone, who: Option<Credentials>) -> bool {
    let user = |of: &Option<Credentials>| of.map(|of| of.user);
    let process = who.and_then(|who| who.process);
    let of_user = inside.clone().filter(|other| user(other) == user(&who)).count();
    let of_process = inside.filter(|other| other.and_then(|other| other.process) == process).count();
    of_user >= MOST_OF_USER || (process.is_some() && of_process >= MOST_OF_ONE)
}

/// HELLO speaks for all interfaces of the socket: the most that any of them allows.
fn greeting(shared: &Shared) -> Message {
    let ports = shared.ports();
    let limits = ports.values().map(|slot| slot.server.limits).reduce(|a, b| Limits {
        regions: a.regions.max(b.regions),
        rings: a.rings.max(b.rings),
        log2_ring_size: a.log2_ring_size.max(b.log2_ring_size),
        ..a
    });
    let program = ports.values().next().map_or(Name::cut("memif-rs"), |slot| slot.server.identity.program);
    hello(program, limits.unwrap_or_default())
}

impl Visitor {
    fn turn(&mut self, shared: &Shared) -> Turn {
        match self.hear(shared) {
            Ok(turn) => turn,
            Err(refusal) => {
                self.refuse(shared, refusal);
                Turn::Leaves
            }
        }
    }

    fn refuse(&self, shared: &Shared, why: Refusal) {
        // Known here before it is known there.
        let goodbye = Message::Disconnect { code: 0, reason: why.text() };
        shared.note(Refused { credentials: self.credentials, id: self.handshake.id(), why });
        let _ = channel::send(&self.control, &goodbye, None);
    }

    fn hear(&mut self, shared: &Shared) -> Result<Turn, Refusal> {
        loop {
            let received = match channel::receive(&self.control) {
                Ok(Some(received)) => received,
                Ok(None) if left(self.deadline).is_zero() => return Err(Refusal::Silent),
                Ok(None) => return Ok(Turn::Stays),
                Err(channel::Error::Closed) => return Ok(Turn::Leaves),
                Err(error) => return Err(Refusal::Malformed(error.to_string())),
            };
            let visit = Visit { shared, credentials: self.credentials };
            match self.handshake.receive(received.message, received.file, &visit) {
                Ok(Step::Send(message)) => match channel::send(&self.control, &message, None) {
                    Ok(()) => {}
                    Err(_) => return Ok(Turn::Leaves),
                },
                Ok(Step::Connect(announced)) => {
                    self.connect(shared, *announced)?;
                    return Ok(Turn::Leaves);
                }
                Err(Failed::Left { .. }) => return Ok(Turn::Leaves),
                Err(Failed::Refusal(refusal)) => return Err(refusal),
            }
        }
    }

    fn connect(&self, shared: &Shared, announced: Announced<OwnedFd>) -> Result<(), Refusal> {
        let (id, interface) = (announced.identity.id, announced.identity.interface());
        let control = || self.control.try_clone().map_err(|error| Refusal::Malformed(error.to_string()));
        let connection = Connection::of_server(control, announced, self.credentials)?;
        let mut ports = shared.ports();
        // Another client may have been faster.
        let slot = match ports.get_mut(&id).ok_or(Refusal::UnknownId(id)).and_then(|slot| slot.vacant().map(|()| slot))
        {
            Ok(slot) => slot,
            Err(refusal) => {
                connection.link.close(&refusal.to_string());
                return Err(refusal);
            }
        };
        if channel::send(&self.control, &Message::Connected { interface }, None).is_err() {
            return Ok(());
        }
        slot.link = Some(connection.link.clone());
        slot.waiting = Some(connection);
        let _ = rustix::io::write(&*slot.arrived, &1_u64.to_ne_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket_with, socketpair};

    use super::*;
    use crate::listener::event;

    #[test]
    fn places_are_per_process_and_per_user() {
        let who = |process: u32, user| Some(Credentials { process: (process > 0).then_some(process), user, group: 0 });
        let forked: Vec<_> = (0..16).map(|number| who(1 + number / 4, 1000)).collect();
        let crowded = |count: usize, another| is_crowded(forked[..count].iter().copied(), another);
        assert!(!crowded(3, who(1, 1000)) && crowded(4, who(1, 1000)));
        assert!(!crowded(11, who(9, 1000)) && crowded(12, who(9, 1000)) && crowded(12, who(0, 1000)));
        assert!(!crowded(12, who(9, 0)), "another user has a place");
        let unseen = [who(0, 0); MOST_OF_USER];
        for (count, expected) in [(MOST_OF_ONE, false), (MOST_OF_USER, true)] {
            assert_eq!(is_crowded(unseen[..count].iter().copied(), who(0, 0)), expected);
            assert!(!is_crowded(unseen[..count].iter().copied(), None));
        }
    }

    #[test]
    fn nobody_is_hung_up_on_before_the_next_word() {
        let shared = Shared::new(event().unwrap());
        let visitor = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (control, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
            let deadline = Instant::now() + HANDSHAKE;
            (Visitor { control, handshake: Handshake::new(), credentials: None, deadline }, far)
        };
        let ((speaks, far), (silent, deaf)) = (visitor(), visitor());
        let speaking = std::thread::spawn(move || {
            let one = &mut [readable(&far)];
            assert!(wait(one, Duration::from_millis(20)).is_ok() && channel::receive(&far).unwrap().is_none());
            channel::send(&far, &Message::Ack, None).unwrap();
            wait(&mut [readable(&far)], HANDSHAKE).unwrap();
            channel::receive(&far).unwrap().unwrap().message
        });
        let began = Instant::now();
        let longest = Duration::from_secs(1);
        farewell(&shared, vec![speaks, silent], longest);
        assert!(began.elapsed() >= longest, "the other one might have said something");
        let reason = Refusal::Closing.text();
        assert_eq!(speaking.join().unwrap(), Message::Disconnect { code: 0, reason });
        assert!(matches!(channel::receive(&deaf), Err(channel::Error::Closed)));
        assert_eq!(shared.refused().iter().map(|of| of.why.clone()).collect::<Vec<_>>(), [Refusal::Closing]);
    }

    #[test]
    fn a_crowd_at_the_door_leaves_turns_to_those_inside() {
        let dir = tempfile::tempdir().unwrap();
        let address = SocketAddrUnix::new(dir.path().join("memif.sock")).unwrap();
        let socket = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
        };
        let door = socket();
        bind(&door, &address).unwrap();
        listen(&door, 64).unwrap();
        let crowd: Vec<OwnedFd> = std::iter::repeat_with(socket).take(3 * MOST_AT_ONCE).collect();
        for visitor in &crowd {
            connect(visitor, &address).unwrap();
        }
        let shared = Shared::new(event().unwrap());
        let mut visitors = Vec::new();
        // Of one process, most are refused and take no place.
        for turn in 1..=2 {
            welcome(&door, &shared, &mut visitors);
            assert_eq!(visitors.len(), MOST_OF_ONE);
            let answered = crowd.iter().filter(|visitor| channel::receive(visitor).is_ok_and(|said| said.is_some()));
            assert_eq!(answered.count(), if turn == 1 { MOST_AT_ONCE } else { MOST_AT_ONCE - MOST_OF_ONE });
        }
    }
}
