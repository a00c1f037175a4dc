//! Watches of the API server, all in one way; what is made of their events is each watcher's own.
//!
//! Guarantees: a list is read in pages, and only when a watch cannot go on from where it was, after a pause of random length that grows.
//! What a list took goes back to the system. One line of the log in [`QUIET`] tells that a watch does not work.

use std::time::Duration;

use futures::{Stream, StreamExt, stream::BoxStream};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Config, Event},
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
    told(what.to_owned(), watcher::watcher(api, config.page_size(page)).default_backoff()).boxed()
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
