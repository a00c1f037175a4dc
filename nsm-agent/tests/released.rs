//! What an earlier version left on a node: this version reads it, and writes what that version reads.
//!
//! The files of `released/VERSION/` were written in the format of that version and do not change. A version that adds to the format adds a
//! folder; one that is more than a minor version old can go.

use std::{fs, path::Path};

use nsm_agent::{
    fuzzing,
    manager::OwedClose,
    state::{Attachment, Connected, Inherited, PodAdd, Record},
};
use nsm_cni_types::pods::PodRecord;
use serde_json::{Value, json};

const VERSIONS: [&str; 1] = ["0.1"];
const BOOT: &str = "b";

/// The files of a folder of a version.
fn files(version: &str, folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/released").join(version).join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = entries.map(|entry| {
        let path = entry.unwrap().path();
        (path.display().to_string(), fs::read(&path).unwrap())
    });
    let files: Vec<_> = files.collect();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

/// What an earlier version needs of a value: everything that it wrote itself, as it wrote it. It passes over what it does not know.
fn has_all_of(now: &Value, then: &Value, place: &str) {
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => {
            for (key, then) in then {
                let now = now.get(key).unwrap_or(&Value::Null);
                has_all_of(now, then, &format!("{place}.{key}"));
            }
        }
        (Value::Array(now), Value::Array(then)) => {
            assert_eq!(now.len(), then.len(), "{place}");
            now.iter().zip(then).for_each(|(now, then)| has_all_of(now, then, place));
        }
        _ => assert_eq!(now, then, "{place}: what was read is not written again as it was"),
    }
}

fn records<R: Record>() {
    for version in VERSIONS {
        for (path, text) in files(version, R::FOLDER) {
            let record = fuzzing::record::<R>(&text, BOOT).unwrap_or_else(|| panic!("{path} is not read"));
            let written = json!({ "format": 1, "boot_id": BOOT, "record": record });
            has_all_of(&written, &serde_json::from_slice(&text).unwrap(), &path);
        }
    }
}

#[test]
fn records_of_earlier_versions_are_read_and_written_so_that_these_read_them() {
    records::<Connected>();
    records::<Attachment>();
    records::<PodAdd>();
    records::<Inherited>();
    records::<OwedClose>();
}

#[test]
fn the_format_is_the_one_that_earlier_versions_read() {
    // They refuse to start with a newer one: raising it ends rolling back.
    assert_eq!(nsm_agent::state::FORMAT, 1);
}

#[test]
fn the_plugins_records_of_sandboxes() {
    for version in VERSIONS {
        for (path, text) in files(version, "sandboxes") {
            let record = PodRecord::parse(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
            let written: Value = serde_json::from_slice(record.to_json().as_bytes()).unwrap();
            has_all_of(&written, &serde_json::from_slice(&text).unwrap(), &path);
        }
    }
}

#[test]
fn entries_of_the_registrys_database() {
    for version in VERSIONS {
        for (path, bytes) in files(version, "registry") {
            let is_read = if path.ends_with("/service") {
                fuzzing::registry::is_service(&bytes, BOOT)
            } else {
                fuzzing::registry::is_endpoint(&bytes, BOOT)
            };
            assert!(is_read, "{path}");
        }
    }
}
