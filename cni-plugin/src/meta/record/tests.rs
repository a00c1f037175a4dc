use nsm_cni_types::Command;

use super::*;

fn env(container: &str) -> Environment {
    Environment {
        command: Command::Del,
        container_id: container.into(),
        netns: "/run/netns/x".into(),
        ifname: "eth0".into(),
        args: String::new(),
        netns_override: false,
    }
}

fn soon() -> Instant {
    Instant::now() + std::time::Duration::from_mins(1)
}

fn record(container: &str) -> Record {
    let env = env(container);
    Record {
        format: FORMAT,
        container_id: env.container_id,
        ifname: env.ifname,
        network: "n".into(),
        netns: env.netns,
        netns_id: "4-5".into(),
        boot: boot(),
        bin_dir: "/opt/cni/bin".into(),
        networks: Vec::new(),
    }
}

#[test]
fn what_is_written_is_read_and_nothing_stays_of_what_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path());
    let held = store.hold(&env("c"), soon()).unwrap();
    assert!(matches!(held.load(), Found::Nothing));
    held.put(&record("c")).unwrap();
    let mut progress = Progress::begun();
    progress.results.insert("eth0".into(), serde_json::json!({"ips": []}));
    held.put_progress(&progress);
    let Found::Record(found, made) = held.load() else { panic!() };
    assert_eq!((*found, made), (record("c"), progress));
    drop(held);
    assert_eq!(store.all().0.len(), 1);
    let names: Vec<String> =
        fs::read_dir(dir.path().join(FOLDER)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    store.hold(&env("c"), soon()).unwrap().remove().unwrap();
    assert_eq!(fs::read_dir(dir.path().join(FOLDER)).unwrap().count(), 0);
}

#[test]
fn one_at_a_time_each_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path());
    let inside = std::sync::atomic::AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let held = store.hold(&env("c"), soon()).unwrap();
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    thread::yield_now();
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    drop(held);
                }
            });
        }
    });
    let held = store.hold(&env("c"), soon()).unwrap();
    held.put(&record("c")).unwrap();
    assert_eq!(store.idle().count(), 0, "it is held");
    drop(held);
    assert_eq!(store.idle().count(), 1);
}

#[test]
fn a_damaged_or_newer_record_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path());
    let held = store.hold(&env("c"), soon()).unwrap();
    held.put(&record("c")).unwrap();
    for text in ["", "{", "{\"format\":2}"] {
        fs::write(held.path(), text).unwrap();
        assert!(matches!(held.load(), Found::Damaged(_)), "{text:?}");
    }
    assert!(store.all().1);
    let first = held.set_aside();
    assert!(matches!(held.load(), Found::Nothing));
    // Another one is put beside it.
    fs::write(held.path(), "another").unwrap();
    let second = held.set_aside();
    let texts = [&first, &second].map(|path| fs::read_to_string(path).unwrap());
    assert_eq!(texts, ["{\"format\":2}", "another"]);
    assert!(store.all() == (Vec::new(), false), "what is set aside is of nobody that runs");
}

#[test]
fn a_namespace_of_another_boot_or_another_number_is_gone() {
    let mut record = record("c");
    assert!(record.has_lost_its_namespace(), "no such path");
    let now = fs::metadata("/proc/self/ns/net").unwrap();
    record.netns = "/proc/self/ns/net".into();
    record.netns_id = format!("{}-{}", now.dev(), now.ino());
    assert!(!record.has_lost_its_namespace());
    record.boot = "another".into();
    assert!(record.has_lost_its_namespace());
}

#[test]
fn what_cannot_be_read_is_not_absent() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path());
    store.hold(&env("c"), soon()).unwrap().put(&record("c")).unwrap();
    assert_eq!(store.all(), (vec![record("c")], false));
    fs::create_dir(dir.path().join(FOLDER).join("x@eth0.json")).unwrap();
    assert_eq!(store.all(), (vec![record("c")], true));
}

#[test]
fn waiting_for_a_lock_ends() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path());
    let _held = store.hold(&env("c"), soon()).unwrap();
    let error = store.hold(&env("c"), Instant::now()).unwrap_err();
    assert!(error.code == code::TRY_AGAIN && error.msg.contains("another call of container c"), "{}", error.msg);
}
