//! What a list of figures comes to.

use std::time::Duration;

/// Some measured times, in milliseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1000.0);
    }

    /// Of so many, the one below which so many percent are; 0 of none.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    pub(crate) fn print(&self, what: &str) {
        let [median, p95, p99] = [50, 95, 99].map(|percent| self.percentile(percent));
        println!("{what:<52} n {:>4}  median {median:>9.2} ms  p95 {p95:>9.2} ms  p99 {p99:>9.2} ms", self.0.len());
    }
}

/// The number of rounds, from the environment for those who have more time.
pub(crate) fn rounds(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
