//! What an event does when its turn has come, and the handle by which elements ask for one.

use std::{
    any::Any,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::FutureExt;
use nsm_proto::connection::{Connection, State as Condition};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use super::{
    Failure, GRACE,
    outcome::{Outcome, Told},
    slot::{Known, Rest, Slot, Slots, Turn},
};
use crate::{Close, Error, Request};

/// What a reselect's Close may take of the Request's time: the old next hop is often dead.
const CLOSE_BEFORE_RESELECT: Duration = Duration::from_secs(2);

/// Runs `work` in a task of its own, bounded in time; ends the turn and tells the outcome there.
pub(super) fn run_apart<T: Told + Send + 'static, W: Future<Output = Result<T, Error>> + Send + 'static>(
    slots: &Arc<Slots>,
    turn: Turn,
    deadline: Instant,
    outcome: Outcome,
    work: W,
) -> impl Future<Output = Result<T, Error>> + use<T, W> {
    let span = outcome.span();
    let running = slots.clone();
    let task = slots.spawn(
        async move {
            let result = tokio::select! {
                result = AssertUnwindSafe(work).catch_unwind() => {
                    result.unwrap_or_else(|panic| Err(Failure::Panic(text_of(&*panic)).into()))
                }
                () = sleep_until(deadline + GRACE) => Err(Failure::Late.into()),
                () = running.stopped() => Err(Failure::Draining.into()),
            };
            let result = outcome.end(result);
            drop(turn);
            result
        }
        .instrument(span),
    );
    async move { task.await.unwrap_or_else(|_| Err(Failure::Aborted.into())) }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "of unknown type".into())
}

/// A Request whose turn has come.
pub(super) async fn request(
    slots: Arc<Slots>,
    slot: Arc<Slot>,
    mut request: Request,
    rest: Rest,
) -> Result<Connection, Error> {
    let id = request.connection.id.clone();
    request.call.note(Events::new(&slots, &id));
    if request.connection.state() == Condition::ReselectRequested {
        // What the old mechanism names was the old endpoint's, and its files were not passed again.
        request.connection.mechanism = None;
        if let Some(known) = slot.known() {
            close_old(&known, &request, &rest).await;
            slot.forget();
        }
    }
    let preferences = request.preferences.clone();
    let call = slots.settings.kept(&request.call);
    let mut connection = rest.request(request).await?;
    if connection.id != id {
        return Err(Failure::OtherConnection { answered: connection.id }.into());
    }
    connection.set_state(Condition::Up);
    slot.remember(Known { connection: connection.clone(), preferences, call, rest });
    Ok(connection)
}

/// The old connection goes before another endpoint is chosen, whatever comes of it.
async fn close_old(known: &Known, request: &Request, rest: &Rest) {
    let mut connection = known.connection.clone();
    connection.set_state(Condition::ReselectRequested);
    let mut call = request.call.derive(CLOSE_BEFORE_RESELECT.min(request.call.remaining() / 2));
    call.files = request.call.files.clone();
    if let Err(error) = rest.close(Close { connection, call }).await {
        tracing::debug!(%error, "the old connection was not closed cleanly");
    }
}

/// A Close whose turn has come. The connection is forgotten whatever the others say.
pub(super) async fn close(slots: Arc<Slots>, slot: Arc<Slot>, mut close: Close, rest: Rest) -> Result<(), Error> {
    close.call.note(Events::new(&slots, &close.connection.id));
    let forget = Forget(slot);
    if let Some(known) = forget.0.known() {
        close.connection = merge(known.connection, &close.connection);
    }
    rest.close(close).await
}

/// Cleared also when the Close is dropped at its deadline.
struct Forget(Arc<Slot>);

impl Drop for Forget {
    fn drop(&mut self) {
        self.0.forget();
    }
}

/// The last good connection with the fresher tokens of those before us. That it is closed for a reselect is the caller's to say.
fn merge(mut last: Connection, caller: &Connection) -> Connection {
    if caller.state() == Condition::ReselectRequested {
        last.set_state(Condition::ReselectRequested);
    }
    let (Some(path), Some(fresh)) = (&mut last.path, &caller.path) else {
        return last;
    };
    let ours = usize::try_from(fresh.index).unwrap_or(usize::MAX);
    for (segment, fresh) in path.path_segments.iter_mut().zip(&fresh.path_segments).take(ours.saturating_add(1)) {
        if segment.id == fresh.id && segment.name == fresh.name && fresh.expires.is_some() {
            segment.token.clone_from(&fresh.token);
            segment.expires = fresh.expires;
        }
    }
    last
}

/// Asks for events of one connection, through the chain from `begin` on. A note: `call.noted::<Events>()`.
///
/// Holds nothing: when the chain or the connection is gone, events just do not happen. Each takes its turn like any other, and
/// then a closure decides on the connection as it is *then*. Once it runs, dropping the future does not stop it. An element must
/// not wait for one within an event of the same connection: it would wait for itself.
#[derive(Clone)]
pub struct Events {
    id: String,
    slots: Weak<Slots>,
}

impl Events {
    pub(super) fn new(slots: &Arc<Slots>, id: &str) -> Self {
        Self { id: id.to_owned(), slots: Arc::downgrade(slots) }
    }

    /// The connection's id at `begin`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The last good connection.
    pub fn last(&self) -> Option<Connection> {
        self.slots.upgrade()?.known(&self.id).map(|known| known.connection)
    }

    /// Requests the connection again, as `change` left the request; not when it says `false`. `None`: not done, because
    /// of `change` or because the connection is gone.
    pub async fn request(&self, change: impl FnOnce(&mut Request) -> bool + Send) -> Result<Option<Connection>, Error> {
        let Some((slots, turn, known)) = self.turn().await? else { return Ok(None) };
        let mut again = self.again(&slots, &known);
        if !change(&mut again) {
            return Ok(None);
        }
        let outcome = Outcome::request(&again.connection, slots.settings.quiet);
        let deadline = again.call.deadline;
        let work = request(slots.clone(), turn.slot(), again, known.rest);
        run_apart(&slots, turn, deadline, outcome, work).await.map(Some)
    }

    /// Closes what is left of the connection and requests it from any endpoint, with the same id and, where that endpoint can,
    /// the same addresses; not when `wanted` says `false`. When it fails the connection is still known, so that it can be
    /// tried again.
    pub async fn reselect(&self, wanted: impl FnOnce(&Connection) -> bool + Send) -> Result<Option<Connection>, Error> {
        let Some((slots, turn, known)) = self.turn().await? else { return Ok(None) };
        if !wanted(&known.connection) {
            return Ok(None);
        }
        let mut again = self.again(&slots, &known);
        again.connection.mechanism = None;
        again.connection.network_service_endpoint_name.clear();
        again.connection.set_state(Condition::ReselectRequested);
        let outcome = Outcome::request(&again.connection, slots.settings.quiet);
        let deadline = again.call.deadline;
        let slot = turn.slot();
        let (running, rest) = (slots.clone(), known.rest.clone());
        let work = async move {
            let still_wanted = Keep { slot: slot.clone(), known: Some(known) };
            let connection = request(running, slot, again, rest).await?;
            still_wanted.not_needed();
            Ok(connection)
        };
        run_apart(&slots, turn, deadline, outcome, work).await.map(Some)
    }

    /// Closes the connection; not when `wanted` says `false`. Whether it was closed.
    pub async fn close(&self, wanted: impl FnOnce(&Connection) -> bool + Send) -> Result<bool, Error> {
        let Some((slots, turn, known)) = self.turn().await? else { return Ok(false) };
        if !wanted(&known.connection) {
            return Ok(false);
        }
        let call = slots.settings.kept(&known.call);
        let outcome = Outcome::close(&known.connection, slots.settings.quiet);
        let deadline = call.deadline;
        let work = close(slots.clone(), turn.slot(), Close { connection: known.connection, call }, known.rest);
        run_apart(&slots, turn, deadline, outcome, work).await.map(|()| true)
    }

    async fn turn(&self) -> Result<Option<(Arc<Slots>, Turn, Known)>, Error> {
        let Some(slots) = self.slots.upgrade() else { return Ok(None) };
        if !slots.is_known(&self.id) {
            return Ok(None);
        }
        let turn = slots.queue(&self.id, usize::MAX)?.turn().await;
        let known = turn.slot().known();
        Ok(known.map(|known| (slots, turn, known)))
    }

    fn again(&self, slots: &Slots, known: &Known) -> Request {
        debug_assert_eq!(self.id, known.connection.id);
        Request {
            connection: known.connection.clone(),
            preferences: known.preferences.clone(),
            call: slots.settings.kept(&known.call),
        }
    }
}

/// Puts a connection back that a failed reselect has closed.
struct Keep {
    slot: Arc<Slot>,
    known: Option<Known>,
}

impl Keep {
    fn not_needed(mut self) {
        self.known = None;
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        if let Some(known) = self.known.take() {
            self.slot.remember(known);
        }
    }
}
