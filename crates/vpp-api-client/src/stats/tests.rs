//! A segment made here: as VPP lays it out, then damaged in every way.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::fake::stats::Segment;

/// Two interfaces, one gone between them, two threads.
fn usual() -> File {
    let mut segment = Segment::default();
    segment.scalar("/sys/heartbeat", 77);
    segment.unused();
    segment.names("/if/names", &["local0", "deleted", "memif0/7"]);
    segment.combined("/if/rx", &[&[0, 0, 9, 9, 10, 1000], &[0, 0, 0, 0, 5, 500]]);
    segment.simple("/if/drops", &[&[0, 0, 3], &[0, 0, 4]]);
    segment.simple("/err/memif-input/bad ring", &[&[6], &[0]]);
    segment.simple("/err/ip4-input/none", &[&[0], &[0]]);
    segment.link("/interfaces/memif0_7/rx", 3, 2);
    segment.empty("/empty");
    segment.file().unwrap()
}

fn over(file: File) -> Stats {
    let stats = Stats { memory: Memory::new(file).unwrap() };
    stats.memory.begin();
    stats
}

#[test]
fn counters_are_summed_over_threads() {
    let stats = over(usual());
    let interfaces = stats.interfaces().unwrap();
    assert_eq!(interfaces.len(), 2);
    let memif = &interfaces[1];
    assert_eq!((memif.sw_if_index, memif.name.as_str(), memif.drops), (2, "memif0/7", 7));
    assert_eq!(memif.rx, Combined { packets: 15, bytes: 1500 });
    assert_eq!(stats.errors().unwrap(), BTreeMap::from([("memif-input/bad ring".into(), 6)]));
    let all = stats.read(|_| true).unwrap();
    assert_eq!(all["/sys/heartbeat"], Value::Scalar(77));
    let linked = vec![vec![Combined { packets: 10, bytes: 1000 }], vec![Combined { packets: 5, bytes: 500 }]];
    assert_eq!(all["/interfaces/memif0_7/rx"], Value::Combined(linked));
    assert!(!all.contains_key("/empty") && stats.names().unwrap().contains(&"/empty".to_owned()));
}

#[test]
fn what_is_read_across_a_change_is_read_again() {
    let file = usual();
    let writer = file.try_clone().unwrap();
    let stats = over(file);
    let (stop, mut whole) = (AtomicBool::new(false), 0);
    let drops = stats.read(|name| name == "/if/drops").unwrap();
    assert_eq!(drops["/if/drops"].sum(2), 7);
    std::thread::scope(|scope| {
        // The directory disappears and comes back, as when VPP makes it anew.
        scope.spawn(|| {
            let mut directory = [0; 8];
            writer.read_exact_at(&mut directory, 32).unwrap();
            let mut epoch = 1_u64;
            while !stop.load(Ordering::Relaxed) {
                writer.write_all_at(&1_u64.to_ne_bytes(), 24).unwrap();
                writer.write_all_at(&0_u64.to_ne_bytes(), 32).unwrap();
                writer.write_all_at(&directory, 32).unwrap();
                epoch += 1;
                writer.write_all_at(&epoch.to_ne_bytes(), 16).unwrap();
                writer.write_all_at(&0_u64.to_ne_bytes(), 24).unwrap();
                std::thread::yield_now();
            }
        });
        for _ in 0..100 {
            match stats.interfaces() {
                Ok(interfaces) => {
                    assert_eq!(interfaces.len(), 2);
                    whole += 1;
                }
                Err(StatsError::Busy) => {}
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(whole > 0, "none was read whole");
}

#[test]
fn a_vpp_that_died_in_a_change_is_not_waited_for_without_end() {
    let file = usual();
    file.write_all_at(&1_u64.to_ne_bytes(), 24).unwrap();
    assert!(matches!(over(file).names(), Err(StatsError::Busy)));
}

#[test]
fn another_version_and_a_cut_file_are_errors() {
    let file = usual();
    file.write_all_at(&3_u64.to_ne_bytes(), 0).unwrap();
    assert!(matches!(over(file).names(), Err(StatsError::Version { found: 3, .. })));
    let file = usual();
    let stats = over(file.try_clone().unwrap());
    file.set_len(4096).unwrap();
    assert!(matches!(stats.interfaces(), Err(StatsError::Damaged { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_an_error_or_another_value(edits in proptest::collection::vec((any::<u16>(), any::<u64>()), 1..12)) {
        let file = usual();
        let length = file.metadata().unwrap().len();
        for (at, word) in edits {
            // Not the version, nor that a change is under way.
            let at = 32 + u64::from(at) % (length - 40);
            file.write_all_at(&word.to_ne_bytes(), at).unwrap();
        }
        let stats = over(file);
        let _ = stats.read(|_| true);
        let _ = stats.interfaces();
    }
}

fn hand_out(path: &Path, descriptors: &[BorrowedFd<'_>]) {
    let files = descriptors.iter().map(|of| File::from(of.try_clone_to_owned().unwrap())).collect();
    drop(crate::fake::stats::hand_out(path, files).unwrap());
}

#[test]
fn vpp_hands_out_one_descriptor_of_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let second = Duration::from_secs(5);
    let segment = usual();
    hand_out(&path("one"), &[segment.as_fd()]);
    assert_eq!(Stats::connect(path("one"), Duration::MAX).unwrap().interfaces().unwrap().len(), 2);
    hand_out(&path("none"), &[]);
    let none = Stats::connect(path("none"), second).unwrap_err().to_string();
    assert!(none.contains("no descriptor"), "{none}");
    hand_out(&path("two"), &[segment.as_fd(), segment.as_fd()]);
    let two = Stats::connect(path("two"), second).unwrap_err().to_string();
    assert!(two.contains("more than one"), "{two}");
    let null = File::open("/dev/null").unwrap();
    hand_out(&path("null"), &[null.as_fd()]);
    let other = Stats::connect(path("null"), second).unwrap_err().to_string();
    assert!(other.contains("no memory"), "{other}");
    let nobody = Stats::connect(path("nobody"), second).unwrap_err().to_string();
    assert!(nobody.contains("statseg"), "{nobody}");
}
