//! What a list of figures comes to.

use serde::Serialize;

/// Median and tail of some figures.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Summary {
    pub(crate) n: usize,
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) p95: f64,
}

impl Summary {
    /// Nothing to say of no figures.
    pub(crate) fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at =
            |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied();
        Some(Self { n: sorted.len(), min: at(0)?, median: at(50)?, p95: at(95)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_tail() {
        let figures: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let summary = Summary::of(&figures).unwrap();
        assert!((summary.min - 1.0).abs() < f64::EPSILON);
        assert!((summary.median - 51.0).abs() < f64::EPSILON);
        assert!((summary.p95 - 96.0).abs() < f64::EPSILON);
        assert!(Summary::of(&[]).is_none());
    }
}
