//! `retvals.txt` as an enum.

use std::fmt::Write;

use crate::names::camel;

pub(crate) fn generate(text: &str) -> String {
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let (words, advice) = line.split_once("//").unwrap_or((line, ""));
        let (number, name) = words.trim().split_once(' ').unwrap_or_else(|| panic!("retvals.txt: {line:?}"));
        let number: i32 = number.parse().unwrap_or_else(|_| panic!("retvals.txt: {line:?}"));
        rows.push((number, name, camel(name), advice.trim()));
    }
    let mut out = String::from(
        "/// What VPP answers to a request, with VPP's names.\n\
         #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]\n#[non_exhaustive]\npub enum Retval {\n\
         /// 0: done.\nOk,\n",
    );
    for (number, name, variant, advice) in &rows {
        let dot = if advice.is_empty() { String::new() } else { format!(": {advice}") };
        writeln!(out, "/// {number}, `{name}`{dot}.\n{variant},").expect("a string takes all");
    }
    out += "/// A number without a name here.\nOther(i32),\n}\n\n/// Number, value, name, advice.\nconst KNOWN: &[(i32, Retval, &str, &str)] = &[\n";
    for (number, name, variant, advice) in &rows {
        writeln!(out, "({number}, Retval::{variant}, {name:?}, {advice:?}),").expect("a string takes all");
    }
    out + "];\n"
}
