//! The document lists every key as the code treats it.

use std::{collections::BTreeMap, fs, path::Path};

use nsm_npwg::{KEYS, Treatment};

#[test]
fn keys_of_the_meta_plugin() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/meta-plugin.md");
    let document = fs::read_to_string(path).unwrap();
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
