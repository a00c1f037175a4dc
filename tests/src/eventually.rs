//! Waiting for a condition, never for a while.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until `condition` says yes or `bound` has passed; then the error shows the last value seen.
///
/// `look` may fail for a while (a program is not up yet): its error counts as a value.
pub fn eventually<T: Debug>(
    what: &str,
    bound: Duration,
    look: impl FnMut() -> anyhow::Result<T>,
    condition: impl Fn(&T) -> bool,
) -> anyhow::Result<T> {
    eventually_at(PAUSE, what, bound, look, condition)
}

/// The same with another pause between two looks, where looking costs others something.
pub fn eventually_at<T: Debug>(
    pause: Duration,
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> anyhow::Result<T>,
    condition: impl Fn(&T) -> bool,
) -> anyhow::Result<T> {
    let end = Instant::now() + bound;
    loop {
        let seen = match look() {
            Ok(value) if condition(&value) => return Ok(value),
            Ok(value) => format!("{value:#?}"),
            Err(error) => format!("error: {error:#}"),
        };
        if Instant::now() >= end {
            bail!("{what}: not within {bound:?}; last seen: {seen}");
        }
        thread::sleep(pause);
    }
}
