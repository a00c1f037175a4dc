//! Brings connections back whose next hop, endpoint or wire has gone.
//!
//! Guarantees:
//! - A connection that is DOWN, or whose wire is dead, is closed and requested from any endpoint: same id, no mechanism and no
//!   endpoint name, the addresses kept in the context so that the other endpoint may give them again.
//! - One that the next hop has merely lost, because it restarted or cannot be reached just now, is first requested as it was;
//!   from another endpoint only when that is refused, or [`Heal::patience`] is over. With a [`Liveness`] check, only when the
//!   wire is dead too.
//! - `REFRESH_REQUESTED` is a refresh at once.
//! - It is tried until it works or the connection is closed, ever slower up to [`LAST_RETRY`]. Any other Request that succeeds
//!   meanwhile counts.
//!
//! Assumptions: [`Begin`](crate::begin::Begin) comes earlier; the next hop is the call's note [`Target`] once it has answered, or
//! the one given.

mod hops;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use nsm_proto::connection::{Connection, State};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::{
    Close, Element, Error, Kind, Next, Request,
    begin::Events,
    connect::{Peers, Target},
    tasks::Tasks,
};

pub use self::hops::{Change, HopEvent, NextHops};

/// The pause after the first try that failed.
pub const FIRST_RETRY: Duration = Duration::from_millis(50);
/// The longest pause between two tries.
pub const LAST_RETRY: Duration = Duration::from_secs(5);
/// How long a next hop that cannot be reached is waited for, unless something else is said.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A DELETE may be a step of a move: the UPDATE follows it within this time.
const SETTLE: Duration = Duration::from_millis(50);

/// Whether packets still reach the other end.
#[async_trait]
pub trait Liveness: Send + Sync + 'static {
    /// One look, as a rule a ping from `src` to `dst` addresses. It is given [`Heal::liveness`]'s timeout.
    async fn alive(&self, connection: &Connection) -> bool;
}

/// The element. Clones share the connections.
#[derive(Clone)]
pub struct Heal {
    shared: Arc<Shared>,
    hops: NextHops,
    target: Option<Target>,
}

struct Shared {
    patience: Duration,
    liveness: Option<Check>,
    healing: Tasks,
    checking: Tasks,
    /// Events of the connections, and how many good Requests each has seen.
    known: Mutex<HashMap<String, (Events, u64)>>,
    /// Told to the heal tasks, which must not keep the streams.
    hops: OnceLock<Weak<hops::Shared>>,
}

#[derive(Clone)]
struct Check {
    liveness: Arc<dyn Liveness>,
    every: Duration,
    timeout: Duration,
}

impl Heal {
    /// Next hops are those that the calls' notes name. `name` is this process's name in paths.
    pub fn new(peers: Peers, name: impl Into<String>) -> Self {
        Self::build(peers, name.into(), None, PATIENCE, None)
    }

    /// The next hop is always this one.
    #[must_use]
    pub fn to(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// How long a next hop that cannot be reached is waited for before another endpoint is chosen.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self::build(self.hops.peers(), self.hops.name(), self.target, patience, self.shared.liveness.clone())
    }

    /// Looks at each connection `every` so often, for at most `timeout`.
    #[must_use]
    pub fn liveness(self, liveness: Arc<dyn Liveness>, every: Duration, timeout: Duration) -> Self {
        let check = Check { liveness, every, timeout };
        Self::build(self.hops.peers(), self.hops.name(), self.target, self.shared.patience, Some(check))
    }

    fn build(peers: Peers, name: String, target: Option<Target>, patience: Duration, liveness: Option<Check>) -> Self {
        let shared = Arc::new(Shared {
            patience,
            liveness,
            healing: Tasks::default(),
            checking: Tasks::default(),
            known: Mutex::default(),
            hops: OnceLock::new(),
        });
        let healer = Arc::downgrade(&shared);
        let hops = NextHops::new(peers, name, move |event| {
            if let Some(shared) = healer.upgrade() {
                shared.start(&event.id, event.change);
            }
        });
        let _first = shared.hops.set(hops.downgrade());
        Self { shared, hops, target }
    }

    /// Watches over a connection from before a restart, at this next hop.
    pub fn adopt(&self, events: &Events, connection: &Connection, target: &Target) {
        self.succeeded(events, connection, Some(target));
    }

    fn succeeded(&self, events: &Events, connection: &Connection, target: Option<&Target>) {
        {
            let mut known = self.shared.known();
            let entry = known.entry(events.id().to_owned()).or_insert_with(|| (events.clone(), 0));
            entry.0 = events.clone();
            entry.1 += 1;
        }
        if let Some(target) = target {
            self.hops.watch(connection, target);
        }
        if let Some(check) = self.shared.liveness.clone() {
            let shared = Arc::downgrade(&self.shared);
            let connection = connection.clone();
            self.shared.checking.set(events.id(), async move {
                check.until_dead(&connection).await;
                if let Some(shared) = shared.upgrade() {
                    shared.start(&connection.id, Change::Down);
                }
            });
        }
    }
}

impl Check {
    async fn is_alive(&self, connection: &Connection) -> bool {
        timeout(self.timeout, self.liveness.alive(connection)).await.unwrap_or(false)
    }

    async fn until_dead(&self, connection: &Connection) {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if !self.is_alive(connection).await {
                return;
            }
        }
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, HashMap<String, (Events, u64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn good_requests(&self, id: &str) -> Option<u64> {
        self.known().get(id).map(|(_, good)| *good)
    }

    /// Starts healing. What is already under way is replaced only when the connection is surely down.
    fn start(self: &Arc<Self>, id: &str, change: Change) {
        let Some((events, good)) = self.known().get(id).cloned() else { return };
        if change != Change::Down && self.healing.is_running(id) {
            return;
        }
        let healing = Healing { shared: Arc::downgrade(self), events, good, change };
        self.healing.set(id, healing.run(self.patience, self.liveness.clone()));
    }
}

struct Healing {
    shared: Weak<Shared>,
    events: Events,
    /// Good Requests when it began: one more, and there is nothing left to heal.
    good: u64,
    change: Change,
}

impl Healing {
    async fn run(self, patience: Duration, check: Option<Check>) {
        if self.change == Change::Deleted {
            sleep(SETTLE).await;
            if self.is_up_again() {
                return;
            }
        }
        let since = Instant::now();
        let mut as_it_was = self.change != Change::Down;
        let mut pause = FIRST_RETRY;
        for attempts in 1u64.. {
            let wanted = || self.shared.upgrade().is_some_and(|s| s.good_requests(self.events.id()) == Some(self.good));
            let result = if as_it_was {
                self.events.request(|_| wanted()).await
            } else {
                self.events.reselect(|_| wanted()).await
            };
            let error = match result {
                Ok(None) => return,
                Ok(Some(connection)) => return self.tell(&connection, attempts, since),
                Err(_) if self.change == Change::RefreshRequested => return,
                Err(error) => error,
            };
            if as_it_was && !self.may_come_back(&error, since, patience, check.as_ref()).await {
                as_it_was = false;
                continue;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_RETRY);
        }
    }

    fn is_up_again(&self) -> bool {
        let hops = self.shared.upgrade().and_then(|shared| shared.hops.get()?.upgrade());
        hops.is_some_and(|hops| hops.is_up(self.events.id()) == Some(true))
    }

    /// Whether the same endpoint should be asked again.
    async fn may_come_back(&self, error: &Error, since: Instant, patience: Duration, check: Option<&Check>) -> bool {
        let unreachable = matches!(error.kind(), Kind::Unavailable | Kind::Deadline | Kind::Cancelled);
        if let (Some(check), Some(connection)) = (check, self.events.last())
            && unreachable
        {
            return check.is_alive(&connection).await;
        }
        unreachable && self.change == Change::Lost && since.elapsed() < patience
    }

    fn tell(&self, connection: &Connection, attempts: u64, since: Instant) {
        tracing::info!(
            connection = %connection.id,
            service = %connection.network_service,
            endpoint = %connection.network_service_endpoint_name,
            cause = ?self.change,
            attempts,
            duration_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            "healed"
        );
    }
}

#[async_trait]
impl Element for Heal {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        let events = request.call.noted::<Events>();
        let call = request.call.clone();
        let connection = next.request(request).await?;
        if let Some(events) = events {
            let target = call.noted::<Target>().or_else(|| self.target.clone());
            self.succeeded(&events, &connection, target.as_ref());
        }
        Ok(connection)
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        let id = &close.connection.id;
        self.hops.forget(id);
        self.shared.checking.remove(id);
        // A reselect closes what it is about to request again: healing goes on.
        if close.connection.state() != State::ReselectRequested {
            self.shared.healing.remove(id);
            self.shared.known().remove(id);
        }
        next.close(close).await
    }
}
