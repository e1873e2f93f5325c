//! `ipamd settings --from-daemonset FILE`: the settings of an installed AWS VPC CNI as values of Hawser's chart.
//!
//! May use `config`. Must not know the chart's other values.

mod export;

use std::{fs, path::PathBuf, process::ExitCode};

use stdout::out;

use super::print_error;
use export::{Exported, export};

/// Convert the settings of the AWS VPC CNI into values for the chart
///
/// FILE is its DaemonSet as JSON: kubectl -n kube-system get daemonset aws-node -o json. Settings without an equivalent are
/// listed in comments. The command fails if one of them would keep the daemon from starting.
#[derive(Debug, clap::Args)]
pub(super) struct Settings {
    /// The DaemonSet, as JSON
    #[arg(long, value_name = "FILE")]
    from_daemonset: PathBuf,
}

impl Settings {
    pub(super) fn run(self) -> ExitCode {
        let path = self.from_daemonset.display();
        let text = match fs::read_to_string(&self.from_daemonset) {
            Ok(text) => text,
            Err(error) => return print_error(&format!("cannot read {path}: {error}")),
        };
        let exported: Exported = match export(&text) {
            Ok(exported) => exported,
            Err(why) => return print_error(&format!("{path}: {why}")),
        };
        let shown = out!("{}", exported.text);
        let code = match exported.refused.as_slice() {
            [] => ExitCode::SUCCESS,
            refused => print_error(&format!(
                "the daemon does not start with {}: see the comments",
                refused.join(", ")
            )),
        };
        stdout::ended("ipamd", shown.map(|()| code))
    }
}
