//! Events, one after another.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;

use super::shared::lock;
use super::{Client, decode};
use crate::error::{Error, Loss};
use crate::message::Message;

/// Why there is no event.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EventError {
    /// The reader was too slow: so many are lost. The next call goes on behind them.
    Missed(u64),
    /// The event cannot be read. The next call goes on behind it.
    Unreadable(Error),
    /// The connection is over, and with it the registration.
    Lost(Loss),
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missed(count) => write!(f, "{count} events were lost, as nobody took them: look at everything again"),
            Self::Unreadable(error) => error.fmt(f),
            Self::Lost(loss) => write!(f, "no more events, the connection is lost: {loss}"),
        }
    }
}

impl std::error::Error for EventError {}

/// Events that wait for one reader.
#[derive(Debug)]
pub(super) struct Queue {
    held: Mutex<Held>,
    came: Notify,
    most: usize,
    most_bytes: usize,
}

#[derive(Debug, Default)]
struct Held {
    events: VecDeque<Bytes>,
    bytes: usize,
    missed: u64,
    end: Option<Loss>,
}

impl Queue {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self { held: Mutex::default(), came: Notify::new(), most: most.max(1), most_bytes }
    }

    /// The oldest make room: what VPP says now counts more.
    pub(super) fn push(&self, event: Bytes) {
        let mut held = lock(&self.held);
        held.bytes += event.len();
        held.events.push_back(event);
        while held.events.len() > self.most || held.bytes > self.most_bytes {
            let Some(oldest) = held.events.pop_front() else { break };
            held.bytes -= oldest.len();
            held.missed += 1;
        }
        drop(held);
        self.came.notify_one();
    }

    pub(super) fn end(&self, loss: &Loss) {
        lock(&self.held).end = Some(loss.clone());
        self.came.notify_one();
    }

    fn pop(&self) -> Option<Result<Bytes, EventError>> {
        let mut held = lock(&self.held);
        if held.missed > 0 {
            return Some(Err(EventError::Missed(std::mem::take(&mut held.missed))));
        }
        match held.events.pop_front() {
            Some(event) => {
                held.bytes -= event.len();
                Some(Ok(event))
            }
            None => held.end.clone().map(|loss| Err(EventError::Lost(loss))),
        }
    }

    pub(super) async fn next(&self) -> Result<Bytes, EventError> {
        loop {
            let came = self.came.notified();
            if let Some(next) = self.pop() {
                return next;
            }
            came.await;
        }
    }
}

/// Events of one kind. Take them as a hint to look again: VPP tells what changed, not how things stand.
///
/// ```
/// use vpp_api_client::client::EventError;
/// use vpp_api_client::messages::{SwInterfaceDump, WantInterfaceEvents};
/// # use vpp_api_client::fake::{Deed, Fake, Nature};
/// # use vpp_api_client::messages::{SwInterfaceEvent, WantInterfaceEventsReply};
/// use vpp_api_client::{Client, Options};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("api.sock");
/// # let fake = Fake::start(&path, Nature::default(), |asked| match asked.name.as_str() {
/// #     "want_interface_events" => {
/// #         let event = SwInterfaceEvent { deleted: true, ..Default::default() };
/// #         vec![Deed::answer(asked, &WantInterfaceEventsReply::default()), Deed::answer(asked, &event), Deed::Close]
/// #     }
/// #     _ => Vec::new(),
/// # })?;
/// let vpp = Client::connect(&path, Options::new("watcher")).await?;
/// let mut events = vpp.subscribe(&WantInterfaceEvents { enable_disable: 1, pid: std::process::id() }).await?;
/// loop {
///     match events.next().await {
///         Ok(event) => println!("interface {}: deleted {}", event.sw_if_index, event.deleted),
///         Err(EventError::Lost(loss)) => break println!("no more: {loss}"),
///         Err(other) => println!("{other}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Events<E> {
    queue: Arc<Queue>,
    /// They end with the connection, which ends with the last who uses it.
    _client: Client,
    of: PhantomData<fn() -> E>,
}

impl<E: Message> Events<E> {
    pub(super) fn new(client: Client, queue: Arc<Queue>) -> Self {
        Self { queue, _client: client, of: PhantomData }
    }

    /// The next one, whenever it comes. To stop waiting loses nothing.
    ///
    /// # Errors
    /// [`EventError::Lost`] is the end; the others are not.
    pub async fn next(&mut self) -> Result<E, EventError> {
        let bytes = self.queue.next().await?;
        decode(&bytes).map_err(EventError::Unreadable)
    }
}
