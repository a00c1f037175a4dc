//! The document lists every key as the code treats it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use nsm_npwg::{KEYS, REACHING, Treatment};

#[test]
fn keys_of_the_meta_plugin() {
    let document = document();
    let table = document.split("\n## ").find(|section| section.starts_with("Multus keys")).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let documented: BTreeMap<&str, &str> =
        rows.map(|(key, rest)| (key, rest.split(" |").next().unwrap_or_default())).collect();
    let known: BTreeMap<&str, &str> = KEYS
        .iter()
        .map(|key| {
            let treatment = match key.treatment {
                Treatment::Honoured => "honoured",
                Treatment::WithoutEffect(_) => "without effect",
                Treatment::Refused(_) => "refused",
            };
            (key.name, treatment)
        })
        .collect();
    assert_eq!(documented, known);
}

#[test]
fn what_definitions_may_not_have() {
    let document = document();
    let row = document.lines().find(|line| line.starts_with("| `kubeconfig`, `cniDir`")).unwrap();
    let documented: BTreeSet<&str> = row.split(", of the list").next().unwrap().split('`').skip(1).step_by(2).collect();
    assert_eq!(documented, BTreeSet::from(REACHING));
}

fn document() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/meta-plugin.md")).unwrap()
}
