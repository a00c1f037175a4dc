//! Latencies, in a histogram of bounded size.

use std::{fmt, time::Duration};

/// Each power of two is split into so many parts: a quantile is at most 1/32 too high.
const PARTS: u32 = 32;

/// Counts by size.
#[derive(Debug, Clone)]
pub struct Samples {
    counts: Vec<u64>,
    all: u64,
    largest: u64,
}

impl Default for Samples {
    fn default() -> Self {
        Self { counts: vec![0; 65 * PARTS as usize], all: 0, largest: 0 }
    }
}

fn place(value: u64) -> usize {
    let bits = u64::BITS - value.leading_zeros();
    let shift = bits.saturating_sub(PARTS.trailing_zeros() + 1);
    (shift * PARTS) as usize + usize::try_from(value >> shift).unwrap_or(0)
}

/// The largest value of a place.
fn value(place: usize) -> u64 {
    let parts = PARTS as usize;
    let shift = (place / parts).saturating_sub(1);
    let within = place - shift * parts;
    (((within as u128 + 1) << shift) - 1).try_into().unwrap_or(u64::MAX)
}

impl Samples {
    /// Counts one.
    #[inline]
    pub fn add(&mut self, nanoseconds: u64) {
        if let Some(count) = self.counts.get_mut(place(nanoseconds)) {
            *count += 1;
        }
        self.all += 1;
        self.largest = self.largest.max(nanoseconds);
    }

    /// How many.
    pub const fn len(&self) -> u64 {
        self.all
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.all == 0
    }

    /// What so many thousandths of them are not above.
    pub fn quantile(&self, thousandths: u64) -> Option<Duration> {
        let rank = (self.all.checked_mul(thousandths)?).div_ceil(1000).max(1);
        let mut before = 0;
        let found = self.counts.iter().position(|count| {
            before += count;
            before >= rank
        })?;
        Some(Duration::from_nanos(value(found).min(self.largest)))
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |thousandths| self.quantile(thousandths).unwrap_or_default().as_secs_f64() * 1e6;
        let largest = Duration::from_nanos(self.largest).as_secs_f64() * 1e6;
        let (median, high, higher) = (micros(500), micros(990), micros(999));
        write!(f, "latency_us p50={median:.1} p99={high:.1} p999={higher:.1} max={largest:.1}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_place_holds_its_values(number in any::<u64>()) {
            let highest = value(place(number));
            prop_assert!(highest >= number && highest - number <= number / 32, "{number} is counted as {highest}");
        }
    }

    #[test]
    fn quantiles_are_near() {
        let mut samples = Samples::default();
        assert_eq!(samples.quantile(500), None);
        (1..=1000).for_each(|micros| samples.add(micros * 1000));
        let near = |thousandths| samples.quantile(thousandths).unwrap().as_micros();
        assert!((500..=516).contains(&near(500)) && (990..=1000).contains(&near(990)));
        assert_eq!(samples.quantile(1000), Some(Duration::from_millis(1)));
    }
}
