//! What a figure is held against, and the table of both.

/// What a figure must reach, and what it should.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// At most.
    Most { must: f64, aim: f64 },
    /// At least.
    Least { must: f64, aim: f64 },
    /// It explains others.
    None,
}

/// The medians of what was measured.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Line>);

#[derive(Debug)]
struct Line {
    what: &'static str,
    unit: &'static str,
    figures: Vec<f64>,
    goal: Goal,
}

impl Report {
    /// One more figure of a row.
    pub(crate) fn add(&mut self, what: &'static str, unit: &'static str, figure: f64, goal: Goal) {
        eprintln!("{what}: {figure:.2} {unit}");
        match self.0.iter_mut().find(|line| line.what == what) {
            Some(line) => line.figures.push(figure),
            None => self.0.push(Line { what, unit, figures: vec![figure], goal }),
        }
    }

    /// Prints all rows; which of them miss what they must reach.
    pub(crate) fn print(&self) -> Vec<&'static str> {
        println!("| what | median | must | aim | reached |\n|---|---|---|---|---|");
        let mut missed = Vec::new();
        for Line { what, unit, figures, goal } in &self.0 {
            let figure = median(figures);
            let (sign, must, aim, reached) = match *goal {
                Goal::None => {
                    println!("| {what} | {figure:.2} {unit} | | | |");
                    continue;
                }
                Goal::Most { must, aim } => ('≤', must, aim, (figure <= must, figure <= aim)),
                Goal::Least { must, aim } => ('≥', must, aim, (figure >= must, figure >= aim)),
            };
            let reached = match reached {
                (_, true) => "aim",
                (true, false) => "must",
                (false, false) => {
                    missed.push(*what);
                    "**missed**"
                }
            };
            println!("| {what} | {figure:.2} {unit} | {sign} {must} | {sign} {aim} | {reached} |");
        }
        missed
    }
}

/// The middle one of some figures.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
