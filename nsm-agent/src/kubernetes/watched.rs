//! Watches of the API server, all in one way; what is made of their events is each watcher's own.
//!
//! Guarantees: a list is read in pages, and only when a watch cannot go on from where it was, after a pause of random length that grows
//! until something is seen: that a list begins is not enough.
//! What a list took goes back to the system. One line of the log in [`QUIET`] tells that a watch does not work.

use std::time::Duration;

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use kube::{
    Api, Resource,
    runtime::{
        utils::Backoff,
        watcher::{self, Config, DefaultBackoff, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::chain;
use crate::memory;

/// Shortest time between two lines of the log about a watch that does not work.
const QUIET: Duration = Duration::from_secs(30);

/// Why a watch does not work. It goes on by itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// What is watched, and why it cannot be.
    pub(crate) why: String,
    /// What the API server said, where asking again may be of no use.
    pub(crate) answer: Option<Answer>,
    /// Whether it is time for a line in the log.
    pub(crate) to_be_told: bool,
}

/// An answer of the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has no such kind.
    Missing,
    /// This agent may not.
    Refused,
}

/// What becomes of the objects of an API, `page` at a time where all are listed. `what` is their plural.
pub(crate) fn watched<K>(
    what: &str,
    api: Api<K>,
    config: Config,
    page: u32,
) -> BoxStream<'static, Result<Event<K>, Failed>>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    told(what.to_owned(), paced(watcher::watcher(api, config.page_size(page)).boxed())).boxed()
}

/// With a pause after each error. The library's own begins anew with each list, so that what cannot be listed would be asked for each
/// second.
fn paced<K>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Unpin,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> {
    let start = (events, DefaultBackoff::default(), None);
    stream::unfold(start, |(mut events, mut pauses, pause)| async move {
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        let event = events.next().await?;
        let pause = match &event {
            Err(_) => pauses.next(),
            Ok(Event::Init) => None,
            Ok(Event::InitApply(_) | Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                pauses.reset();
                None
            }
        };
        Some((event, (events, pauses, pause)))
    })
}

fn told<K>(
    what: String,
    events: impl Stream<Item = Result<Event<K>, watcher::Error>>,
) -> impl Stream<Item = Result<Event<K>, Failed>> {
    let mut last_line: Option<Instant> = None;
    events.map(move |event| {
        let error = match event {
            Ok(event) => {
                if matches!(event, Event::InitDone) {
                    memory::give_back_soon();
                }
                return Ok(event);
            }
            Err(error) => error,
        };
        let to_be_told = last_line.is_none_or(|last| last.elapsed() > QUIET);
        if to_be_told {
            last_line = Some(Instant::now());
        }
        Err(Failed { why: format!("{what}: {}", chain(&error)), answer: answer(&error), to_be_told })
    })
}

fn answer(error: &watcher::Error) -> Option<Answer> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))) = error
    else {
        return None;
    };
    match status.code {
        404 => Some(Answer::Missing),
        403 => Some(Answer::Refused),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_listed_is_asked_for_ever_more_slowly() {
        let lists = stream::iter((0..12).flat_map(|_| [Ok(Event::<()>::Init), Err(watcher::Error::NoResourceVersion)]));
        let before = Instant::now();
        assert_eq!(paced(lists).count().await, 24);
        // Twelve pauses of the shortest would be 20 s at most.
        assert!(before.elapsed() > Duration::from_mins(2), "{:?}", before.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_line_in_a_while_and_what_the_server_said() {
        let error = |code| {
            let status = Status { code, ..Status::failure("no", "Because") };
            Err(watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status))))
        };
        let errors: Vec<Result<Event<()>, _>> =
            vec![error(404), Ok(Event::InitDone), error(403), error(500), Err(watcher::Error::NoResourceVersion)];
        let waits = |(number, error)| async move {
            if number == 3 {
                tokio::time::sleep(QUIET + Duration::from_secs(1)).await;
            }
            error
        };
        let all: Vec<_> =
            told("things".to_owned(), futures::stream::iter(errors).enumerate().then(waits)).collect().await;
        let found: Vec<_> =
            all.iter().filter_map(|one| one.as_ref().err()).map(|one| (one.answer, one.to_be_told)).collect();
        let expected = [(Some(Answer::Missing), true), (Some(Answer::Refused), false), (None, true), (None, false)];
        assert_eq!(found, expected);
        assert!(all[0].as_ref().is_err_and(|one| one.why.starts_with("things: ")), "{all:?}");
    }
}
