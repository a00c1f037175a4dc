//! One connection to VPP.
//!
//! # Guarantees
//!
//! - A call that returns `Ok` was answered by VPP with 0. Silence, a refusal, an answer of another kind, the connection's end: each
//!   is an error of its own.
//! - Every call ends: within its deadline, or with the connection. What comes later is dropped.
//! - Calls run side by side, as many as there are callers; nobody waits for another's answer. VPP answers in order.
//! - What VPP sends takes bounded memory ([`Limits`]), whatever it is: while it waits, and in what a call returns.
//! - A message goes out only if VPP has the same definition of it.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::definition::Head;
use crate::error::{Error, Loss};
use crate::frame::{self, Incoming};
use crate::message::{Cursor, CursorReply, Dump, Event, Message, Reply, Request, Subscription};
use crate::messages::{ControlPing, ControlPingReply};
use crate::retval::Retval;
use crate::table;
use crate::wire::{EncodeProblem, Input, Wire};
use calls::{Expected, Part};
use gathered::Gathered;
use shared::{Outgoing, Shared};

mod calls;
mod events;
mod gathered;
pub(crate) mod io;
mod json;
mod options;
mod shared;

pub use events::{EventError, Events};
pub use json::{Answer, JsonEvents};
pub use options::{Limits, Options};

/// A connection to VPP. Clones share it; it ends with the last of them and of their [`Events`], or with [`Client::close`]. VPP is told, also where
/// it is just dropped.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Arc<Connection>,
    timeout: Duration,
}

#[derive(Debug)]
struct Connection {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.part_at_once();
        self.shared.end(&Loss::Here);
    }
}

impl Client {
    /// Connects and shakes hands. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// Nobody listens there, who does is no VPP, or it does not answer in time; or [`Options::name`] is too long.
    pub async fn connect(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let path = path.as_ref();
        let handshake = |problem: String| Error::Handshake { path: path.into(), problem };
        let limit = options.timeout;
        let silent = || {
            handshake(format!("no answer to the handshake within {limit:?}: is VPP busy, or is it the CLI's socket?"))
        };
        timeout(limit, Self::open(path, &options)).await.map_err(|_| silent())?
    }

    async fn open(path: &Path, options: &Options) -> Result<Self, Error> {
        let handshake = |problem: String| Error::Handshake { path: path.into(), problem };
        let context = 1;
        let request = table::request(context, &options.name);
        let request = request.map_err(|reason| Error::NotSent { message: table::CREATE.into(), reason })?;
        let mut hello = bytes::BytesMut::new();
        frame::put(&request, &mut hello);
        let stream = UnixStream::connect(path).await.map_err(|source| connect_error(path, source))?;
        let failed = |error: std::io::Error| handshake(format!("the handshake broke off: {error}"));
        io::write_all(&stream, &hello).await.map_err(failed)?;
        let mut incoming = Incoming::new(options.limits.message);
        let answer = loop {
            match incoming.next() {
                Ok(Some(message)) => break message,
                Ok(None) => {}
                Err(long) => {
                    return Err(handshake(format!("its answer would have {} bytes: {OTHER_SOCKET}", long.length)));
                }
            }
            if io::read(&stream, incoming.room()).await.map_err(failed)? == 0 {
                return Err(handshake(format!("it closed the connection instead of an answer: {OTHER_SOCKET}")));
            }
        };
        let table = table::answer(&answer, context).map_err(handshake)?;
        let shared = Arc::new(Shared::new(stream, table, options.limits));
        let task = tokio::spawn(io::run(Arc::clone(&shared), incoming));
        Ok(Self { connection: Arc::new(Connection { shared, task }), timeout: options.timeout })
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.connection.shared
    }

    /// The same connection, with another deadline for its calls.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Self {
        Self { connection: Arc::clone(&self.connection), timeout }
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// [`Error::Refused`] if VPP says anything but 0; the rest of [`Error`] if it could not say so.
    pub async fn call<R: Request>(&self, request: &R) -> Result<R::Reply, Error> {
        let reply = self.answer(request).await?;
        accepted(R::NAME, reply.retval())?;
        Ok(reply)
    }

    /// As [`Client::call`], with the reply also where VPP refuses: some have a meaning then.
    ///
    /// # Errors
    /// There is no reply.
    pub async fn answer<R: Request>(&self, request: &R) -> Result<R::Reply, Error> {
        let expected = Expected::reply(self.shared(), R::NAME, answer_of::<R::Reply>(self.shared())?);
        let (deadline, request) = (in_time(self.timeout), self.outgoing(request)?);
        let waiting = self.shared().call(request, expected)?;
        decode(&self.until(deadline, R::NAME, waiting.answer()).await?)
    }

    /// All that there is of something.
    ///
    /// # Errors
    /// VPP did not say that this was all, or it was more than [`Limits::gathered`].
    pub async fn dump<R: Dump>(&self, request: &R) -> Result<Vec<R::Details>, Error> {
        let deadline = in_time(self.timeout);
        let waiting = self.details(request)?.waiting;
        let mut all = self.gathered(R::NAME);
        self.gather(deadline, waiting, &mut all).await?;
        Ok(all.all())
    }

    /// As [`Client::dump`], one by one. Each is waited for as long as a call.
    ///
    /// # Errors
    /// The request could not be sent.
    pub fn details<R: Dump>(&self, request: &R) -> Result<Details<R::Details>, Error> {
        let shared = self.shared();
        let end = Expected::reply(shared, R::NAME, answer_of::<ControlPingReply>(shared)?);
        let expected = end.with_details(answer_of::<R::Details>(shared)?);
        let waiting = shared.stream(vec![self.outgoing(request)?, self.outgoing(&ControlPing)?], expected)?;
        Ok(Details { waiting, name: R::NAME, timeout: self.timeout, client: self.clone(), of: PhantomData })
    }

    /// All that there is of something that VPP tells in parts: asks on until it has told all.
    ///
    /// # Errors
    /// VPP refuses, or did not say that this was all, or it was more than [`Limits::gathered`].
    pub async fn collect<R: Cursor + Clone>(&self, request: &R) -> Result<Vec<R::Details>, Error> {
        let deadline = in_time(self.timeout);
        let (mut request, mut all) = (request.clone(), self.gathered(R::NAME));
        loop {
            let reply = self.next_part(deadline, &request, &mut all).await?;
            match reply.retval() {
                Retval::Eagain => request.set_cursor(reply.cursor()),
                other => return accepted(R::NAME, other).map(|()| all.all()),
            }
        }
    }

    /// One part of it, and the reply, whose cursor says where the next part begins.
    ///
    /// # Errors
    /// There is no reply, or the part is more than [`Limits::gathered`].
    pub async fn part<R: Cursor>(&self, request: &R) -> Result<(Vec<R::Details>, R::Reply), Error> {
        let mut all = self.gathered(R::NAME);
        let reply = self.next_part(in_time(self.timeout), request, &mut all).await?;
        Ok((all.all(), reply))
    }

    async fn next_part<R: Cursor>(
        &self,
        deadline: Instant,
        request: &R,
        all: &mut Gathered<'_, R::Details>,
    ) -> Result<R::Reply, Error> {
        let shared = self.shared();
        let end = Expected::reply(shared, R::NAME, answer_of::<R::Reply>(shared)?);
        let expected = end.with_details(answer_of::<R::Details>(shared)?);
        let waiting = shared.stream(vec![self.outgoing(request)?], expected)?;
        decode(&self.gather(deadline, waiting, all).await?)
    }

    fn gathered<'a, T>(&self, message: &'a str) -> Gathered<'a, T> {
        Gathered::new(message, self.shared().limits.gathered)
    }

    /// Takes details until the last answer, which it returns.
    async fn gather<D: Message>(
        &self,
        deadline: Instant,
        mut waiting: calls::Stream,
        all: &mut Gathered<'_, D>,
    ) -> Result<Bytes, Error> {
        loop {
            match self.until(deadline, all.message(), waiting.part()).await? {
                Part::Details(bytes) => all.add(decode(&bytes)?, bytes.len())?,
                Part::End(bytes) => return Ok(bytes),
            }
        }
    }

    /// Has VPP send events, and hears them. A request with `enable_disable` says 1 there, which is not its default.
    ///
    /// # Errors
    /// VPP refuses, as this connection has asked for them already; or the request asks for no more of them ([`Client::call`] sends that).
    pub async fn subscribe<R: Subscription>(&self, request: &R) -> Result<Events<R::Event>, Error> {
        if !request.enables() {
            return Err(Error::NotSent { message: R::NAME.into(), reason: EncodeProblem::Disables.into() });
        }
        let events = self.events()?;
        self.call(request).await?;
        self.shared().note_subscription(R::NAME);
        Ok(events)
    }

    /// Hears events that another part of the program has asked for on this connection.
    ///
    /// # Errors
    /// VPP does not have that event.
    pub fn events<E: Event>(&self) -> Result<Events<E>, Error> {
        let id = id_of::<E>(self.shared())?;
        Ok(Events::new(self.clone(), self.shared().listen(id)))
    }

    /// Whether VPP answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<ControlPingReply, Error> {
        self.call(&ControlPing).await
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) -> Loss {
        self.shared().ended().await
    }

    /// Ends the connection, for all clones and [`Events`] of it, once VPP has read what was sent before. It waits for that as long as for a call.
    ///
    /// # Errors
    /// VPP does not say that it has: the connection is over all the same.
    pub async fn close(self) -> Result<(), Error> {
        let parted = match self.shared().part() {
            Some(Ok(waiting)) => self.until(in_time(self.timeout), table::DELETE.0, waiting.answer()).await.map(drop),
            Some(Err(error)) => Err(error),
            None => Ok(()),
        };
        self.shared().end(&Loss::Here);
        match parted {
            // It was over before.
            Err(Error::Lost { .. }) => Ok(()),
            other => other,
        }
    }

    /// Every message that VPP has, with its CRC.
    pub fn served(&self) -> Vec<(String, u32)> {
        let mut all: Vec<_> = self.shared().table.all().map(|(name, crc)| (name.to_owned(), crc)).collect();
        all.sort();
        all
    }

    /// What of the messages with a type here cannot be used with this VPP, and why.
    pub fn unusable(&self) -> Vec<Error> {
        let all = crate::messages::ALL.iter();
        all.filter_map(|(name, crc)| self.shared().id(name, *crc).err()).collect()
    }

    /// Messages that came and that nobody waited for: late answers, and events without a reader.
    pub fn strays(&self) -> u64 {
        self.shared().strays()
    }

    pub(crate) fn subscriptions(&self) -> Vec<String> {
        self.shared().subscriptions()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.shared().in_flight()
    }

    pub(crate) fn peer(&self) -> Option<i32> {
        self.shared().stream.peer_cred().ok()?.pid().filter(|pid| *pid > 0)
    }

    /// Ends it without waiting for VPP; who waits is told why.
    pub(crate) fn end(&self, loss: &Loss) {
        self.shared().part_at_once();
        self.shared().end(loss);
    }

    async fn until<T>(
        &self,
        deadline: Instant,
        message: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let late = |_| Error::Timeout { message: message.into(), after: self.timeout };
        timeout_at(deadline, work).await.map_err(late)?
    }

    fn outgoing<M: Message>(&self, message: &M) -> Result<Outgoing, Error> {
        let mut outgoing = Outgoing::new(M::NAME, id_of::<M>(self.shared())?, M::HEAD);
        message.encode(&mut outgoing.bytes).map_err(|reason| Error::NotSent { message: M::NAME.into(), reason })?;
        Ok(outgoing)
    }
}

/// What a dump finds, as it comes.
#[derive(Debug)]
pub struct Details<D> {
    waiting: calls::Stream,
    name: &'static str,
    timeout: Duration,
    client: Client,
    of: PhantomData<fn() -> D>,
}

impl<D: Message> Details<D> {
    /// The next one; `None` once VPP has said that this was all.
    pub async fn next(&mut self) -> Option<Result<D, Error>> {
        let deadline = in_time(self.timeout);
        match self.client.until(deadline, self.name, self.waiting.part()).await {
            Ok(Part::Details(bytes)) => Some(decode(&bytes)),
            Ok(Part::End(_)) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// VPP has three sockets beside each other, and two of them are not for this.
const OTHER_SOCKET: &str = "no VPP API: is it the statistics socket or the CLI's?";

fn connect_error(path: &Path, source: std::io::Error) -> Error {
    let advice = match source.kind() {
        _ if Errno::from_io_error(&source) == Some(Errno::PROTOTYPE) => OTHER_SOCKET,
        std::io::ErrorKind::NotFound => "no such socket: is VPP started, with `socksvr` in its configuration?",
        std::io::ErrorKind::ConnectionRefused => "nobody listens: VPP has ended and left the file",
        std::io::ErrorKind::PermissionDenied => "not allowed: the socket belongs to VPP's user and group",
        _ => "cannot connect to VPP's API socket",
    };
    Error::Connect { path: path.into(), advice, source: Arc::new(source) }
}

/// The id under which VPP has a message of ours.
fn id_of<M: Message>(shared: &Shared) -> Result<u16, Error> {
    shared.id(M::NAME, M::CRC)
}

/// The same, and where an answer has its context.
fn answer_of<M: Message>(shared: &Shared) -> Result<(u16, Head), Error> {
    Ok((id_of::<M>(shared)?, M::HEAD))
}

fn accepted(message: &str, retval: Retval) -> Result<(), Error> {
    if retval.is_ok() { Ok(()) } else { Err(Error::Refused { message: message.into(), retval }) }
}

fn decode<M: Message>(bytes: &Bytes) -> Result<M, Error> {
    let unreadable = |reason| Error::Unreadable { message: M::NAME.into(), reason };
    let mut input = Input::new(bytes);
    input.bytes(M::HEAD.bytes()).map_err(|error| unreadable(error.inside("head")))?;
    M::decode(&mut input).map_err(unreadable)
}

/// That long from now. A duration that no clock has room for is a year: who says so means for ever.
fn in_time(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_hours(24 * 365))
}

/// A message's id.
fn id_at_start(bytes: &[u8]) -> Option<u16> {
    u16::take(&mut Input::new(bytes)).ok()
}
