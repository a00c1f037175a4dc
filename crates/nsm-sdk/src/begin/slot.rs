//! What is known of each connection, and whose turn it is.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::poll;
use nsm_proto::{
    connection::{Connection, Mechanism},
    networkservice::NetworkServiceRequest,
};
use tokio::{
    sync::{Mutex as Queue, OwnedMutexGuard},
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Failure, Origin};
use crate::{Call, Chain, Close, Error, Next, Request, encoded::Encoded};

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) quiet: bool,
    pub(super) keep_files: bool,
    pub(super) carried: Vec<fn(&Call, &Call)>,
    pub(super) event_timeout: Duration,
}

impl Settings {
    pub(super) fn new(event_timeout: Duration) -> Self {
        Self { quiet: false, keep_files: false, carried: Vec::new(), event_timeout }
    }

    /// A call for a later event, with what is kept of `call`.
    pub(super) fn kept(&self, call: &Call) -> Call {
        let mut kept = Call::new(self.event_timeout);
        kept.note(Origin::Event);
        for carry in &self.carried {
            carry(call, &kept);
        }
        if self.keep_files {
            kept.files = call.files.copied();
        }
        kept
    }
}

/// The chain behind `begin`.
#[derive(Clone)]
pub(super) enum Rest {
    Next(Next),
    Chain(Chain),
}

impl Rest {
    pub(super) async fn request(&self, request: Request) -> Result<Connection, Error> {
        match self {
            Self::Next(next) => next.request(request).await,
            Self::Chain(chain) => chain.request(request).await,
        }
    }

    pub(super) async fn close(&self, close: Close) -> Result<(), Error> {
        match self {
            Self::Next(next) => next.close(close).await,
            Self::Chain(chain) => chain.close(close).await,
        }
    }
}

/// The last good connection, and what another Request for it needs.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) connection: Connection,
    pub(super) preferences: Vec<Mechanism>,
    pub(super) call: Call,
    pub(super) rest: Rest,
}

/// The same at rest: there are many, and most are looked at every few minutes.
struct Kept {
    message: Encoded<NetworkServiceRequest>,
    call: Call,
    rest: Rest,
}

impl Kept {
    fn known(&self) -> Known {
        let NetworkServiceRequest { connection, mechanism_preferences: preferences } = self.message.decoded();
        let connection = connection.unwrap_or_default();
        Known { connection, preferences, call: self.call.clone(), rest: self.rest.clone() }
    }
}

impl From<Known> for Kept {
    fn from(known: Known) -> Self {
        let Known { connection, preferences: mechanism_preferences, call, rest } = known;
        let message = NetworkServiceRequest { connection: Some(connection), mechanism_preferences };
        Self { message: Encoded::new(&message), call, rest }
    }
}

/// Boxed, since most slots live for one refused Request or are many.
enum State {
    /// Never made, refused, or closed.
    Empty,
    /// The last Request, or one before it, succeeded.
    Known(Box<Kept>),
}

pub(super) struct Slot {
    queue: Arc<Queue<()>>,
    state: Mutex<State>,
}

impl Slot {
    fn new() -> Self {
        Self { queue: Arc::new(Queue::new(())), state: Mutex::new(State::Empty) }
    }

    pub(super) fn known(&self) -> Option<Known> {
        match &*lock(&self.state) {
            State::Empty => None,
            State::Known(kept) => Some(kept.known()),
        }
    }

    pub(super) fn remember(&self, known: Known) {
        self.set(State::Known(Box::new(known.into())));
    }

    pub(super) fn forget(&self) {
        self.set(State::Empty);
    }

    fn set(&self, state: State) {
        // The old one is dropped outside of the lock: its chain may end with it.
        let _old = std::mem::replace(&mut *lock(&self.state), state);
    }

    fn is_empty(&self) -> bool {
        match &*lock(&self.state) {
            State::Empty => true,
            State::Known(_) => false,
        }
    }
}

struct Place {
    slot: Arc<Slot>,
    /// Events that wait or run. An empty slot leaves with its last one, so that a later event never overtakes.
    users: usize,
}

pub(super) struct Slots {
    pub(super) settings: Settings,
    places: Mutex<HashMap<String, Place>>,
    tasks: TaskTracker,
    draining: AtomicBool,
    stop: CancellationToken,
}

impl Slots {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            places: Mutex::default(),
            tasks: TaskTracker::new(),
            draining: AtomicBool::new(false),
            stop: CancellationToken::new(),
        }
    }

    pub(super) fn known(&self, id: &str) -> Option<Known> {
        let slot = lock(&self.places).get(id).map(|place| place.slot.clone());
        slot.and_then(|slot| slot.known())
    }

    pub(super) fn is_known(&self, id: &str) -> bool {
        lock(&self.places).get(id).is_some_and(|place| !place.slot.is_empty())
    }

    pub(super) fn connections(&self) -> Vec<Connection> {
        let slots: Vec<_> = lock(&self.places).values().map(|place| place.slot.clone()).collect();
        slots.iter().filter_map(|slot| slot.known()).map(|known| known.connection).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.places).len()
    }

    pub(super) fn adopt(&self, known: Known) {
        let mut places = lock(&self.places);
        let id = known.connection.id.clone();
        let place = places.entry(id).or_insert_with(|| Place { slot: Arc::new(Slot::new()), users: 0 });
        if place.slot.is_empty() {
            place.slot.remember(known);
        }
    }

    /// A place in the queue of this id, unless `most` are taken. It is the caller's from the first poll on.
    pub(super) fn queue(self: &Arc<Self>, id: &str, most: usize) -> Result<Queued, Error> {
        let mut places = lock(&self.places);
        if self.draining.load(Ordering::Acquire) {
            return Err(Failure::Draining.into());
        }
        let place = places.entry(id.to_owned()).or_insert_with(|| Place { slot: Arc::new(Slot::new()), users: 0 });
        if place.users >= most {
            return Err(Failure::Crowd(place.users).into());
        }
        place.users += 1;
        let waiting = Box::pin(place.slot.queue.clone().lock_owned());
        let user = User { slots: self.clone(), id: id.to_owned(), slot: place.slot.clone() };
        Ok(Queued { waiting, got: None, user })
    }

    pub(super) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.tasks.spawn(work)
    }

    /// Ready when events have to end at once.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    pub(super) async fn drain(&self, deadline: Instant) -> usize {
        {
            let _no_new_one_between = lock(&self.places);
            self.draining.store(true, Ordering::Release);
        }
        self.tasks.close();
        let mut ended = 0;
        if timeout_at(deadline, self.tasks.wait()).await.is_err() {
            ended = self.tasks.len();
            self.stop.cancel();
            self.tasks.wait().await;
        }
        self.abandon();
        ended
    }

    pub(super) fn cut_off(&self) {
        self.draining.store(true, Ordering::Release);
        self.stop.cancel();
        self.abandon();
    }

    pub(super) fn abandon(&self) {
        let forgotten = std::mem::take(&mut *lock(&self.places));
        for place in forgotten.values() {
            place.slot.forget();
        }
    }
}

/// Counts a user of a slot, and gives the slot up with the last one.
struct User {
    slots: Arc<Slots>,
    id: String,
    slot: Arc<Slot>,
}

impl Drop for User {
    fn drop(&mut self) {
        let mut places = lock(&self.slots.places);
        // After a drain there may be none, or another one of the same id.
        let Some(place) = places.get_mut(&self.id).filter(|place| Arc::ptr_eq(&place.slot, &self.slot)) else {
            return;
        };
        place.users -= 1;
        if place.users == 0 && place.slot.is_empty() {
            places.remove(&self.id);
        }
    }
}

/// A place in a queue.
pub(super) struct Queued {
    waiting: Pin<Box<dyn Future<Output = OwnedMutexGuard<()>> + Send>>,
    got: Option<OwnedMutexGuard<()>>,
    user: User,
}

impl Queued {
    /// Makes sure of the place without waiting for the turn.
    pub(super) async fn take_place(&mut self) {
        if self.got.is_none()
            && let std::task::Poll::Ready(guard) = poll!(&mut self.waiting)
        {
            self.got = Some(guard);
        }
    }

    pub(super) async fn turn(self) -> Turn {
        let Self { waiting, got, user } = self;
        let guard = match got {
            Some(guard) => guard,
            None => waiting.await,
        };
        Turn { _guard: guard, user }
    }
}

/// It is this event's turn until this is dropped. The queue moves on before the slot may go.
pub(super) struct Turn {
    _guard: OwnedMutexGuard<()>,
    user: User,
}

impl Turn {
    pub(super) fn slot(&self) -> Arc<Slot> {
        self.user.slot.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
