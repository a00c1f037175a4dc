//! Which pods hold connections, by the agent's records: it need not run.

use std::{fmt, fs, path::Path};

use serde_json::Value;

/// Tells one boot from the next (proc(5)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A connection of a pod.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Holder {
    whose: String,
    interface: String,
    service: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} holds interface {} of network service {}", self.whose, self.interface, self.service)
    }
}

/// Those of this boot: what an earlier one had ended with it.
pub(super) fn read(run_dir: &Path) -> Vec<Holder> {
    let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
    let Ok(entries) = fs::read_dir(run_dir.join("attachments")) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let texts =
        paths.filter(|path| path.extension().is_some_and(|it| it == "json")).filter_map(|path| fs::read(path).ok());
    let records = texts.filter_map(|text| serde_json::from_slice::<Value>(&text).ok());
    let mut holders: Vec<Holder> =
        records.filter(|file| file["boot_id"] == boot.trim()).map(|file| of(&file["record"])).collect();
    holders.sort();
    holders
}

fn of(record: &Value) -> Holder {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let whose = match &record["pod"] {
        Value::Object(pod) => format!("pod {}/{}", text(&pod["namespace"]), text(&pod["name"])),
        _ => format!("container {}", text(&record["key"]["container_id"])),
    };
    Holder { whose, interface: text(&record["interface"]), service: text(&record["network_service"]) }
}
