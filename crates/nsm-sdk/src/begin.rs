//! One event at a time for each connection, in order, in a task of its own.
//!
//! Guarantees:
//! - Requests and Closes of one connection id run one after another, in the order in which they came; those of different
//!   ids run side by side.
//! - The rest of the chain runs in a task of its own: a caller who hangs up cannot cut a Request in half, and a Close runs to
//!   its end once it was asked for. A caller waits for its turn no longer than its deadline.
//! - Callers that wait for one connection are bounded: one more Request is refused, or Close.
//! - An event ends: at its deadline and [`GRACE`] what still runs is dropped, and guards undo it.
//! - A panic further down is an [`Error`] of [`Kind::Internal`], for this event alone.
//! - A Close goes down with the last good connection; afterwards nothing is remembered. A Close of an unknown connection goes
//!   down as it came.
//! - One span (`request` or `close`) and one log line for each event, cancelled ones included.
//!
//! Assumptions: `connection.id` is unique at this place of the chain: a server's chain has [`Path`](crate::path::Path) first. The
//! owner calls [`Begin::drain`] at the end: until then known connections hold the chain, and the chain holds them.
//!
//! Elements further down get an [`Events`] by `call.noted::<Events>()`, to ask for a Request or Close of their connection later,
//! from here on. They take it before they call `next`: a second `begin` in the same call leaves its own.

mod event;
mod outcome;
mod slot;
#[cfg(test)]
mod tests;

use std::{any::Any, sync::Arc, time::Duration};

use async_trait::async_trait;
use nsm_proto::connection::{Connection, Mechanism};
use tokio::time::{Instant, timeout_at};

use self::{
    event::run_apart,
    outcome::Outcome,
    slot::{Known, Rest, Slots},
};
use crate::{Call, Chain, Close, DEFAULT_TIMEOUT, Element, Error, Kind, Next, Request};

pub use self::event::Events;

/// What an event may take beyond its deadline, to bring things in order.
pub const GRACE: Duration = Duration::from_secs(1);

/// The least time that a Close gets, however late its turn comes.
const LEAST_CLOSE: Duration = Duration::from_secs(2);

/// Most events of one connection that wait or run when a Request comes; of those that elements ask for there are few.
const MOST_REQUESTS: usize = 32;
/// The same when a Close comes: Requests leave it room.
const MOST_CLOSES: usize = 48;

/// Why an event happens: a note of the innermost `begin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The element before `begin` asked for it, in the end a caller.
    Caller,
    /// An element asked for it by [`Events`].
    Event,
}

/// The element. Clones share the connections.
#[derive(Clone)]
pub struct Begin {
    slots: Arc<Slots>,
}

/// Why `begin` itself fails an event.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("another event of this connection took all the time there was")]
    Queue,
    #[error("{0} events of this connection wait already: wait for the answers first")]
    Crowd(usize),
    #[error("the chain did not answer by its deadline")]
    Late,
    #[error("still closing: the deadline came first")]
    StillClosing,
    #[error("shutting down")]
    Draining,
    #[error("panic in the chain: {0}")]
    Panic(String),
    #[error("the runtime ended the event")]
    Aborted,
    #[error("the answer is about connection {answered:?}")]
    OtherConnection { answered: String },
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let kind = match failure {
            Failure::Queue | Failure::Late | Failure::StillClosing => Kind::Deadline,
            Failure::Crowd(_) => Kind::Exhausted,
            Failure::Draining => Kind::Unavailable,
            Failure::Panic(_) => Kind::Internal,
            Failure::Aborted => Kind::Cancelled,
            Failure::OtherConnection { .. } => Kind::Refused,
        };
        Self::new(kind, failure)
    }
}

impl Default for Begin {
    fn default() -> Self {
        Self { slots: Arc::new(Slots::new(slot::Settings::new(DEFAULT_TIMEOUT))) }
    }
}

impl Begin {
    /// Knows no connection yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Logs outcomes at level `debug`: for a chain inside another one that has its own `begin`.
    #[must_use]
    pub fn quiet(self) -> Self {
        self.with(|settings| settings.quiet = true)
    }

    /// Later events see the files of the last Request. Otherwise none are kept: an open file pins its network namespace.
    #[must_use]
    pub fn keep_files(self) -> Self {
        self.with(|settings| settings.keep_files = true)
    }

    /// Later events get the note `T` of the last Request. Other notes end with their call.
    #[must_use]
    pub fn carry<T: Any + Clone + Send + Sync>(self) -> Self {
        self.with(|settings| {
            settings.carried.push(|from: &Call, to: &Call| {
                if let Some(value) = from.noted::<T>() {
                    to.note(value);
                }
            });
        })
    }

    /// Time for an event that an element asks for; [`DEFAULT_TIMEOUT`] unless set.
    #[must_use]
    pub fn event_timeout(self, timeout: Duration) -> Self {
        self.with(|settings| settings.event_timeout = timeout)
    }

    fn with(mut self, change: impl FnOnce(&mut slot::Settings)) -> Self {
        // Settings come before the first clone. Later ones would start with no connections.
        if let Some(slots) = Arc::get_mut(&mut self.slots) {
            change(&mut slots.settings);
            return self;
        }
        let mut settings = self.slots.settings.clone();
        change(&mut settings);
        Self { slots: Arc::new(Slots::new(settings)) }
    }

    /// The last good connection of that id.
    pub fn last(&self, id: &str) -> Option<Connection> {
        self.slots.known(id).map(|known| known.connection)
    }

    /// All connections, as they last were.
    pub fn connections(&self) -> Vec<Connection> {
        self.slots.connections()
    }

    /// A handle to ask for events of a connection; `None` when it is not known.
    pub fn events(&self, id: &str) -> Option<Events> {
        self.slots.is_known(id).then(|| Events::new(&self.slots, id))
    }

    /// Remembers a connection from before a restart; `rest` is the chain from here on. What is already known is kept.
    pub fn adopt(&self, connection: Connection, preferences: Vec<Mechanism>, rest: &Chain) -> Events {
        let events = Events::new(&self.slots, &connection.id);
        let call = Call::new(self.slots.settings.event_timeout);
        self.slots.adopt(Known { connection, preferences, call, rest: Rest::Chain(rest.clone()) });
        events
    }

    /// Forgets all connections without closing them: for an owner that ends without [`Begin::drain`]. What runs comes to its end.
    pub fn abandon(&self) {
        self.slots.abandon();
    }

    /// Refuses new events, ends those that run, and forgets all connections, at once.
    pub fn cut_off(&self) {
        self.slots.cut_off();
    }

    /// Refuses new events, waits for those that run, ends them at the deadline and forgets all connections.
    /// Returns how many had to be ended.
    pub async fn drain(&self, deadline: Instant) -> usize {
        self.slots.drain(deadline).await
    }
}

#[async_trait]
impl Element for Begin {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        if request.connection.id.is_empty() {
            request.connection.id = uuid::Uuid::new_v4().to_string();
        }
        request.call.note(Origin::Caller);
        let outcome = Outcome::request(&request.connection, self.slots.settings.quiet);
        let deadline = request.call.deadline;
        let turn = match self.slots.queue(&request.connection.id, MOST_REQUESTS) {
            Ok(queued) => timeout_at(deadline, queued.turn()).await.map_err(|_| Failure::Queue.into()),
            Err(error) => Err(error),
        };
        match turn {
            Ok(turn) => {
                let slots = self.slots.clone();
                let work = event::request(slots, turn.slot(), request, Rest::Next(next));
                run_apart(&self.slots, turn, deadline, outcome, work).await
            }
            Err(error) => outcome.end(Err(error)),
        }
    }

    async fn close(&self, mut close: Close, next: Next) -> Result<(), Error> {
        close.call.note(Origin::Caller);
        let outcome = Outcome::close(&close.connection, self.slots.settings.quiet);
        let deadline = close.call.deadline;
        let mut queued = match self.slots.queue(&close.connection.id, MOST_CLOSES) {
            Ok(queued) => queued,
            Err(error) => return outcome.end(Err(error)),
        };
        queued.take_place().await;
        let slots = self.slots.clone();
        // Also waiting happens apart from the caller: who asked once for a Close need not stay for it.
        let closing = self.slots.spawn(async move {
            let turn = queued.turn().await;
            close.call.deadline = close.call.deadline.max(Instant::now() + LEAST_CLOSE);
            let deadline = close.call.deadline;
            let work = event::close(slots.clone(), turn.slot(), close, Rest::Next(next));
            run_apart(&slots, turn, deadline, outcome, work).await
        });
        match timeout_at(deadline, closing).await {
            Ok(closed) => closed.unwrap_or_else(|_| Err(Failure::Aborted.into())),
            Err(_) => Err(Failure::StillClosing.into()),
        }
    }
}
