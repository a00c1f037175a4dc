//! Tokens on their way between processes: two headers of each call, and how their time is written.
//!
//! Guarantees: what [`format()`] writes [`parse()`] reads, to the nanosecond. Assumptions: none.

use std::time::SystemTime;

use prost_types::Timestamp;

/// The token that came with a call: a note of the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerToken {
    /// A JWT.
    pub token: String,
    /// When it ends.
    pub expires: SystemTime,
}

/// The token that goes with a call to the next hop: a note for the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnToken {
    /// A JWT.
    pub token: String,
    /// When it ends.
    pub expires: SystemTime,
}

/// RFC 3339, in UTC, with as many digits of the second as needed.
pub fn format(time: SystemTime) -> String {
    Timestamp::from(time).to_string()
}

/// RFC 3339, in any zone. `None` for anything else, and for times that the system cannot hold.
pub fn parse(text: &str) -> Option<SystemTime> {
    SystemTime::try_from(text.parse::<Timestamp>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn times_survive_to_the_nanosecond() {
        let time = UNIX_EPOCH + Duration::new(1_790_000_000, 123_456_789);
        assert_eq!(parse(&format(time)), Some(time));
    }

    #[test]
    fn zones_are_understood_and_nonsense_is_not() {
        assert_eq!(parse("2026-04-01T12:00:00.5+02:00"), parse("2026-04-01T10:00:00.500Z"));
        assert!(parse("2026-04-01T12:00:00.5+02:00").is_some());
        for text in ["", "tomorrow", "2026-13-01T00:00:00Z", "1712000000"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
