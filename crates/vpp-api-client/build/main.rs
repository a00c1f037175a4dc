//! Writes the typed messages and the return values from `api/*.txt`.
#![expect(clippy::format_push_string, clippy::format_collect, reason = "it runs once, on small strings")]

use std::path::{Path, PathBuf};
use std::{env, fs};

mod generate;
#[path = "../src/definition/model.rs"]
#[expect(dead_code, unreachable_pub, reason = "the library uses the rest, and shows it")]
mod model;
mod names;
mod retvals;
#[path = "../src/definition/text.rs"]
mod text;

/// In the order of the documentation; a type is defined where it is used first.
const FILES: &[&str] =
    &["core", "interface", "memif", "tap", "af_packet", "vxlan", "l2", "ip", "acl", "ping", "wireguard"];

fn main() {
    println!("cargo::rerun-if-changed=api");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/definition");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut definitions = model::Definitions::default();
    for name in FILES {
        let path = format!("api/{name}.txt");
        text::read(&load(Path::new(&path)), &mut definitions).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    save(&out.join("messages.rs"), &generate::messages(&definitions));
    save(&out.join("retvals.rs"), &retvals::generate(&load(Path::new("api/retvals.txt"))));
    let files: String = FILES
        .iter()
        .map(|name| format!("include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/api/{name}.txt\")),"))
        .collect();
    save(&out.join("files.rs"), &format!("[{files}]"));
}

fn load(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn save(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
