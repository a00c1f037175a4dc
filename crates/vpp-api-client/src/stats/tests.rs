//! A segment made here: as VPP lays it out, then damaged in every way.

use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    accept, bind, listen, sendmsg, socket_with,
};

use super::*;

/// Where VPP would have the segment.
const BASE: u64 = 0x13_0000_0000;

/// A segment as it grows.
struct Segment {
    bytes: Vec<u8>,
    directory: Vec<u8>,
}

impl Segment {
    fn new() -> Self {
        Self { bytes: vec![0; 4096], directory: Vec::new() }
    }

    /// A vector of some elements; VPP's pointer to it.
    fn vector(&mut self, elements: &[u8], length: usize) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        self.bytes.extend_from_slice(&u32::try_from(length).unwrap().to_ne_bytes());
        self.bytes.extend_from_slice(&[1, 0, 0, 0]);
        let at = self.bytes.len() as u64;
        self.bytes.extend_from_slice(elements);
        BASE + at
    }

    fn words(&mut self, words: &[u64], element: usize) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.vector(&bytes, words.len() * 8 / element)
    }

    fn entry(&mut self, kind: u32, value: u64, name: &str) {
        let mut entry = [0; 144];
        entry[..4].copy_from_slice(&kind.to_ne_bytes());
        entry[8..16].copy_from_slice(&value.to_ne_bytes());
        entry[16..16 + name.len()].copy_from_slice(name.as_bytes());
        self.directory.extend_from_slice(&entry);
    }

    fn counters(&mut self, kind: u32, threads: &[&[u64]], name: &str) {
        let element = if kind == 3 { 16 } else { 8 };
        let pointers: Vec<u64> = threads.iter().map(|of| self.words(of, element)).collect();
        let value = self.words(&pointers, 8);
        self.entry(kind, value, name);
    }

    fn file(mut self) -> File {
        let directory = std::mem::take(&mut self.directory);
        let pointer = self.vector(&directory, directory.len() / 144);
        for (at, word) in [2, BASE, 1, 0, pointer].into_iter().enumerate() {
            self.bytes[at * 8..at * 8 + 8].copy_from_slice(&word.to_ne_bytes());
        }
        let file = File::from(memfd_create("stats", MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(&self.bytes, 0).unwrap();
        file
    }
}

/// Two interfaces, one gone between them, two threads.
fn usual() -> File {
    let mut segment = Segment::new();
    segment.entry(1, 77, "/sys/heartbeat");
    segment.entry(0, 0, "");
    let names: Vec<u64> = ["local0", "", "memif0/7"]
        .iter()
        .map(|name| if name.is_empty() { 0 } else { segment.vector(name.as_bytes(), name.len()) })
        .collect();
    let names = segment.words(&names, 8);
    segment.entry(4, names, "/if/names");
    segment.counters(3, &[&[0, 0, 9, 9, 10, 1000], &[0, 0, 0, 0, 5, 500]], "/if/rx");
    segment.counters(2, &[&[0, 0, 3], &[0, 0, 4]], "/if/drops");
    segment.counters(2, &[&[6], &[0]], "/err/memif-input/bad ring");
    segment.counters(2, &[&[0], &[0]], "/err/ip4-input/none");
    segment.entry(6, 3 | 2 << 32, "/interfaces/memif0_7/rx");
    segment.entry(5, 0, "/empty");
    segment.file()
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
    let stop = AtomicBool::new(false);
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
                Ok(interfaces) => assert_eq!(interfaces.len(), 2),
                Err(StatsError::Busy) => {}
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
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
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    listen(&socket, 1).unwrap();
    let descriptors: Vec<File> = descriptors.iter().map(|of| File::from(of.try_clone_to_owned().unwrap())).collect();
    std::thread::spawn(move || {
        let peer = accept(&socket).unwrap();
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        if !borrowed.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
        }
        sendmsg(&peer, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
    });
}

#[test]
fn vpp_hands_out_one_descriptor_of_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let second = Duration::from_secs(5);
    let segment = usual();
    hand_out(&path("one"), &[segment.as_fd()]);
    assert_eq!(Stats::connect(path("one"), second).unwrap().interfaces().unwrap().len(), 2);
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
