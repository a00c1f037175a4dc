//! Counts and durations, in OpenMetrics (Prometheus) text. Recording is a few atomic additions: no ADD waits for it.

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// A CNI operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Operation {
    /// ADD.
    Add,
    /// DEL.
    Del,
    /// CHECK.
    Check,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Ok,
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CniLabels {
    operation: Operation,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: Operation,
}

/// All that is counted. Clones share it.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    cni_total: Family<CniLabels, Counter>,
    cni_seconds: Family<OperationLabel, Histogram, fn() -> Histogram>,
    heals_total: Counter,
    connections: Gauge,
    owed: Gauge,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("nsm");
        let cni_total = Family::default();
        let cni_seconds = Family::<_, _, fn() -> Histogram>::new_with_constructor(seconds);
        let (heals_total, connections, owed) = (Counter::default(), Gauge::default(), Gauge::default());
        registry.register("cni_operations", "CNI operations served, by outcome", Family::clone(&cni_total));
        registry.register(
            "cni_operation_seconds",
            "Time the agent took for a CNI operation",
            Family::clone(&cni_seconds),
        );
        registry.register("heals", "Connections moved or made again after a failure", heals_total.clone());
        registry.register("connections", "Connections of this node", connections.clone());
        registry.register("owed_closes", "Ends of connections that endpoints have still to hear", owed.clone());
        Self { registry: Arc::new(registry), cni_total, cni_seconds, heals_total, connections, owed }
    }

    /// A CNI operation ended.
    pub fn cni(&self, operation: Operation, ok: bool, took: Duration) {
        let outcome = if ok { Outcome::Ok } else { Outcome::Error };
        self.cni_total.get_or_create(&CniLabels { operation, outcome }).inc();
        self.cni_seconds.get_or_create(&OperationLabel { operation }).observe(took.as_secs_f64());
    }

    /// A connection was healed.
    pub fn healed(&self) {
        self.heals_total.inc();
    }

    /// The text that a scrape gets; the gauges are read now.
    pub fn text(&self, connections: usize, owed: usize) -> Result<String, fmt::Error> {
        self.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
        self.owed.set(i64::try_from(owed).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn seconds() -> Histogram {
    Histogram::new([0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0])
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_has_what_was_counted() {
        let metrics = Metrics::new();
        metrics.cni(Operation::Add, true, Duration::from_millis(3));
        metrics.healed();
        let text = metrics.text(7, 1).unwrap();
        for line in [
            "nsm_cni_operations_total{operation=\"Add\",outcome=\"Ok\"} 1",
            "nsm_cni_operation_seconds_bucket{le=\"0.004\",operation=\"Add\"} 1",
            "nsm_heals_total 1",
            "nsm_connections 7",
            "nsm_owed_closes 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
