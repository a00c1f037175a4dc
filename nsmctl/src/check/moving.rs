//! What changes on this node when it moves from Multus: keys of its configurations, definitions that would be refused, records of
//! pods that are there.
//!
//! Guarantee: nothing is written, and nobody is asked: files alone are read.

use std::{fs, path::Path};

use nsm_cni_types::{Command, Stdin};
use nsm_npwg::{KEYS, List, Meta, Treatment};
use nsm_proto::admin::{Finding, finding::Level};
use serde_json::Value;

use super::{bad, finding, good};
use crate::{cli, error::Error, uninstall::configurations};

const CONFIGURATION: &str = "moving: configuration";
const DAEMON: &str = "moving: configuration of Multus's daemon";
const DEFINITIONS: &str = "moving: definitions";
const RECORDS: &str = "moving: records";

/// Where Multus's installer puts its daemon's configuration, below the directory of configurations.
const DAEMON_FILE: &str = "multus.d/daemon-config.json";
/// Most records that are counted.
const MOST: usize = 100_000;

/// All findings.
pub(super) fn all(args: &cli::Check) -> Result<Vec<Finding>, Error> {
    let dir = &args.paths.cni_conf_dir;
    let files = configurations(dir)?;
    let mut findings = Vec::new();
    let mut folders = Vec::new();
    for file in &files {
        let Some(keys) = file.content.as_ref().ok().and_then(|text| meta_keys(text)) else { continue };
        let (of_file, folder) = configuration(&dir.join(&file.name), &keys);
        findings.push(of_file);
        folders.push(folder);
    }
    if findings.is_empty() {
        let detail = format!("{} has no configuration of type multus or multus-shim", dir.display());
        findings.push(finding(Level::Warning, CONFIGURATION, &detail, "name Multus's directory with --cni-conf-dir"));
    }
    findings.extend(daemon(&dir.join(DAEMON_FILE)));
    if let Some(path) = &args.definitions {
        findings.extend(definitions(path));
    }
    folders.sort();
    folders.dedup();
    findings.extend(folders.iter().map(|folder| records(folder)));
    Ok(findings)
}

/// The configuration of a meta-plugin, alone or first in a list.
fn meta_keys(text: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(text).ok()?;
    let mut one = value["plugins"].get(0).cloned().unwrap_or_else(|| value.clone());
    for key in ["name", "cniVersion"] {
        if one[key].is_null() {
            one[key] = value[key].clone();
        }
    }
    one.as_object().filter(|keys| Meta::is(keys))?;
    Some(one)
}

/// What becomes of a configuration, and where its records are.
fn configuration(path: &Path, keys: &Value) -> (Finding, std::path::PathBuf) {
    let shown = path.display();
    let fallback = Path::new("/var/lib/cni/multus");
    let stdin = match Stdin::parse(keys.to_string().as_bytes(), &Command::Add) {
        Ok(stdin) => stdin,
        Err(error) => {
            return (bad(CONFIGURATION, &format!("{shown}: {error}"), "put it right before moving"), fallback.into());
        }
    };
    let (meta, mistakes) = Meta::lenient(&stdin);
    let told = if !mistakes.is_empty() {
        let detail = format!("{shown} would be refused: {}", mistakes.join("; "));
        bad(CONFIGURATION, &detail, "put these keys right, or leave them out, before moving")
    } else if meta.without_effect.is_empty() {
        good(CONFIGURATION, &format!("{shown}: every key is honoured"))
    } else {
        let detail = format!("{shown} is taken as it is; {}", meta.without_effect.join("; "));
        finding(Level::Warning, CONFIGURATION, &detail, "leave these keys out, or know that they do nothing")
    };
    (told, meta.cni_dir)
}

/// The daemon's own configuration, which overrides the shim's and is not read any more.
fn daemon(path: &Path) -> Option<Finding> {
    let text = fs::read(path).ok()?;
    let shown = path.display();
    let Ok(Value::Object(keys)) = serde_json::from_slice(&text) else {
        return Some(bad(DAEMON, &format!("{shown} is no JSON object"), "see what Multus makes of it"));
    };
    let honoured = |name: &&String| KEYS.iter().any(|key| key.name == **name && key.treatment == Treatment::Honoured);
    let moved: Vec<&str> = keys.keys().filter(honoured).map(String::as_str).collect();
    if moved.is_empty() {
        return Some(good(DAEMON, &format!("{shown} is not read any more, and has nothing that is missed")));
    }
    let detail = format!("{shown} is not read any more: {}", moved.join(", "));
    Some(finding(Level::Warning, DAEMON, &detail, "write these keys into the configuration that the runtime reads"))
}

/// Definitions that pods could not select any more, from what kubectl says of them.
fn definitions(path: &Path) -> Vec<Finding> {
    let fix = "kubectl get network-attachment-definitions -A -o json >FILE";
    let list: Value = match fs::read(path).map(|text| serde_json::from_slice(&text)) {
        Ok(Ok(list)) => list,
        Ok(Err(error)) => return vec![bad(DEFINITIONS, &format!("{}: {error}", path.display()), fix)],
        Err(error) => return vec![bad(DEFINITIONS, &format!("{}: {error}", path.display()), fix)],
    };
    let Some(items) = list["items"].as_array() else {
        return vec![bad(DEFINITIONS, &format!("{} is no list", path.display()), fix)];
    };
    let refused = items.iter().filter_map(|item| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text(&item["metadata"]["namespace"]), text(&item["metadata"]["name"]));
        let config = item["spec"]["config"].as_str().filter(|config| !config.trim().is_empty())?;
        let why = List::of_definition(&format!("{namespace}/{name}"), &name, config).err()?;
        Some(bad(DEFINITIONS, &why.to_string(), "change the definition: pods that select it would not start"))
    });
    let mut findings: Vec<Finding> = refused.collect();
    if findings.is_empty() {
        findings.push(good(DEFINITIONS, &format!("{}: all {} are taken", path.display(), items.len())));
    }
    findings
}

/// Records that Multus has left of pods that are there.
fn records(dir: &Path) -> Finding {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return good(RECORDS, &format!("{} is not there: Multus has made no pod", dir.display()));
        }
        Err(error) => return bad(RECORDS, &format!("{}: {error}", dir.display()), "run nsmctl check as root"),
    };
    let (mut whole, mut damaged) = (0, Vec::new());
    for entry in entries.filter_map(Result::ok).take(MOST) {
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let read = fs::read(entry.path()).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        if read.is_some_and(|record| record.is_array()) {
            whole += 1;
        } else {
            damaged.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    let shown = dir.display();
    if damaged.is_empty() {
        return good(RECORDS, &format!("{shown}: {whole} pods of Multus's are ended and checked from its records"));
    }
    let detail = format!("{shown}: {whole} whole, and not readable: {}", damaged.join(", "));
    finding(Level::Warning, RECORDS, &detail, "delete these pods before moving: addresses of theirs would stay taken")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(file: &Value) -> Finding {
        configuration(Path::new("/c/00-multus.conf"), &meta_keys(file.to_string().as_bytes()).unwrap()).0
    }

    #[test]
    fn configurations_are_judged_by_the_table_of_keys() {
        let plain = json!({"cniVersion": "1.0.0", "name": "m", "type": "multus", "clusterNetwork": "/x.conflist"});
        assert_eq!(of(&plain).level(), Level::Ok);
        let mut logs = plain.clone();
        logs["logFile"] = "/var/log/multus.log".into();
        let found = of(&logs);
        assert!(found.level() == Level::Warning && found.detail.contains("logFile has no effect"), "{found:?}");
        let list =
            json!({"cniVersion": "1.0.0", "name": "m", "plugins": [{"type": "multus-shim", "delegates": [], "x": 1}]});
        let found = of(&list);
        assert!(found.level() == Level::Error && found.detail.contains("unknown key \"x\""), "{found:?}");
        assert!(meta_keys(br#"{"type": "ptp"}"#).is_none());
    }

    #[test]
    fn definitions_and_records_are_counted() {
        let dir = tempfile::TempDir::new().unwrap();
        let item = |name: &str, config: &Value| json!({"metadata": {"namespace": "n", "name": name}, "spec": {"config": config.to_string()}});
        let file = dir.path().join("definitions.json");
        let all = [item("a", &json!({"type": "macvlan"})), item("b", &json!({"type": "multus"}))];
        fs::write(&file, json!({"items": all}).to_string()).unwrap();
        let found = definitions(&file);
        assert!(found.len() == 1 && found[0].detail.contains("network \"n/b\""), "{found:?}");
        assert_eq!(definitions(&dir.path().join("none"))[0].level(), Level::Error);
        fs::write(&file, json!({"items": all[..1]}).to_string()).unwrap();
        assert_eq!(definitions(&file)[0].level(), Level::Ok);
        let cni_dir = dir.path().join("multus");
        assert_eq!(records(&cni_dir).level(), Level::Ok);
        fs::create_dir_all(cni_dir.join("nsm-cni")).unwrap();
        fs::write(cni_dir.join("c1"), "[]").unwrap();
        assert!(records(&cni_dir).detail.contains("1 pods"));
        fs::write(cni_dir.join("c2"), "[").unwrap();
        assert!(records(&cni_dir).detail.contains("not readable: c2"));
        let daemon_file = dir.path().join("daemon-config.json");
        assert!(daemon(&daemon_file).is_none());
        fs::write(&daemon_file, r#"{"chrootDir": "/hostroot", "confDir": "/etc/cni/net.d"}"#).unwrap();
        assert!(daemon(&daemon_file).unwrap().detail.ends_with("any more: confDir"));
    }
}
