//! Every command line of every document is typed in by a scenario of the suite `kubelet`, or it is said who does the same, or why nobody
//! can. A line, a section or a document that is new is in neither list, and fails.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use super::{between, read, root};
use lines::{Instead, OTHERS, TYPED};

#[path = "../../../conformance/kube/tests/kubelet/documented/lines.rs"]
mod lines;

const SCENARIOS: &str = "conformance/kube/tests/kubelet/documented.rs";

/// README and the like, all of `docs/`, and what crates say of themselves: a folder and those in it.
fn documents() -> Vec<String> {
    let inside = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(root().join(dir)).unwrap();
        entries.map(|entry| format!("{dir}{}", entry.unwrap().file_name().into_string().unwrap())).collect()
    };
    let crates = ["crates/", "examples/", "conformance/"].map(inside).concat();
    let crates = crates.iter().filter(|path| root().join(path).is_dir()).flat_map(|path| inside(&format!("{path}/")));
    let mut documents = [inside(""), inside("docs/"), inside("deploy/"), crates.collect()].concat();
    documents.retain(|path| Path::new(path).extension().is_some_and(|extension| extension == "md"));
    documents
}

/// Headings, and the commands of their blocks less the comments behind them.
fn commands(document: &str) -> Vec<(String, String)> {
    let (mut block, mut heading, mut commands) = (None, String::new(), Vec::new());
    for line in read(document).lines() {
        let prompted = || line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "));
        if let Some(language) = line.strip_prefix("```") {
            block = block.is_none().then(|| language.to_owned());
        } else if block.is_none() && line.starts_with('#') {
            line.trim_start_matches('#').trim().clone_into(&mut heading);
        } else if block.as_deref() == Some("console") {
            let Some(command) = prompted() else { continue };
            commands.push((heading.clone(), command.split(" #").next().unwrap_or(command).trim_end().to_owned()));
        } else {
            // Comments are in other blocks too.
            assert!(block.is_none() || !line.starts_with("$ "), "{document}: {line:?} is not in a block `console`");
        }
    }
    commands
}

#[test]
fn each_is_run_or_it_is_said_why_not() {
    let (mut typed, mut others) = (BTreeSet::new(), BTreeSet::new());
    for document in documents() {
        for (heading, command) in commands(&document) {
            if OTHERS.iter().any(|(of, line, _)| *of == document && *line == command) {
                others.insert((document.clone(), command));
            } else {
                assert!(
                    TYPED.iter().any(|(of, section, _)| *of == document && *section == heading),
                    "nobody runs {command:?} of {document}, {heading:?}: have a scenario of {SCENARIOS} do so, or say why not in \
                     documented/lines.rs beside it"
                );
                typed.insert((document.clone(), heading));
            }
        }
    }
    let pair = |(document, what): (&str, &str)| (document.to_owned(), what.to_owned());
    let listed: BTreeSet<_> = TYPED.iter().map(|(document, heading, _)| pair((document, heading))).collect();
    assert_eq!((typed, listed.len()), (listed, TYPED.len()), "sections without such a line, or named twice");
    let listed: BTreeSet<_> = OTHERS.iter().map(|(document, line, _)| pair((document, line))).collect();
    assert_eq!((others, listed.len()), (listed, OTHERS.len()), "lines that are in no document, or named twice");
}

#[test]
fn who_is_said_to_run_them_does() {
    let suite = read(SCENARIOS);
    let all = read("conformance/kube/tests/kubelet/main.rs");
    for (document, heading, scenario) in TYPED {
        assert!(all.contains(&format!("documented::{scenario},")), "{scenario} is no scenario");
        // Up to the next scenario: what it calls stands behind it.
        let begin = format!("pub(crate) fn {scenario}(");
        let story = between(&suite, &begin, "\npub(crate) fn ").next();
        let story = story.unwrap_or_else(|| panic!("no {scenario} in {SCENARIOS}"));
        assert!(story.contains(&format!("of({document:?}, {heading:?})")), "{scenario} is not {document}, {heading:?}");
    }
    for (document, line, instead) in OTHERS {
        match instead {
            Instead::Like(file, text, how) => {
                assert!(read(file).contains(text) && !how.is_empty(), "{file} has no {text:?}: {line} of {document}");
            }
            Instead::Not(why) => assert!(!why.is_empty(), "no reason: {line} of {document}"),
        }
    }
}

#[test]
fn suites_are_listed() {
    let line = "cargo xtask test --list";
    let listed = Command::new(env!("CARGO")).args(line.split(' ').skip(1)).current_dir(root()).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned() + &String::from_utf8_lossy(&listed.stderr);
    assert!(listed.status.success() && text.contains("kubelet"), "{line}: {text}");
}
