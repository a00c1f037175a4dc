//! Counts and durations, in OpenMetrics (Prometheus) text. Recording is a few atomic additions: no ADD waits for it.

use std::{fmt, sync::Arc, time::Duration};

use nsm_cni_types::lost::Cause;
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
    /// GC.
    Gc,
    /// STATUS.
    Status,
    /// What the meta-plugin is to attach.
    Plan,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Plan => "PLAN",
        })
    }
}

/// A call of NSM v1's `NetworkService`, of another process or of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ServiceCall {
    /// First, refresh or heal.
    Request,
    /// Close.
    Close,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Ok,
    Error,
}

impl Outcome {
    fn of(ok: bool) -> Self {
        if ok { Self::Ok } else { Self::Error }
    }
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    call: ServiceCall,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabel {
    call: ServiceCall,
}

/// [`Cause`], as a label has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum CauseValue {
    Damaged,
    Missing,
    Older,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: CauseValue,
}

/// Something that the agent installs on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Part {
    /// `nsm-cni` in the runtime's directory.
    Plugin,
    /// The configuration that chains it.
    Configuration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabel {
    part: Part,
}

/// What is counted when a scrape comes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// Connections of this node.
    pub connections: usize,
    /// Ends that endpoints have still to hear.
    pub owed: usize,
    /// Registered network services.
    pub services: usize,
    /// Registered endpoints.
    pub endpoints: usize,
    /// Open watches of the registry.
    pub watches: usize,
}

/// All that is counted. Clones share it.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    cni_total: Family<CniLabels, Counter>,
    cni_seconds: Family<OperationLabel, Histogram, fn() -> Histogram>,
    calls_total: Family<CallLabels, Counter>,
    call_seconds: Family<CallLabel, Histogram, fn() -> Histogram>,
    heals_total: Counter,
    events_dropped_total: Counter,
    records_lost_total: Family<CauseLabel, Counter>,
    installed: Family<PartLabel, Gauge>,
    now: Gauges,
}

/// One for each field of [`Now`].
#[derive(Debug, Clone, Default)]
struct Gauges {
    connections: Gauge,
    owed: Gauge,
    services: Gauge,
    endpoints: Gauge,
    watches: Gauge,
}

impl Gauges {
    fn register(&self, registry: &mut Registry) {
        for (name, help, gauge) in [
            ("connections", "Connections of this node", &self.connections),
            ("owed_closes", "Ends of connections that endpoints have still to hear", &self.owed),
            ("registry_services", "Registered network services", &self.services),
            ("registry_endpoints", "Registered endpoints", &self.endpoints),
            ("registry_watches", "Open watches of services and endpoints", &self.watches),
        ] {
            registry.register(name, help, gauge.clone());
        }
    }

    fn set(&self, now: Now) {
        for (gauge, count) in [
            (&self.connections, now.connections),
            (&self.owed, now.owed),
            (&self.services, now.services),
            (&self.endpoints, now.endpoints),
            (&self.watches, now.watches),
        ] {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("nsm");
        let (cni_total, calls_total) = (Family::default(), Family::default());
        let cni_seconds = Family::<_, _, fn() -> Histogram>::new_with_constructor(seconds);
        let call_seconds = Family::<_, _, fn() -> Histogram>::new_with_constructor(seconds);
        let (heals_total, now) = (Counter::default(), Gauges::default());
        let (events_dropped_total, installed) = (Counter::default(), Family::default());
        let records_lost_total = Family::<CauseLabel, Counter>::default();
        for cause in [CauseValue::Damaged, CauseValue::Missing] {
            // Whoever waits for the first one sees that there is none yet.
            drop(records_lost_total.get_or_create(&CauseLabel { cause }));
        }
        registry.register("cni_operations", "CNI operations served, by outcome", Family::clone(&cni_total));
        registry.register(
            "cni_operation_seconds",
            "Time the agent took for a CNI operation",
            Family::clone(&cni_seconds),
        );
        registry.register("calls", "Requests and Closes of connections, by outcome", Family::clone(&calls_total));
        registry.register("call_seconds", "Time a Request or Close took", Family::clone(&call_seconds));
        registry.register("heals", "Connections moved or made again after a failure", heals_total.clone());
        let dropped = "Events on pods that were not written, as too many waited";
        registry.register("events_dropped", dropped, events_dropped_total.clone());
        let lost = "Records of pods' networks that the meta-plugin found damaged or missing";
        registry.register("network_records_lost", lost, Family::clone(&records_lost_total));
        let in_place = "Whether a part that the agent installs is in its place";
        registry.register("installed", in_place, Family::clone(&installed));
        now.register(&mut registry);
        Self {
            registry: Arc::new(registry),
            cni_total,
            cni_seconds,
            calls_total,
            call_seconds,
            heals_total,
            events_dropped_total,
            records_lost_total,
            installed,
            now,
        }
    }

    /// A CNI operation ended.
    pub fn cni(&self, operation: Operation, ok: bool, took: Duration) {
        let outcome = Outcome::of(ok);
        self.cni_total.get_or_create(&CniLabels { operation, outcome }).inc();
        self.cni_seconds.get_or_create(&OperationLabel { operation }).observe(took.as_secs_f64());
    }

    /// A Request or Close ended.
    pub fn call(&self, call: ServiceCall, ok: bool, took: Duration) {
        let outcome = Outcome::of(ok);
        self.calls_total.get_or_create(&CallLabels { call, outcome }).inc();
        self.call_seconds.get_or_create(&CallLabel { call }).observe(took.as_secs_f64());
    }

    /// A connection was healed.
    pub fn healed(&self) {
        self.heals_total.inc();
    }

    /// An event on a pod is not written: too many wait. Answers how many there were before.
    pub fn event_dropped(&self) -> u64 {
        self.events_dropped_total.inc()
    }

    /// The meta-plugin has found a record lost.
    pub fn record_lost(&self, cause: Cause) {
        let cause = match cause {
            Cause::Damaged => CauseValue::Damaged,
            Cause::Missing => CauseValue::Missing,
            Cause::Older => CauseValue::Older,
        };
        self.records_lost_total.get_or_create(&CauseLabel { cause }).inc();
    }

    /// Whether something that is to be installed is in its place.
    pub fn installed(&self, part: Part, in_place: bool) {
        self.installed.get_or_create(&PartLabel { part }).set(in_place.into());
    }

    /// The text that a scrape gets.
    pub fn text(&self, now: Now) -> Result<String, fmt::Error> {
        self.now.set(now);
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
        metrics.cni(Operation::Gc, false, Duration::ZERO);
        metrics.call(ServiceCall::Request, true, Duration::from_millis(3));
        metrics.call(ServiceCall::Close, false, Duration::ZERO);
        metrics.event_dropped();
        metrics.installed(Part::Plugin, true);
        metrics.installed(Part::Configuration, false);
        let now = Now { connections: 7, owed: 1, services: 2, endpoints: 3, watches: 4 };
        let text = metrics.text(now).unwrap();
        for line in [
            "nsm_cni_operations_total{operation=\"Add\",outcome=\"Ok\"} 1",
            "nsm_cni_operation_seconds_bucket{le=\"0.004\",operation=\"Add\"} 1",
            "nsm_cni_operations_total{operation=\"Gc\",outcome=\"Error\"} 1",
            "nsm_calls_total{call=\"Request\",outcome=\"Ok\"} 1",
            "nsm_calls_total{call=\"Close\",outcome=\"Error\"} 1",
            "nsm_call_seconds_bucket{le=\"0.004\",call=\"Request\"} 1",
            "nsm_registry_services 2",
            "nsm_registry_endpoints 3",
            "nsm_registry_watches 4",
            "nsm_heals_total 1",
            "nsm_connections 7",
            "nsm_owed_closes 1",
            "nsm_events_dropped_total 1",
            "nsm_installed{part=\"Plugin\"} 1",
            "nsm_installed{part=\"Configuration\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
