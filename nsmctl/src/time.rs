//! Times as people read them: how long ago, or until when.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// `3d4h`, `12m5s`, `7s`.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

/// How long ago; `-` when it is not known.
pub(crate) fn age(since: Option<Timestamp>) -> String {
    let since = since.and_then(|since| SystemTime::try_from(since).ok());
    since.map_or_else(|| "-".to_owned(), |since| short(since.elapsed().unwrap_or_default()))
}

/// How long from now; `never` without a time.
pub(crate) fn left(until: Option<Timestamp>) -> String {
    match until.map(SystemTime::try_from) {
        None => "never".to_owned(),
        Some(Ok(until)) => match until.duration_since(SystemTime::now()) {
            Ok(left) => short(left),
            Err(_) => "expired".to_owned(),
        },
        Some(Err(_)) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_units_are_enough() {
        let of = |seconds| short(Duration::from_secs(seconds));
        assert_eq!([of(7), of(61), of(3_660), of(90_000)], ["7s", "1m1s", "1h1m", "1d1h"]);
    }
}
