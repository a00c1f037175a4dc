//! The table, the verdicts and the JSON.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use crate::stats::Summary;

/// What a figure is held against.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum Goal {
    /// At most.
    Most { must: f64, aim: f64 },
    /// At least.
    Least { must: f64, aim: f64 },
}

/// One figure with its goal; for ratios, the figure is the ratio.
#[derive(Debug, Clone, Serialize)]
struct Verdict {
    what: String,
    unit: &'static str,
    figure: f64,
    goal: Goal,
    reached: Reached,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Reached {
    Aim,
    Must,
    Missed,
}

#[derive(Debug, Serialize)]
struct Series {
    what: String,
    who: String,
    unit: &'static str,
    #[serde(flatten)]
    summary: Summary,
}

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    only: Option<String>,
    series: Vec<Series>,
    verdicts: Vec<Verdict>,
}

impl Report {
    pub(crate) fn new(only: Option<String>) -> Self {
        Self { only, series: Vec::new(), verdicts: Vec::new() }
    }

    /// Whether a row of that name was asked for.
    pub(crate) fn wants(&self, what: &str) -> bool {
        self.only.as_ref().is_none_or(|only| what.contains(only.as_str()) || only.contains(what))
    }

    /// Takes in a series; its median.
    pub(crate) fn series(&mut self, what: &str, who: &str, unit: &'static str, figures: &[f64]) -> Option<f64> {
        let summary = Summary::of(figures)?;
        eprintln!("{what} {who}: {:.2} {unit}", summary.median);
        self.series.push(Series { what: what.into(), who: who.into(), unit, summary });
        Some(summary.median)
    }

    /// Holds a figure against its goal.
    pub(crate) fn judge(&mut self, what: &str, unit: &'static str, figure: f64, goal: Goal) {
        let reached = match goal {
            Goal::Most { aim, .. } if figure <= aim => Reached::Aim,
            Goal::Least { aim, .. } if figure >= aim => Reached::Aim,
            Goal::Most { must, .. } if figure <= must => Reached::Must,
            Goal::Least { must, .. } if figure >= must => Reached::Must,
            Goal::Most { .. } | Goal::Least { .. } => Reached::Missed,
        };
        self.verdicts.push(Verdict { what: what.into(), unit, figure, goal, reached });
    }

    /// Whether anything missed what it must reach.
    pub(crate) fn missed(&self) -> bool {
        self.verdicts.iter().any(|verdict| verdict.reached == Reached::Missed)
    }

    pub(crate) fn print(&self) {
        println!("\n| what | who | n | min | median | p95 | unit |\n|---|---|---|---|---|---|---|");
        for Series { what, who, unit, summary: Summary { n, min, median, p95 } } in &self.series {
            println!("| {what} | {who} | {n} | {min:.2} | {median:.2} | {p95:.2} | {unit} |");
        }
    }

    pub(crate) fn verdicts(&self) {
        println!("\n| what | measured | must | aim | reached |\n|---|---|---|---|---|");
        for Verdict { what, unit, figure, goal, reached } in &self.verdicts {
            let (sign, must, aim) = match goal {
                Goal::Most { must, aim } => ('≤', must, aim),
                Goal::Least { must, aim } => ('≥', must, aim),
            };
            let reached = match reached {
                Reached::Aim => "aim",
                Reached::Must => "must",
                Reached::Missed => "**missed**",
            };
            println!("| {what} | {figure:.2} {unit} | {sign} {must} | {sign} {aim} | {reached} |");
        }
    }

    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let text = serde_json::to_string_pretty(&json!({ "series": self.series, "verdicts": self.verdicts }))?;
        Ok(fs::write(path, text + "\n")?)
    }
}
