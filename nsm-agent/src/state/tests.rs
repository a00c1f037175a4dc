use serde_json::json;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Thing {
    name: String,
}

impl Record for Thing {
    type Key = String;
    const FOLDER: &'static str = "things";

    fn key(&self) -> String {
        self.name.clone()
    }

    fn file_name(key: &String) -> String {
        key.clone()
    }
}

fn thing(name: &str) -> Thing {
    Thing { name: name.into() }
}

fn open(dir: &Path) -> (Records<Thing>, Found) {
    Records::open(dir, "boot-1").unwrap()
}

#[test]
fn records_are_there_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (records, _) = open(dir.path());
    records.put_blocking(thing("a")).unwrap();
    records.put_blocking(thing("b")).unwrap();
    records.remove_blocking(&"b".into()).unwrap();
    records.remove_blocking(&"b".into()).unwrap();
    let (records, found) = open(dir.path());
    assert_eq!(records.all(), [Arc::new(thing("a"))]);
    assert_eq!(found, Found::default());
}

#[test]
fn a_damaged_record_is_set_aside_and_the_rest_load() {
    let dir = tempfile::tempdir().unwrap();
    let (records, _) = open(dir.path());
    records.put_blocking(thing("good")).unwrap();
    fs::write(dir.path().join("things/bad.json"), "{\"format\":1,").unwrap();
    fs::write(dir.path().join("things/cut.new"), "").unwrap();
    let (records, found) = open(dir.path());
    assert_eq!(records.len(), 1);
    assert_eq!(found.damaged, [dir.path().join("things/bad.damaged")]);
    assert!(found.damaged[0].exists());
    assert!(!dir.path().join("things/cut.new").exists());
    assert_eq!(open(dir.path()).1, Found::default());
}

#[test]
fn an_earlier_boot_is_forgotten_and_a_newer_format_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (records, _) = open(dir.path());
    records.put_blocking(thing("old")).unwrap();
    let (records, found) = Records::<Thing>::open(dir.path(), "boot-2").unwrap();
    assert!(records.is_empty());
    assert_eq!(found.earlier_boot, 1);
    let newer = json!({"format": FORMAT + 1, "boot_id": "boot-1", "record": {"shape": "unknown"}});
    fs::write(dir.path().join("things/newer.json"), newer.to_string()).unwrap();
    let error = Records::<Thing>::open(dir.path(), "boot-2").err().unwrap().to_string();
    assert!(error.contains("format 2") && error.contains("knows up to 1"), "{error}");
}

#[test]
fn odd_keys_have_plain_and_different_files() {
    let names: Vec<String> = ["a/b", "a_b", "../x", &"x".repeat(300), &"x".repeat(301)]
        .iter()
        .map(|key| Connected::file_name(&(*key).to_owned()))
        .collect();
    for name in &names {
        assert!(!name.contains('/') && !name.starts_with('.') && name.len() <= 200, "{name}");
    }
    assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
}
