//! `test`: every suite, then one line of totals.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::run::run_and_read;
use crate::suites::{Counts, LINTS, Suite, TESTS};
use crate::tools::provide;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Install what is missing.
    pub(crate) install: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

struct Report {
    name: &'static str,
    totals: Totals,
    took: Duration,
    note: String,
}

pub(crate) fn test(args: &[String]) -> anyhow::Result<bool> {
    let mut options = Options { install: true };
    let mut filters = Vec::new();
    let all: Vec<&Suite> = LINTS.iter().chain(TESTS).collect();
    for arg in args {
        match arg.as_str() {
            "--no-install" => options.install = false,
            "--list" => {
                for suite in &all {
                    println!("{}", suite.name);
                }
                return Ok(true);
            }
            flag if flag.starts_with('-') => bail!("unknown option {flag}"),
            filter => filters.push(filter),
        }
    }
    // Who says a whole name means that suite, and not those as well that begin like it.
    let is_name = |word: &str| all.iter().any(|suite| suite.name == word);
    let matches = |name: &str, word: &str| if is_name(word) { name == word } else { name.contains(word) };
    let is_asked = |suite: &&Suite| filters.is_empty() || filters.iter().any(|word| matches(suite.name, word));
    let asked: Vec<&Suite> = all.iter().copied().filter(is_asked).collect();
    if asked.is_empty() {
        let names: Vec<&str> = all.iter().map(|suite| suite.name).collect();
        bail!("no suite is called {}: expected some of {}", filters.join(", "), names.join(", "));
    }
    let is_needed = |name: &str| asked.iter().any(|suite| suite.name == name || suite.after.contains(&name));
    let chosen: Vec<&Suite> = all.into_iter().filter(|suite| is_needed(suite.name)).collect();
    Ok(run_suites(&chosen, options))
}

/// Runs them all, whatever fails; true when none did.
pub(crate) fn run_suites(suites: &[&Suite], options: Options) -> bool {
    let mut reports = Vec::new();
    for suite in suites {
        println!("\n==== {} ====", suite.name);
        let report = run_suite(suite, options);
        println!("==== {}: {}{} ====", report.name, report.totals, report.note);
        reports.push(report);
    }
    let mut totals = Totals::default();
    println!("\nsuite            passed  failed skipped     seconds");
    for Report { name, totals: of, took, note } in &reports {
        println!("{name:<14} {:>8} {:>7} {:>7} {:>11.1}{note}", of.passed, of.failed, of.skipped, took.as_secs_f32());
        totals += *of;
    }
    println!("\n{totals}");
    totals.failed == 0
}

fn run_suite(suite: &Suite, options: Options) -> Report {
    let began = Instant::now();
    let missing: Vec<String> = suite.needs.iter().filter_map(|tool| provide(*tool, options.install).err()).collect();
    let (totals, note) = if missing.is_empty() {
        match run_and_read(&mut (suite.command)(), suite.bound) {
            Ok(ran) => (count(suite.counts, ran.success, &ran.stdout), String::new()),
            Err(error) => (Totals { failed: 1, ..Totals::default() }, format!("  {error:#}")),
        }
    } else {
        (Totals { skipped: 1, ..Totals::default() }, format!("  SKIPPED: {}", missing.join("; ")))
    };
    Report { name: suite.name, totals, took: began.elapsed(), note }
}

/// A suite that failed counts as a failure even when none of its tests did.
fn count(counts: Counts, success: bool, stdout: &str) -> Totals {
    let mut totals = Totals::default();
    if counts == Counts::Printed {
        for line in stdout.lines() {
            totals += printed(line).unwrap_or_default();
        }
    } else if success {
        totals.passed = 1;
    }
    if !success && totals.failed == 0 {
        totals.failed = 1;
    }
    totals
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; …` or `3 passed, 0 failed, 1 skipped`.
fn printed(line: &str) -> Option<Totals> {
    let (parts, separator) = match line.strip_prefix("test result: ") {
        Some(rest) => (rest.split_once(". ")?.1, ';'),
        None => (line, ','),
    };
    let mut numbers =
        parts.split(separator).zip(["passed", "failed", if separator == ';' { "ignored" } else { "skipped" }]);
    let mut next = || {
        let (part, word) = numbers.next()?;
        part.trim().strip_suffix(word)?.trim_end().parse::<u32>().ok()
    };
    Some(Totals { passed: next()?, failed: next()?, skipped: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_cargo_and_the_lab_print() {
        let cargo =
            "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s";
        assert_eq!(printed(cargo), Some(Totals { passed: 12, failed: 3, skipped: 1 }));
        assert_eq!(printed("7 passed, 0 failed, 2 skipped"), Some(Totals { passed: 7, failed: 0, skipped: 2 }));
        assert_eq!(printed("test a::b ... ok"), None);
        assert_eq!(printed("running 3 tests"), None);
    }

    #[test]
    fn a_suite_that_dies_without_a_word_has_failed() {
        assert_eq!(count(Counts::Printed, false, ""), Totals { failed: 1, ..Totals::default() });
        assert_eq!(count(Counts::Whole, true, ""), Totals { passed: 1, ..Totals::default() });
    }
}
