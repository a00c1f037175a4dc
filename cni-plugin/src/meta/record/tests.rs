use std::thread;

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
        boot: boot().unwrap(),
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
    let mut progress = Progress::of(&record("c"));
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
fn a_wait_for_a_lock_sleeps_and_has_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path());
    let held = store.hold(&env("c"), soon()).unwrap();
    let told = store.hold(&env("c"), Instant::now() + std::time::Duration::from_millis(50)).unwrap_err();
    assert!(told.code == code::TRY_AGAIN && told.msg.contains("see what its plugins wait for (fuser"), "{told}");
    let inode = fs::metadata(held.lock_path()).unwrap().ino().to_string();
    thread::scope(|scope| {
        let next = scope.spawn(|| store.hold(&env("c"), soon()).is_ok());
        // The kernel knows who waits (proc_locks(5)): the one above, for nothing, and this one.
        let sleeps = |line: &&str| line.contains("-> OFDLCK") && line.contains(&format!(":{inode} "));
        while fs::read_to_string("/proc/locks").unwrap().lines().filter(sleeps).count() < 2 {
            assert!(!next.is_finished());
            thread::yield_now();
        }
        drop(held);
        assert!(next.join().unwrap());
    });
}

#[test]
fn what_is_ended_of_a_record_is_not_there_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let held = Store::of(dir.path()).hold(&env("c"), soon()).unwrap();
    let network = |ifname: &str| {
        let list = serde_json::json!({"name": "n", "plugins": []});
        serde_json::from_value(serde_json::json!({"name": "n", "ifname": ifname, "list": list})).unwrap()
    };
    let record = record("c").with(vec![network("eth0"), network("net1")]);
    held.put(&record).unwrap();
    let mut progress = Progress { complete: true, ..Progress::of(&record) }.ending(&record);
    progress.ended.push("net1".into());
    held.put_progress(&progress);
    let Found::Record(found, made) = held.load() else { panic!() };
    assert_eq!((found.networks, made.complete), (vec![network("eth0")], false));
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
fn only_what_is_certain_makes_a_namespace_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut record = record("c");
    let mut at = |path: &str| {
        record.netns = path.to_owned();
        record.clone()
    };
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    assert!(at(&path("gone")).has_lost_its_namespace());
    assert!(!at(&path("elsewhere/x")).has_lost_its_namespace(), "its folder is not there either");
    fs::write(path("mounted-elsewhere"), "").unwrap();
    assert!(!at(&path("mounted-elsewhere")).has_lost_its_namespace(), "no namespace");
    let mut own = at("/proc/self/ns/net");
    assert!(own.has_lost_its_namespace(), "another one");
    let now = fs::metadata("/proc/self/ns/net").unwrap();
    own.netns_id = format!("{}-{}", now.dev(), now.ino());
    assert!(!own.has_lost_its_namespace());
    own.boot = "another".into();
    assert!(own.has_lost_its_namespace());
}

#[test]
fn results_of_another_add_are_not_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let held = Store::of(dir.path()).hold(&env("c"), soon()).unwrap();
    held.put(&record("c")).unwrap();
    held.put_progress(&Progress { boot: "another".into(), complete: true, ..Progress::default() });
    let Found::Record(_, progress) = held.load() else { panic!() };
    assert!(!progress.complete);
}

#[test]
fn what_is_made_and_what_is_collected_exclude_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path());
    let making = [store.making("n", soon()).unwrap(), store.making("n", soon()).unwrap()];
    thread::scope(|scope| {
        let collecting = scope.spawn(|| store.collecting("n", soon()).unwrap());
        drop(making);
        let _collecting = collecting.join().unwrap();
        let error = store.making("n", Instant::now()).unwrap_err();
        assert!(error.code == code::TRY_AGAIN && error.msg.contains("GC of network \"n\" runs"), "{}", error.msg);
        assert_eq!(store.collecting("n", Instant::now()).unwrap_err().code, code::TRY_AGAIN);
        store.making("another", Instant::now()).unwrap();
    });
    store.making("n", Instant::now()).unwrap();
}

#[test]
fn who_makes_for_long_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path());
    let _making = store.making("n", soon()).unwrap();
    let _collecting = store.collecting("n", Instant::now()).unwrap();
    assert_eq!(store.making("n", Instant::now()).unwrap_err().code, code::TRY_AGAIN);
}

#[test]
fn what_a_killed_call_left_is_waited_for_and_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path());
    drop(store.hold(&env("c"), soon()).unwrap());
    let path = store.loose(&env("c")).lock_path();
    // As what has inherited the descriptor of a call that is gone.
    let left = fs::File::create(&path).unwrap();
    left.lock().unwrap();
    assert_eq!(store.hold(&env("c"), Instant::now()).unwrap_err().code, code::TRY_AGAIN);
    let long_ago = SystemTime::now() - Duration::from_mins(6);
    left.set_modified(long_ago).unwrap();
    let held = store.hold(&env("c"), Instant::now()).unwrap();
    assert!(store.hold(&env("c"), Instant::now()).is_err(), "it is held, in a file of its own");
    drop(held);
    assert!(!path.exists());
    // One that ends while it is waited for.
    let left = fs::File::create(&path).unwrap();
    left.lock().unwrap();
    thread::scope(|scope| {
        let next = scope.spawn(|| store.hold(&env("c"), soon()).is_ok());
        drop(left);
        assert!(next.join().unwrap());
    });
}

#[test]
fn what_cannot_be_read_is_not_absent() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path());
    store.hold(&env("c"), soon()).unwrap().put(&record("c")).unwrap();
    assert_eq!(store.all(), (vec![record("c")], false));
    fs::create_dir(dir.path().join(FOLDER).join("x@eth0.json")).unwrap();
    assert_eq!(store.all(), (vec![record("c")], true));
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(Store::of(&file).all(), (Vec::new(), true), "a folder that cannot be read is not empty");
}

#[test]
fn waiting_for_a_lock_ends() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path());
    let _held = store.hold(&env("c"), soon()).unwrap();
    let error = store.hold(&env("c"), Instant::now()).unwrap_err();
    assert!(error.code == code::TRY_AGAIN && error.msg.contains("another call of container c"), "{}", error.msg);
}
