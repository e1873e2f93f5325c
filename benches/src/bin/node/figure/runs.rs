//! Several runs as one report, and what has moved since the last one. Measures nothing.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;

use super::{Figure, Report};
use crate::sample::Sample;

/// A smaller change is not worth a line.
const MOVED: f64 = 0.1;

/// The medians of all runs, each with the smallest and the largest.
pub fn combine(runs: &[Report]) -> Report {
    let Some((first, _)) = runs.split_first() else {
        return Report::default();
    };
    let combined = first.0.iter().map(|figure| {
        let all = runs.iter().flat_map(|run| &run.0);
        let same: Vec<&Figure> = all.filter(|other| other.name == figure.name).collect();
        let median = |of: fn(&Figure) -> Option<f64>| {
            let mut sample = Sample::default();
            sample.extend(same.iter().filter_map(|figure| of(figure)));
            sample.median()
        };
        let mut combined = Figure::plain(
            &*figure.name,
            median(|figure| Some(figure.value)),
            figure.unit,
        );
        if figure.floor.is_some() {
            combined = combined.over(median(|figure| figure.floor));
            combined.ratio = Some(median(|figure| figure.ratio));
        }
        if let Some(budget) = figure.budget {
            combined = combined.within(budget);
        }
        let measured = same.iter().map(|figure| figure.measured());
        let least = measured.clone().fold(f64::INFINITY, f64::min);
        let most = measured.fold(f64::NEG_INFINITY, f64::max);
        combined.spread = (same.len() > 1).then_some((least, most));
        combined
    });
    Report(combined.collect())
}

/// A figure of a report that was saved.
#[derive(Debug, Deserialize)]
struct Earlier {
    name: String,
    value: f64,
    ratio: Option<f64>,
}

/// What differs from the report at this path, a line for each figure. Nothing if there is no such report.
pub fn moved(before: &Path, now: &Report) -> Vec<String> {
    let text = fs::read_to_string(before).unwrap_or_default();
    let earlier: Vec<Earlier> = serde_json::from_str(&text).unwrap_or_default();
    let earlier: BTreeMap<_, _> = earlier
        .into_iter()
        .map(|figure| (figure.name, figure.ratio.unwrap_or(figure.value)))
        .collect();
    let changes = now.0.iter().filter_map(|figure| {
        let (was, is) = (*earlier.get(&figure.name)?, figure.measured());
        let change = is / was - 1.0;
        (change.abs() > MOVED).then(|| {
            let percent = change * 100.0;
            format!("{}: {was:.2} → {is:.2} ({percent:+.0} %)", figure.name)
        })
    });
    changes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(value: f64, floor: f64) -> Report {
        let figure = Figure::plain("ADD", value, "ms").over(floor).within(1.3);
        Report(vec![figure, Figure::plain("calls", 3.0, "")])
    }

    #[test]
    fn runs_are_judged_by_the_median_of_their_ratios() {
        let runs = [run(1.0, 1.0), run(2.6, 2.0), run(1.5, 1.0)];
        let report = combine(&runs);
        assert_eq!(report.0.len(), 2);
        let add = &report.0[0];
        assert_eq!((add.value, add.floor), (1.5, Some(1.0)));
        assert_eq!(add.ratio, Some(1.3));
        assert!(add.ok);
        assert_eq!(add.spread, Some((1.0, 1.5)));
        assert_eq!(combine(&runs[..1]).0[0].spread, None);
    }

    #[test]
    fn only_what_moved_is_named() {
        let directory = std::env::temp_dir().join(format!("hawser-runs-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("report.json");
        run(1.0, 1.0).save(&path).unwrap();
        assert_eq!(moved(&path, &run(1.05, 1.0)), Vec::<String>::new());
        assert_eq!(moved(&path, &run(2.0, 1.6)), ["ADD: 1.00 → 1.25 (+25 %)"]);
        fs::remove_dir_all(&directory).unwrap();
        assert!(moved(&path, &run(2.0, 1.0)).is_empty());
    }
}
