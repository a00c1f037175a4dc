//! What changes on this node when it moves from Multus: keys of its configurations, definitions and annotations of pods that would be
//! refused, records of pods that are there.
//!
//! Guarantee: nothing is written, and nobody is asked: files alone are read.

mod cluster;

use std::{fs, path::Path};

use nsm_cni_types::{Command, Stdin};
use nsm_npwg::{KEYS, Meta, Treatment};
use nsm_proto::admin::{Finding, finding::Level};
use serde_json::Value;

use super::{bad, finding, good};
use crate::{cli, error::Error, uninstall::configurations};

const CONFIGURATION: &str = "moving: configuration";
const DAEMON: &str = "moving: configuration of Multus's daemon";
const RECORDS: &str = "moving: records";

/// Where Multus's daemon looks for its configuration, below the directory of configurations.
const DAEMON_FILE: &str = "multus.d/daemon-config.json";
/// What the daemon calls the configuration that it writes.
const DAEMONS: &str = "00-multus.conf";
/// The same for a copy: sorts before it, and the daemon does not take it for the cluster's.
const COPY: &str = "00-multus-nsm.conf";
/// Where Multus has its records if nothing else is said.
const FOLDER: &str = "/var/lib/cni/multus";
/// Most records that are counted.
const MOST: usize = 100_000;

/// All findings.
pub(super) fn all(args: &cli::Check) -> Result<Vec<Finding>, Error> {
    let dir = &args.paths.cni_conf_dir;
    let files = configurations(dir)?;
    let mut findings = Vec::new();
    let mut read = Vec::new();
    for file in &files {
        let Some(keys) = file.content.as_ref().ok().and_then(|text| meta_keys(text)) else { continue };
        let (of_file, meta) = configuration(&dir.join(&file.name), &keys);
        findings.push(of_file);
        findings.extend(removed(dir, &file.name, &keys));
        read.push((keys, meta));
    }
    if findings.is_empty() {
        let detail = format!("{} has no configuration of type multus or multus-shim", dir.display());
        findings.push(finding(Level::Warning, CONFIGURATION, &detail, "name Multus's directory with --cni-conf-dir"));
    }
    // The runtime takes the first.
    let (keys, meta) = read.first().map_or((&Value::Null, None), |(keys, meta)| (keys, meta.as_ref()));
    match &args.daemon_config {
        Some(path) => findings.push(daemon(path, keys).unwrap_or_else(|| {
            bad(DAEMON, &format!("{} cannot be read", path.display()), "write it as docs/moving-from-multus.md says")
        })),
        None => findings.extend(daemon(&dir.join(DAEMON_FILE), keys)),
    }
    if let Some(path) = &args.definitions {
        findings.extend(cluster::findings(path, args.pods.as_deref(), meta));
    }
    let mut folders: Vec<&Path> =
        read.iter().map(|(_, meta)| meta.as_ref().map_or(Path::new(FOLDER), |meta| meta.cni_dir.as_path())).collect();
    folders.sort();
    folders.dedup();
    findings.extend(folders.into_iter().map(records));
    Ok(findings)
}

/// A configuration that is gone with who wrote it.
fn removed(dir: &Path, name: &str, keys: &Value) -> Option<Finding> {
    let who = match keys["type"].as_str() {
        Some("multus-shim") => "Multus's daemon removes",
        Some("multus") => "Multus's entrypoint removes, with --cleanup-config-on-exit,",
        _ => return None,
    };
    if name != DAEMONS {
        return None;
    }
    let (shown, copy) = (dir.join(name), dir.join(COPY));
    if copy.exists() {
        return Some(good(DAEMON, &format!("{} may go with Multus's DaemonSet, and {COPY} stays", shown.display())));
    }
    let detail = format!(
        "{who} {} when it ends: pods that end then would keep addresses of their other networks",
        shown.display()
    );
    let fix = format!("copy it to {} before Multus's DaemonSet leaves the node", copy.display());
    Some(finding(Level::Warning, DAEMON, &detail, &fix))
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

/// What becomes of a configuration, and what is read of it.
fn configuration(path: &Path, keys: &Value) -> (Finding, Option<Meta>) {
    let shown = path.display();
    let stdin = match Stdin::parse(keys.to_string().as_bytes(), &Command::Add) {
        Ok(stdin) => stdin,
        Err(error) => return (bad(CONFIGURATION, &format!("{shown}: {error}"), "put it right before moving"), None),
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
    (told, Some(meta))
}

/// The daemon's own configuration, which overrides the shim's and is not read any more. `keys` are the shim's.
fn daemon(path: &Path, keys: &Value) -> Option<Finding> {
    let text = fs::read(path).ok()?;
    let shown = path.display();
    let Ok(Value::Object(own)) = serde_json::from_slice(&text) else {
        return Some(bad(DAEMON, &format!("{shown} is no JSON object"), "see what Multus makes of it"));
    };
    let honoured = |name: &str| KEYS.iter().any(|key| key.name == name && key.treatment == Treatment::Honoured);
    let moved = own.iter().filter(|(name, value)| honoured(name) && keys[name.as_str()] != **value);
    let moved: Vec<&str> = moved.map(|(name, _)| name.as_str()).collect();
    if moved.is_empty() {
        return Some(good(DAEMON, &format!("{shown} is not read any more, and has nothing that is missed")));
    }
    let detail = format!("{shown} is not read any more: {}", moved.join(", "));
    Some(finding(Level::Warning, DAEMON, &detail, "write these keys into the configuration that the runtime reads"))
}

/// Records of pods that are there, Multus's and ours.
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
    let of_ours = fs::read_dir(dir.join("nsm-cni")).into_iter().flatten().flatten().take(MOST);
    let ours = of_ours.filter(|entry| entry.path().extension().is_some_and(|end| end == "json")).count();
    let ours = format!("{ours} pods are ours, which Multus could not end");
    if damaged.is_empty() {
        return good(
            RECORDS,
            &format!("{shown}: {whole} pods of Multus's are ended and checked from its records; {ours}"),
        );
    }
    let detail = format!("{shown}: {whole} pods of Multus's, and not readable: {}; {ours}", damaged.join(", "));
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
    fn records_are_counted() {
        let dir = tempfile::TempDir::new().unwrap();
        let cni_dir = dir.path().join("multus");
        assert_eq!(records(&cni_dir).level(), Level::Ok);
        fs::create_dir_all(cni_dir.join("nsm-cni")).unwrap();
        for name in ["c3@eth0.json", "c3@eth0.results", ".lock"] {
            fs::write(cni_dir.join("nsm-cni").join(name), "").unwrap();
        }
        fs::write(cni_dir.join("c1"), "[]").unwrap();
        assert!(records(&cni_dir).detail.contains("1 pods of Multus's are"));
        assert!(records(&cni_dir).detail.ends_with("1 pods are ours, which Multus could not end"));
        fs::write(cni_dir.join("c2"), "[").unwrap();
        assert!(records(&cni_dir).detail.contains("not readable: c2"));
    }

    #[test]
    fn what_goes_with_the_daemon_is_told() {
        let dir = tempfile::TempDir::new().unwrap();
        let shim = json!({"cniVersion": "1.0.0", "type": "multus-shim", "clusterNetwork": "/host/x.conflist"});
        let told = removed(dir.path(), DAEMONS, &shim).unwrap();
        assert!(told.level() == Level::Warning && told.fix.contains("00-multus-nsm.conf"), "{told:?}");
        let told = removed(dir.path(), DAEMONS, &json!({"type": "multus"})).unwrap();
        assert!(told.detail.contains("--cleanup-config-on-exit"), "{told:?}");
        assert!(removed(dir.path(), COPY, &shim).is_none());
        fs::write(dir.path().join(COPY), "{}").unwrap();
        assert_eq!(removed(dir.path(), DAEMONS, &shim).unwrap().level(), Level::Ok);
        let file = dir.path().join("daemon-config.json");
        assert!(daemon(&file, &shim).is_none());
        let keys = r#"{"chrootDir": "/hostroot", "cniVersion": "1.0.0", "defaultNetworks": ["a"]}"#;
        fs::write(&file, keys).unwrap();
        assert!(daemon(&file, &shim).unwrap().detail.ends_with("any more: defaultNetworks"));
        fs::write(&file, r#"{"chrootDir": "/hostroot"}"#).unwrap();
        assert_eq!(daemon(&file, &shim).unwrap().level(), Level::Ok);
    }
}
