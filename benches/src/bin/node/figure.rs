//! One measured figure with its floor and its budget, and the report of all figures. Measures nothing. The folder has several
//! runs as one report.
//!
//! May use `sample`. Must not know what is measured.

pub mod runs;

use std::{fmt, fs, io, path::Path};

use serde::Serialize;

/// One row of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// The minimum on the same machine, measured in the same run and unit.
    pub floor: Option<f64>,
    /// Value divided by floor.
    pub ratio: Option<f64>,
    /// The maximum of the ratio or, without a floor, of the value.
    pub budget: Option<f64>,
    /// Whether the figure is within its budget; true without a budget.
    pub ok: bool,
    /// The least and the largest of several runs, of the ratio or, without a floor, of the value.
    pub spread: Option<(f64, f64)>,
}

impl Figure {
    /// A figure without a floor.
    pub fn plain(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            floor: None,
            ratio: None,
            budget: None,
            ok: true,
            spread: None,
        }
    }

    /// Sets the floor.
    #[must_use]
    pub fn over(mut self, floor: f64) -> Self {
        self.floor = Some(floor);
        self.ratio = Some(self.value / floor);
        self.judged()
    }

    /// Sets the maximum of the ratio (or of the value, without a floor).
    #[must_use]
    pub fn within(mut self, budget: f64) -> Self {
        self.budget = Some(budget);
        self.judged()
    }

    /// The ratio or, without a floor, the value.
    pub fn measured(&self) -> f64 {
        self.ratio.unwrap_or(self.value)
    }

    fn judged(mut self) -> Self {
        let measured = self.measured();
        // NaN is never within a budget.
        self.ok = self.budget.is_none_or(|budget| measured <= budget);
        self
    }

    fn verdict(&self) -> String {
        match self.budget {
            None => String::new(),
            Some(_) if self.ok => "kept".to_owned(),
            Some(budget) => format!(
                "missed by {:.0} %",
                (self.measured() / budget - 1.0) * 100.0
            ),
        }
    }
}

/// All figures of a run, in the order of measurement.
#[derive(Debug, Default)]
pub struct Report(pub Vec<Figure>);

impl Report {
    pub fn add(&mut self, figure: Figure) {
        self.0.push(figure);
    }

    /// How many figures have a budget, and how many of them are within it.
    pub fn kept(&self) -> (usize, usize) {
        let budgeted = self.0.iter().filter(|figure| figure.budget.is_some());
        let kept = budgeted.clone().filter(|figure| figure.ok);
        (budgeted.count(), kept.count())
    }

    /// Writes the figures as a JSON list.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(&self.0)?;
        text.push('\n');
        fs::write(path, text)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| figure | value | floor | ratio | all runs | budget | |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|---|")?;
        for figure in &self.0 {
            let number = |n: Option<f64>| n.map_or_else(String::new, short);
            let spread = figure.spread.map_or_else(String::new, |(least, most)| {
                format!("{}–{}", short(least), short(most))
            });
            writeln!(
                f,
                "| {} | {} {} | {} | {} | {spread} | {} | {} |",
                figure.name,
                short(figure.value),
                figure.unit,
                number(figure.floor),
                number(figure.ratio),
                number(figure.budget),
                figure.verdict(),
            )?;
        }
        Ok(())
    }
}

/// Three significant digits.
fn short(n: f64) -> String {
    match n.abs() {
        n if n >= 100.0 || n == 0.0 => format!("{n:.0}"),
        n if n >= 10.0 => format!("{n:.1}"),
        _ => format!("{n:.2}"),
    }
    .replace("-0.00", "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_judges_the_ratio_if_there_is_one_and_the_value_if_not() {
        assert!(Figure::plain("a", 3.0, "ms").over(2.0).within(1.5).ok);
        assert!(!Figure::plain("a", 3.1, "ms").within(1.5).over(2.0).ok);
        assert!(!Figure::plain("a", 3.0, "ms").within(2.0).ok);
        assert!(!Figure::plain("a", f64::NAN, "ms").within(2.0).ok);
    }

    #[test]
    fn a_missed_budget_shows_by_how_much() {
        let missed = Figure::plain("a", 3.0, "ms").within(2.0);
        assert_eq!(missed.verdict(), "missed by 50 %");
        let mut report = Report::default();
        report.add(missed);
        report.add(Figure::plain("b", 1.0, "ms"));
        assert_eq!(report.kept(), (1, 0));
        assert!(
            report
                .to_string()
                .contains("| a | 3.00 ms |  |  |  | 2.00 | missed by 50 % |")
        );
    }
}
