//! Who waits for which answer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::shared::Shared;
use crate::definition::Head;
use crate::error::{Error, Loss, Sent};
use crate::table::Table;

/// What a waiting message takes beside its bytes: its header, its place in a queue, and a handle on the bytes.
const HELD: usize = 128;

/// What answers a request.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    name: String,
    reply: (u16, Head),
    details: Option<(u16, Head)>,
    /// Of details that nobody has taken.
    most: usize,
}

impl Expected {
    pub(super) fn reply(shared: &Shared, name: &str, reply: (u16, Head)) -> Self {
        Self { name: name.into(), reply, details: None, most: shared.limits.details }
    }

    pub(super) fn with_details(mut self, details: (u16, Head)) -> Self {
        self.details = Some(details);
        self
    }

    fn all(&self) -> impl Iterator<Item = (u16, Head)> {
        [self.reply].into_iter().chain(self.details)
    }
}

/// What comes for a request with several answers.
#[derive(Debug)]
pub(super) enum Part {
    Details(Bytes),
    /// The last one.
    End(Bytes),
}

#[derive(Debug)]
enum To {
    Call(oneshot::Sender<Result<Bytes, Error>>),
    Stream(mpsc::UnboundedSender<Result<Part, Error>>, Arc<AtomicUsize>),
}

impl To {
    fn fail(self, error: Error) {
        // Whoever no longer waits has gone.
        match self {
            Self::Call(to) => drop(to.send(Err(error))),
            Self::Stream(to, _) => drop(to.send(Err(error))),
        }
    }
}

/// All that wait, by the context of their request.
#[derive(Debug, Default)]
pub(super) struct Calls {
    waiting: HashMap<u32, (Expected, To)>,
    /// Answers whose context comes behind a client index: a few of VPP's are so.
    client_first: HashSet<u16>,
    lost: usize,
}

impl Calls {
    pub(super) fn call(&mut self, shared: &Arc<Shared>, context: u32, expected: Expected) -> Waiting {
        let (to, answer) = oneshot::channel();
        self.note(&expected);
        let name = expected.name.clone();
        self.waiting.insert(context, (expected, To::Call(to)));
        Waiting { answer, entry: Entry { shared: Arc::clone(shared), context, name } }
    }

    pub(super) fn stream(&mut self, shared: &Arc<Shared>, context: u32, expected: Expected) -> Stream {
        let (to, parts) = mpsc::unbounded_channel();
        let held = Arc::new(AtomicUsize::new(0));
        self.note(&expected);
        let name = expected.name.clone();
        self.waiting.insert(context, (expected, To::Stream(to, Arc::clone(&held))));
        Stream { parts, held, entry: Entry { shared: Arc::clone(shared), context, name } }
    }

    fn note(&mut self, expected: &Expected) {
        let odd = expected.all().filter(|(_, head)| *head == Head::ClientContext);
        self.client_first.extend(odd.map(|(id, _)| id));
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many were waiting when the connection ended.
    pub(super) fn lost(&self) -> usize {
        self.lost
    }

    pub(super) fn forget(&mut self, context: u32) {
        self.waiting.remove(&context);
    }

    /// Gives the message back if nobody waits for it. By id first: an event's bytes may look like any context.
    pub(super) fn deliver(&mut self, id: u16, message: Bytes, table: &Table) -> Result<(), Bytes> {
        let at = if self.client_first.contains(&id) { 6 } else { 2 };
        let context = message.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        let Some(context) = context else { return Err(message) };
        let Some((expected, to)) = self.waiting.get(&context) else { return Err(message) };
        let details = expected.details.is_some_and(|(details, _)| details == id);
        match to {
            To::Stream(to, held) if details => {
                let bytes = message.len() + HELD;
                if held.fetch_add(bytes, Ordering::Relaxed) + bytes > expected.most {
                    let error = Error::TooMuch { message: expected.name.clone(), most: expected.most };
                    self.take(context).fail(error);
                } else {
                    drop(to.send(Ok(Part::Details(message))));
                }
                Ok(())
            }
            _ if id == expected.reply.0 => {
                match self.take(context) {
                    To::Call(to) => drop(to.send(Ok(message))),
                    To::Stream(to, _) => drop(to.send(Ok(Part::End(message)))),
                }
                Ok(())
            }
            _ => {
                // Only an answer can be the wrong one.
                let Some(found) = table.name(id).filter(|name| is_answer(name)).map(str::to_owned) else {
                    return Err(message);
                };
                let error = Error::WrongReply {
                    message: expected.name.clone(),
                    expected: table.name(expected.reply.0).unwrap_or_default().into(),
                    found,
                };
                self.take(context).fail(error);
                Ok(())
            }
        }
    }

    fn take(&mut self, context: u32) -> To {
        self.waiting.remove(&context).map_or_else(|| To::Call(oneshot::channel().0), |(_, to)| to)
    }

    pub(super) fn end(&mut self, loss: &Loss) {
        self.lost = self.waiting.len();
        for (_, (expected, to)) in self.waiting.drain() {
            to.fail(Error::Lost { message: expected.name, sent: Sent::Perhaps, loss: loss.clone() });
        }
    }
}

fn is_answer(name: &str) -> bool {
    name.ends_with("_reply") || name.ends_with("_details")
}

/// A place among those that wait, given up when nobody does any more.
#[derive(Debug)]
struct Entry {
    shared: Arc<Shared>,
    context: u32,
    name: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.forget(self.context);
    }
}

impl Entry {
    /// The sender has gone without a word: the connection ended.
    fn gone(&self) -> Error {
        let loss = self.shared.loss().unwrap_or(Loss::Here);
        Error::Lost { message: self.name.clone(), sent: Sent::Perhaps, loss }
    }
}

#[derive(Debug)]
pub(super) struct Waiting {
    answer: oneshot::Receiver<Result<Bytes, Error>>,
    entry: Entry,
}

impl Waiting {
    pub(super) async fn answer(self) -> Result<Bytes, Error> {
        self.answer.await.unwrap_or_else(|_| Err(self.entry.gone()))
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    parts: mpsc::UnboundedReceiver<Result<Part, Error>>,
    held: Arc<AtomicUsize>,
    entry: Entry,
}

impl Stream {
    pub(super) async fn part(&mut self) -> Result<Part, Error> {
        let part = self.parts.recv().await.unwrap_or_else(|| Err(self.entry.gone()))?;
        if let Part::Details(bytes) = &part {
            self.held.fetch_sub(bytes.len() + HELD, Ordering::Relaxed);
        }
        Ok(part)
    }
}
