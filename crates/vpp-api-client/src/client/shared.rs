//! What callers and the task of a connection have in common.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::net::SendFlags;
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};

use super::calls::{Calls, Expected, Stream, Waiting};
use super::events::Queue;
use super::{Limits, id_at_start};
use crate::definition::Head;
use crate::error::{Error, Loss, Sent};
use crate::frame::Unsent;
use crate::table::{self, Table};

/// With fewer calls in flight than this a caller writes to the socket itself, which saves a wake-up; with more the task writes what has
/// come together, which saves system calls.
const DIRECT: usize = 4;
/// Contexts stay below this, so that no event's client index looks like one.
const CONTEXTS: u32 = 0x7fff_ffff;

/// A message on its way out, without what is only known when it goes.
pub(super) struct Outgoing {
    name: String,
    head: Head,
    /// The id, room for the rest of the head, and the fields.
    pub(super) bytes: Vec<u8>,
}

impl Outgoing {
    pub(super) fn new(name: &str, id: u16, head: Head) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.resize(head.bytes(), 0);
        Self { name: name.into(), head, bytes }
    }

    fn address(&mut self, client_index: u32, context: u32) {
        if matches!(self.head, Head::Client | Head::ClientContext) {
            self.bytes[2..6].copy_from_slice(&client_index.to_be_bytes());
        }
        if let Some(at) = self.head.context_at() {
            self.bytes[at..at + 4].copy_from_slice(&context.to_be_bytes());
        }
    }
}

#[derive(Default)]
struct Out {
    unsent: Unsent,
    /// The last that VPP is to hear from here is in it.
    parted: bool,
}

pub(super) struct Shared {
    pub(super) stream: UnixStream,
    pub(super) table: Table,
    pub(super) limits: Limits,
    /// There is something to write.
    pub(super) wake: Notify,
    out: Mutex<Out>,
    calls: Mutex<Calls>,
    listeners: Mutex<HashMap<u16, Vec<Arc<Queue>>>>,
    subscriptions: Mutex<Vec<String>>,
    context: AtomicU32,
    strays: AtomicU64,
    end: watch::Sender<Option<Loss>>,
}

impl Shared {
    pub(super) fn new(stream: UnixStream, table: Table, limits: Limits) -> Self {
        Self {
            stream,
            table,
            limits,
            wake: Notify::new(),
            out: Mutex::default(),
            calls: Mutex::default(),
            listeners: Mutex::default(),
            subscriptions: Mutex::default(),
            context: AtomicU32::new(1),
            strays: AtomicU64::new(0),
            end: watch::Sender::new(None),
        }
    }

    pub(super) fn id(&self, name: &str, crc: u32) -> Result<u16, Error> {
        match self.table.entry(name) {
            Some(entry) if entry.crc == crc => Ok(entry.id),
            Some(entry) => Err(Error::OtherVersion { message: name.into(), ours: crc, theirs: entry.crc }),
            None => Err(Error::NotServed { message: name.into(), crc }),
        }
    }

    pub(super) fn call(self: &Arc<Self>, request: Outgoing, expected: Expected) -> Result<Waiting, Error> {
        let context = self.next_context();
        let waiting = lock(&self.calls).call(self, context, expected);
        self.send(vec![request], context)?;
        Ok(waiting)
    }

    pub(super) fn stream(self: &Arc<Self>, requests: Vec<Outgoing>, expected: Expected) -> Result<Stream, Error> {
        let context = self.next_context();
        let waiting = lock(&self.calls).stream(self, context, expected);
        self.send(requests, context)?;
        Ok(waiting)
    }

    fn next_context(&self) -> u32 {
        self.context.fetch_add(1, Ordering::Relaxed) % CONTEXTS + 1
    }

    fn send(&self, requests: Vec<Outgoing>, context: u32) -> Result<(), Error> {
        let name = requests.first().map_or("", |request| request.name.as_str());
        let mut out = self.open(name)?;
        self.put(&mut out, requests, context);
        Ok(())
    }

    /// What waits, to put more to it.
    fn open(&self, name: &str) -> Result<MutexGuard<'_, Out>, Error> {
        let lost = |loss| Error::Lost { message: name.into(), sent: Sent::No, loss };
        // Asked after the call was entered: either the end finds the call, or the call finds the end.
        if let Some(loss) = self.end.borrow().clone() {
            return Err(lost(loss));
        }
        let out = lock(&self.out);
        if out.parted {
            return Err(lost(Loss::Here));
        }
        let (waiting, most) = (out.unsent.len(), self.limits.outgoing);
        if waiting > most {
            return Err(Error::Stuck { message: name.into(), waiting, most });
        }
        Ok(out)
    }

    fn put(&self, out: &mut Out, requests: Vec<Outgoing>, context: u32) {
        let first = out.unsent.is_empty();
        for mut request in requests {
            request.address(self.table.client_index, context);
            out.unsent.put(&request.bytes);
        }
        if first && lock(&self.calls).len() <= DIRECT {
            // An error here is found by the task as well, which ends the connection.
            if let Ok(written) = self.stream.try_write(out.unsent.bytes()) {
                out.unsent.written(written);
            }
        }
        if !out.unsent.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Behind all that waits, the last message; None where VPP has no such.
    pub(super) fn part(self: &Arc<Self>) -> Option<Result<Waiting, Error>> {
        let goodbye = self.goodbye()?;
        let reply = self.id(table::DELETE_REPLY.0, table::DELETE_REPLY.1).ok()?;
        let expected = Expected::reply(self, table::DELETE.0, (reply, Head::Context));
        let context = self.next_context();
        let waiting = lock(&self.calls).call(self, context, expected);
        Some(self.open(table::DELETE.0).map(|mut out| {
            self.put(&mut out, vec![goodbye], context);
            out.parted = true;
            waiting
        }))
    }

    /// The last message, without waiting and once. What waits before it is given up, but for the rest of a message that has begun to go.
    pub(super) fn part_at_once(&self) {
        let Some(mut goodbye) = self.goodbye() else { return };
        let mut out = lock(&self.out);
        if std::mem::replace(&mut out.parted, true) {
            return;
        }
        goodbye.address(self.table.client_index, self.next_context());
        out.unsent.keep_begun();
        out.unsent.put(&goodbye.bytes);
        // Not by the runtime, which may have ended, or not have seen yet that there is room. Where there is none VPP finds the end itself.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if let Ok(written) = rustix::net::send(&self.stream, out.unsent.bytes(), flags) {
            out.unsent.written(written);
        }
    }

    pub(super) fn has_parted(&self) -> bool {
        lock(&self.out).parted
    }

    /// VPP frees what it has of this connection. It has the index behind the head, too.
    fn goodbye(&self) -> Option<Outgoing> {
        let id = self.id(table::DELETE.0, table::DELETE.1).ok()?;
        let mut goodbye = Outgoing::new(table::DELETE.0, id, Head::ClientContext);
        goodbye.bytes.extend_from_slice(&self.table.client_index.to_be_bytes());
        Some(goodbye)
    }

    /// Writes what waits, as far as VPP takes it; true when all is written.
    pub(super) fn flush(&self) -> std::io::Result<bool> {
        let mut out = lock(&self.out);
        while !out.unsent.is_empty() {
            match self.stream.try_write(out.unsent.bytes()) {
                Ok(written) => out.unsent.written(written),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Gives a message to whoever waits for it.
    pub(super) fn deliver(&self, message: Bytes) {
        let Some(id) = id_at_start(&message) else { return self.stray() };
        let message = match lock(&self.calls).deliver(id, message, &self.table) {
            Ok(()) => return,
            Err(nobodys) => nobodys,
        };
        let mut listeners = lock(&self.listeners);
        let Some(queues) = listeners.get_mut(&id) else { return self.stray() };
        // The message's own bytes, as a part of a read would keep the whole read in memory.
        let own = Bytes::copy_from_slice(&message);
        queues.retain(|queue| Arc::strong_count(queue) > 1);
        for queue in queues.iter() {
            queue.push(own.clone());
        }
        if queues.is_empty() {
            self.stray();
        }
    }

    fn stray(&self) {
        self.strays.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn strays(&self) -> u64 {
        self.strays.load(Ordering::Relaxed)
    }

    pub(super) fn listen(&self, id: u16) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(self.limits.events, self.limits.details));
        let mut listeners = lock(&self.listeners);
        let queues = listeners.entry(id).or_default();
        queues.retain(|queue| Arc::strong_count(queue) > 1);
        queues.push(Arc::clone(&queue));
        if let Some(loss) = self.end.borrow().clone() {
            queue.end(&loss);
        }
        queue
    }

    pub(super) fn note_subscription(&self, name: &str) {
        lock(&self.subscriptions).push(name.into());
    }

    pub(super) fn subscriptions(&self) -> Vec<String> {
        lock(&self.subscriptions).clone()
    }

    pub(super) fn in_flight(&self) -> usize {
        let running = lock(&self.calls).len();
        running + lock(&self.calls).lost()
    }

    pub(super) fn forget(&self, context: u32) {
        lock(&self.calls).forget(context);
    }

    /// The connection is over: everyone who waits is told, once.
    pub(super) fn end(&self, loss: &Loss) {
        let first = self.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(loss.clone());
            }
            first
        });
        if first {
            lock(&self.calls).end(loss);
            lock(&self.listeners).values().flatten().for_each(|queue| queue.end(loss));
            self.wake.notify_one();
        }
    }

    pub(super) fn loss(&self) -> Option<Loss> {
        self.end.borrow().clone()
    }

    pub(super) async fn ended(&self) -> Loss {
        let mut end = self.end.subscribe();
        // The sender is in `self`.
        end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone()).unwrap_or(Loss::Here)
    }
}

/// Without the bytes on their way out: there may be keys in them.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("client_index", &self.table.client_index)
            .field("in_flight", &self.in_flight())
            .field("strays", &self.strays())
            .field("loss", &self.loss())
            .finish_non_exhaustive()
    }
}

/// A panic elsewhere leaves these whole: each change is one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
