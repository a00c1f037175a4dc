//! How long to wait before the next try.

use std::time::Duration;

/// Shortest pause.
pub(super) const FIRST: Duration = Duration::from_millis(50);

/// Doubles with each failure up to a limit, and spreads by up to a half, so that the endpoints of a node do not come back
/// in step.
#[derive(Debug, Default)]
pub(super) struct Pause {
    failures: u32,
}

impl Pause {
    /// The pause after one more failure.
    pub(super) fn next(&mut self, limit: Duration) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.failures.min(16)).min(limit);
        self.failures = self.failures.saturating_add(1);
        let (_, random) = uuid::Uuid::new_v4().as_u64_pair();
        pause + pause.mul_f64(f64::from(random.to_le_bytes()[0]) / 512.0)
    }

    /// Whether nothing has failed so far.
    pub(super) fn is_first(&self) -> bool {
        self.failures == 0
    }

    /// Things went well for a while.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_short_grows_and_ends_growing() {
        let limit = Duration::from_secs(1);
        let mut pause = Pause::default();
        let first = pause.next(limit);
        assert!(first >= FIRST && first < FIRST * 2);
        let late = (0..100).map(|_| pause.next(limit)).last().unwrap();
        assert!(late >= limit && late <= limit * 3 / 2);
        pause.reset();
        assert!(pause.next(limit) < FIRST * 2);
    }
}
