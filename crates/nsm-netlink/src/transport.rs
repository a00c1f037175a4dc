//! One netlink socket and the conversation over it.
//!
//! # Guarantees
//!
//! - Every message sent is answered, or the call fails: with the kernel's refusal, a timeout, an overrun or an unreadable answer.
//! - Answers are matched by sequence number; late ones of a conversation that timed out are skipped, messages from other
//!   processes ignored.
//! - A dump that changed while it was read is read again, a bounded number of times.
//!
//! The deadline bounds the wait for answers. The kernel does its work inside `send`, which nothing can cut short.

use std::io;
use std::time::{Duration, Instant};

use netlink_packet_core::{Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_ALIGNTO};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Subject;
use crate::frame::{Content, Frames, HEADER_BYTES, Refused};
use crate::{Error, Refusal, sys};

/// How long answers are waited for: far longer than the kernel needs, short enough to end.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Datagrams of the kernel's dumps are at most 32 KiB; single messages with many attributes fit too.
const BUFFER_BYTES: usize = 64 * 1024;

/// Messages per datagram: their acknowledgements fit a receive buffer of the default size several times.
const BATCH: usize = 64;

/// How often a dump that changed meanwhile is read.
const DUMP_ATTEMPTS: u32 = 8;

/// A message to the kernel, and what it is for.
#[derive(Debug)]
pub(crate) struct Request {
    kind: u16,
    body: Vec<u8>,
    /// Beyond `NLM_F_REQUEST`.
    pub(crate) flags: u16,
    /// "add route 10.0.0.0/8": completes "cannot …".
    pub(crate) operation: String,
    pub(crate) subject: Subject,
}

impl Request {
    /// A change, acknowledged by the kernel.
    #[expect(clippy::needless_pass_by_value, reason = "it is made for this request")]
    pub(crate) fn change(
        message: RouteNetlinkMessage,
        flags: u16,
        subject: Subject,
        operation: impl Into<String>,
    ) -> Self {
        Self::of(message.message_type(), &message, flags | NLM_F_ACK, subject, operation)
    }

    /// A question with one message as its answer.
    #[expect(clippy::needless_pass_by_value, reason = "it is made for this request")]
    pub(crate) fn question(message: RouteNetlinkMessage, subject: Subject, operation: impl Into<String>) -> Self {
        Self::of(message.message_type(), &message, 0, subject, operation)
    }

    /// A message of one kind (`RTM_…`): who sends no others links nothing of them.
    pub(crate) fn of(
        kind: u16,
        message: &impl Emitable,
        flags: u16,
        subject: Subject,
        operation: impl Into<String>,
    ) -> Self {
        let mut body = vec![0; message.buffer_len()];
        message.emit(&mut body);
        Self { kind, body, flags, operation: operation.into(), subject }
    }

    fn refusal(&self, answer: Refused) -> Refusal {
        Refusal { operation: self.operation.clone(), errno: answer.errno, detail: answer.detail, subject: self.subject }
    }
}

/// The body of an answer that is neither acknowledgement nor error.
pub(crate) type Body = Vec<u8>;

/// A netlink socket in one namespace.
pub(crate) struct Transport {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    deadline: Duration,
}

impl Transport {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open() -> Result<Self, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.set_cap_ack(true)?;
            socket.set_ext_ack(true)?;
            socket.set_netlink_get_strict_chk(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|e| Error::io("open a netlink socket", e))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER_BYTES], deadline: DEADLINE })
    }

    /// Sends one change; the kernel's no becomes the error.
    pub(crate) fn change(&mut self, request: Request) -> Result<(), Error> {
        let answers = self.exchange(&[request])?;
        answers.into_iter().find_map(Result::err).map_or(Ok(()), |refusal| Err(Error::Refused(refusal)))
    }

    /// Asks one question. `None`: there is no such thing.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Option<Body>, Error> {
        match self.exchange(&[request])?.pop() {
            Some(Ok(Some(body))) => Ok(Some(body)),
            Some(Ok(None)) | None => Ok(None),
            Some(Err(refusal)) if refusal.is_gone() => Ok(None),
            Some(Err(refusal)) => Err(Error::Refused(refusal)),
        }
    }

    /// Sends all requests and collects one answer for each, in their order: a body, an acknowledgement (`None`) or a refusal.
    pub(crate) fn exchange(&mut self, requests: &[Request]) -> Result<Vec<Result<Option<Body>, Refusal>>, Error> {
        let mut answers = Vec::with_capacity(requests.len());
        for batch in requests.chunks(BATCH) {
            answers.extend(self.exchange_batch(batch)?);
        }
        Ok(answers)
    }

    fn exchange_batch(&mut self, batch: &[Request]) -> Result<Vec<Result<Option<Body>, Refusal>>, Error> {
        let mut answers = Answers::new(batch, self.sequence.wrapping_add(1));
        self.send(batch)?;
        let until = Instant::now() + self.deadline;
        while let Some(next) = answers.next_missing() {
            let len = self.receive(&next.operation, until)?;
            answers.read(&self.buffer[..len])?;
        }
        Ok(answers.into_all())
    }

    /// Reads a whole table.
    pub(crate) fn dump(&mut self, mut request: Request) -> Result<Vec<Body>, Error> {
        request.flags = NLM_F_DUMP;
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(bodies) = self.dump_once(&request)? {
                return Ok(bodies);
            }
        }
        Err(Error::Unstable { operation: request.operation, attempts: DUMP_ATTEMPTS })
    }

    /// `None`: it changed meanwhile, or parts were lost.
    fn dump_once(&mut self, request: &Request) -> Result<Option<Vec<Body>>, Error> {
        self.send(std::slice::from_ref(request))?;
        let mut table = Table::new(request, self.sequence);
        let until = Instant::now() + self.deadline;
        loop {
            let len = match self.receive(&request.operation, until) {
                Err(Error::Overrun { .. }) => return Ok(None),
                other => other?,
            };
            match table.read(&self.buffer[..len])? {
                Progress::More => {}
                Progress::Complete => return Ok(Some(table.bodies)),
                Progress::Useless => return Ok(None),
            }
        }
    }

    fn send(&mut self, batch: &[Request]) -> Result<(), Error> {
        let mut datagram = Vec::new();
        for request in batch {
            self.sequence = self.sequence.wrapping_add(1);
            let len = HEADER_BYTES + request.body.len();
            let whole = u32::try_from(len).map_err(|_| malformed(&request.operation, "the request is too long"))?;
            datagram.extend(whole.to_ne_bytes());
            datagram.extend(request.kind.to_ne_bytes());
            datagram.extend((NLM_F_REQUEST | request.flags).to_ne_bytes());
            datagram.extend(self.sequence.to_ne_bytes());
            // The port: the kernel knows it.
            datagram.extend([0; 4]);
            datagram.extend(&request.body);
            datagram.resize(datagram.len().next_multiple_of(NLMSG_ALIGNTO.into()), 0);
        }
        let kernel = SocketAddr::new(0, 0);
        let operation = batch.first().map_or_else(String::new, |request| request.operation.clone());
        loop {
            return match self.socket.send_to(&datagram, &kernel, 0) {
                Ok(sent) if sent == datagram.len() => Ok(()),
                Ok(_) => Err(malformed(&operation, "the request was cut")),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => Err(Error::io(operation, e)),
            };
        }
    }

    /// The next datagram from the kernel. Others could send without end: the deadline holds for what they send too.
    fn receive(&mut self, operation: &str, until: Instant) -> Result<usize, Error> {
        loop {
            match sys::receive(sys::descriptor(&self.socket), &mut self.buffer) {
                Ok(received) if !received.from_kernel => {
                    if Instant::now() >= until {
                        return Err(Error::Timeout { operation: operation.to_owned(), after: self.deadline });
                    }
                }
                Ok(received) if received.truncated => {
                    return Err(malformed(operation, "the answer does not fit the buffer"));
                }
                Ok(received) => return Ok(received.len),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Rare: the kernel answers within `send`.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !readable(&self.socket, until).map_err(|e| Error::io(operation, e))? {
                        return Err(Error::Timeout { operation: operation.to_owned(), after: self.deadline });
                    }
                }
                Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    return Err(Error::Overrun { operation: operation.to_owned() });
                }
                Err(e) => return Err(Error::io(operation, e)),
            }
        }
    }
}

/// Waits until there is something to read; false when the time is over.
fn readable(socket: &Socket, until: Instant) -> io::Result<bool> {
    loop {
        // Rounded up, so that the last millisecond is not spent spinning.
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(sys::descriptor(socket), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) if Instant::now() >= until => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// One answer for each request of a batch.
pub(crate) struct Answers<'a> {
    batch: &'a [Request],
    /// Sequence number of the first request.
    first: u32,
    received: Vec<Option<Result<Option<Body>, Refusal>>>,
}

impl<'a> Answers<'a> {
    pub(crate) fn new(batch: &'a [Request], first: u32) -> Self {
        Self { batch, first, received: batch.iter().map(|_| None).collect() }
    }

    /// The first request without an answer; the kernel answers in order.
    pub(crate) fn next_missing(&self) -> Option<&'a Request> {
        self.batch.iter().zip(&self.received).find_map(|(request, answer)| answer.is_none().then_some(request))
    }

    pub(crate) fn read(&mut self, datagram: &[u8]) -> Result<(), Error> {
        let operation = self.next_missing().map_or("", |request| &request.operation);
        for frame in Frames::new(datagram) {
            let frame = frame.map_err(|detail| malformed(operation, detail))?;
            let at = frame.sequence.wrapping_sub(self.first) as usize;
            // Others are late answers of an earlier conversation.
            let (Some(request), Some(slot @ None)) = (self.batch.get(at), self.received.get_mut(at)) else { continue };
            *slot = match frame.content().map_err(|detail| malformed(&request.operation, detail))? {
                Content::Ack | Content::Done => Some(Ok(None)),
                Content::Refused(refused) => Some(Err(request.refusal(refused))),
                Content::Body(body) => Some(Ok(Some(body.to_vec()))),
                Content::Nothing => None,
                Content::Overrun => return Err(Error::Overrun { operation: request.operation.clone() }),
            };
        }
        Ok(())
    }

    pub(crate) fn into_all(self) -> Vec<Result<Option<Body>, Refusal>> {
        self.received.into_iter().flatten().collect()
    }
}

/// A table that is being read.
pub(crate) struct Table<'a> {
    request: &'a Request,
    sequence: u32,
    bodies: Vec<Body>,
    interrupted: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    Complete,
    /// It changed meanwhile, or parts were lost.
    Useless,
}

impl<'a> Table<'a> {
    pub(crate) fn new(request: &'a Request, sequence: u32) -> Self {
        Self { request, sequence, bodies: Vec::new(), interrupted: false }
    }

    pub(crate) fn read(&mut self, datagram: &[u8]) -> Result<Progress, Error> {
        let operation = &self.request.operation;
        for frame in Frames::new(datagram) {
            let frame = frame.map_err(|detail| malformed(operation, detail))?;
            if frame.sequence != self.sequence {
                continue;
            }
            self.interrupted |= frame.flags & NLM_F_DUMP_INTR != 0;
            match frame.content().map_err(|detail| malformed(operation, detail))? {
                Content::Body(body) => self.bodies.push(body.to_vec()),
                Content::Done if self.interrupted => return Ok(Progress::Useless),
                Content::Done => return Ok(Progress::Complete),
                Content::Refused(refused) if refused.errno == Errno::EINTR => return Ok(Progress::Useless),
                Content::Refused(refused) => return Err(Error::Refused(self.request.refusal(refused))),
                Content::Ack | Content::Nothing => {}
                Content::Overrun => return Ok(Progress::Useless),
            }
        }
        Ok(Progress::More)
    }
}

fn malformed(operation: &str, detail: impl Into<String>) -> Error {
    Error::Malformed { operation: operation.to_owned(), detail: detail.into() }
}

#[cfg(test)]
mod tests;
