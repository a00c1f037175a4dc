//! Every fuzz target, without a fuzzer: over its seeds, and over mutations of them that are the same in each run.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use nsm_fuzz_targets::TARGETS;
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRng, TestRunner},
};

/// Mutated inputs of one target.
const CASES: u32 = 4000;
/// What formats are made of, so that mutations get past the first byte.
const WORDS: [&str; 24] = [
    "\0",
    "\n",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "/",
    "=",
    "%",
    "-1",
    "0",
    "1.1.0",
    "18446744073709551616",
    "null",
    "true",
    "1e999",
    "255.255.255.255/32",
    "fd00::/129",
    "\u{e9}",
    "\u{feff}",
    "{{ . }}",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    entries.map(|entry| stem(entry.unwrap().path())).collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = folder().join("seeds").join(target);
    let files: BTreeSet<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

/// A change of bytes.
#[derive(Debug, Clone)]
enum Edit {
    Flip(Index, u8),
    Set(Index, u8),
    Word(Index, usize),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
    Truncate(Index),
    /// From there on another seed's rest.
    Splice(Index, Index, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (at(), 0..WORDS.len()).prop_map(|(at, word)| Edit::Word(at, word)),
        (at(), 1..9_usize).prop_map(|(at, length)| Edit::Remove(at, length)),
        (at(), 1..33_usize, 1..5_usize).prop_map(|(at, length, times)| Edit::Repeat(at, length, times)),
        at().prop_map(Edit::Truncate),
        (at(), at(), at()).prop_map(|(at, seed, from)| Edit::Splice(at, seed, from)),
    ]
}

fn mutated(seeds: &[Vec<u8>], seed: Index, edits: &[Edit]) -> Vec<u8> {
    let mut bytes = seed.get(seeds).clone();
    for edit in edits {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match edit {
            Edit::Flip(at, bit) => {
                let at = place(at);
                bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << bit);
            }
            Edit::Set(at, new) => {
                let at = place(at);
                bytes.get_mut(at).into_iter().for_each(|byte| *byte = *new);
            }
            Edit::Word(at, word) => {
                let at = place(at);
                bytes.splice(at..at, WORDS[*word].bytes());
            }
            Edit::Remove(at, length) => {
                let at = place(at);
                bytes.drain(at..bytes.len().min(at + length));
            }
            Edit::Repeat(at, length, times) => {
                let at = place(at);
                let part = bytes[at..bytes.len().min(at + length)].repeat(*times);
                bytes.splice(at..at, part);
            }
            Edit::Truncate(at) => {
                let at = place(at);
                bytes.truncate(at);
            }
            Edit::Splice(at, seed, from) => {
                let at = place(at);
                bytes.truncate(at);
                let other = seed.get(seeds);
                bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
        }
    }
    bytes
}

fn run(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let seeds = seeds(name);
    for seed in &seeds {
        target(seed);
    }
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let inputs = (any::<Index>(), vec(edit(), 1..6)).prop_map(|(seed, edits)| mutated(&seeds, seed, &edits));
    let outcome = TestRunner::new_with_rng(config, rng).run(&inputs, |input| {
        target(&input);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{name}: {error}\nkeep the shortest input in fuzz/seeds/{name}/");
    }
}

macro_rules! corpora {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn each_target_is_run_here_and_by_the_fuzzer() {
            let all: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
            assert_eq!(BTreeSet::from([$(stringify!($name).to_owned()),*]), all);
            let folder = folder();
            assert_eq!(names(&folder.join("seeds")), all);
            assert_eq!(names(&folder.join("fuzz_targets")), all);
            let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
            for name in &all {
                let source = fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs"))).unwrap();
                let call = format!("libfuzzer_sys::fuzz_target!(|data: &[u8]| nsm_fuzz_targets::{name}(data));");
                assert!(source.contains(&call), "{name}: expected {call}");
                assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is no [[bin]]");
            }
        }
    };
}

corpora! {
    addresses annotations cidr_prefix cni_call cni_environment cni_result connection control_groups manifest memif_control memif_memory
    meta_configuration netlink
    network_definition network_selection network_services network_status record registry setting stored
    vpp_definitions vpp_message
}
