//! Kill campaigns: every boundary of a scenario must be hit and survived.

use lab::crash::campaign::{self, Scenario};

use crate::suite::Outcome;

/// The number of nodes at a time: most of a run is waiting.
pub const WORKERS: usize = 8;
/// Cooldowns outlast every run, so that an address without a cooldown is detected.
pub const COOLDOWN: (&str, &str) = ("IP_COOLDOWN_PERIOD", "900");

/// Kills at every boundary of the scenario; each must have been hit and survived.
pub fn survive(name: &str, scenario: &impl Scenario, workers: usize) -> Outcome {
    let report = campaign::run(scenario, workers)?;
    stdout::errln!(
        "{name}: {} of {} boundaries survived (repeated: {:?})\n{}",
        report.survived.len(),
        report.listed.len(),
        report.repeated,
        report.table(),
    );
    assert!(
        report.failed.is_empty(),
        "{name}:\n{}",
        report.failed.join("\n\n")
    );
    let (mut listed, mut survived) = (report.listed, report.survived);
    listed.sort();
    survived.sort();
    assert_eq!(listed, survived, "{name}: 100 % is required");
    Ok(())
}
