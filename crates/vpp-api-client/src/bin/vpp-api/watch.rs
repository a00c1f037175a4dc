//! `vpp-api stats`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use vpp_api_client::Stats;
use vpp_api_client::stats::{Interface, StatsError, Value};

use crate::arguments::Arguments;
use crate::run::{Failure, say};

const EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn stats(arguments: &Arguments, prefix: Option<&str>, watch: bool) -> Result<(), Failure> {
    let stats = Stats::connect(&arguments.stats_socket, arguments.timeout)?;
    let mut before = look(&stats, prefix)?;
    if let (Some(prefix), true) = (prefix, before.is_empty()) {
        eprintln!("vpp-api: nothing that this VPP counts begins with {prefix}; stats / shows all");
    }
    let rounds = arguments.count.unwrap_or(if watch { u64::MAX } else { 1 });
    if !watch {
        before.iter().try_for_each(|(name, value)| say(&json!({ name: value })))?;
    }
    for _ in u64::from(!watch)..rounds {
        tokio::time::sleep(EVERY).await;
        let now = look(&stats, prefix)?;
        let grown = |(name, value): (&String, &Json)| {
            let change = difference(before.get(name).unwrap_or(&Json::Null), value);
            (!change.is_null()).then(|| (name.clone(), change))
        };
        let changes: Map<String, Json> = now.iter().filter_map(grown).collect();
        say(&Json::Object(changes))?;
        before = now;
    }
    Ok(())
}

/// By interface, or by the segment's own names.
fn look(stats: &Stats, prefix: Option<&str>) -> Result<BTreeMap<String, Json>, StatsError> {
    let Some(prefix) = prefix else {
        return Ok(stats.interfaces()?.iter().map(|of| (of.name.clone(), interface(of))).collect());
    };
    let all = stats.read(|name| name.starts_with(prefix))?;
    Ok(all.into_iter().map(|(name, value)| (name, plain(&value))).collect())
}

fn interface(of: &Interface) -> Json {
    json!({
        "sw_if_index": of.sw_if_index,
        "rx_packets": of.rx.packets, "rx_bytes": of.rx.bytes, "tx_packets": of.tx.packets, "tx_bytes": of.tx.bytes,
        "drops": of.drops, "rx_errors": of.rx_errors, "tx_errors": of.tx_errors,
    })
}

/// Numbers as they are, per thread and index.
fn plain(value: &Value) -> Json {
    match value {
        Value::Scalar(number) => json!(number),
        Value::Simple(threads) => json!(threads),
        Value::Combined(threads) => {
            threads.iter().map(|of| of.iter().map(|one| json!([one.packets, one.bytes])).collect::<Json>()).collect()
        }
        Value::Names(names) => json!(names),
        other => json!(other.total()),
    }
}

/// What a counter has grown by; null where nothing has changed. An index is no counter.
fn difference(before: &Json, now: &Json) -> Json {
    match (before, now) {
        (Json::Object(before), Json::Object(now)) => {
            let grown = now.iter().filter(|(name, _)| *name != "sw_if_index").filter_map(|(name, value)| {
                let change = difference(before.get(name).unwrap_or(&Json::Null), value);
                (!change.is_null()).then(|| (name.clone(), change))
            });
            let grown: Map<String, Json> = grown.collect();
            if grown.is_empty() { Json::Null } else { Json::Object(grown) }
        }
        (before, now) if before == now => Json::Null,
        (before, now) => match (before.as_u64(), now.as_u64()) {
            (Some(before), Some(now)) => json!(now.wrapping_sub(before)),
            _ => now.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_shows_what_has_grown() {
        let before = json!({ "sw_if_index": 1, "rx_packets": 5, "drops": 1 });
        let now = json!({ "sw_if_index": 2, "rx_packets": 9, "drops": 1 });
        assert_eq!(difference(&before, &now), json!({ "rx_packets": 4 }));
        assert_eq!(difference(&now, &now), Json::Null);
        assert_eq!(difference(&Json::Null, &json!([1])), json!([1]));
    }
}
