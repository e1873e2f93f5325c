//! `ipamd install`: installs the CNI plugin on the host.

use std::{env, path::PathBuf, process::ExitCode};

use proto::error_chain::chain;
use stdout::outln;

use super::print_error;
use crate::{
    config::{Environment, Strings as _},
    install::plugin::{self, Installed},
};

/// Copy the CNI plugin of this image into the container runtime's plugin directory
///
/// The DaemonSet runs this before the daemon, at every start: some operating systems empty the directory when they boot.
#[derive(Debug, clap::Args)]
pub(super) struct Install {
    /// The plugin. Default: the file `hawser` in the directory of this program
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// The target directory. Default: HOST_CNI_BIN_PATH, or /opt/cni/bin
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

impl Install {
    pub(super) fn run(self) -> ExitCode {
        stdout::ended("ipamd", self.install())
    }

    fn install(self) -> std::io::Result<ExitCode> {
        let beside = || Ok(env::current_exe()?.with_file_name(plugin::NAME));
        let source = self.plugin.map_or_else(beside, Ok::<_, std::io::Error>)?;
        let configured = || Environment.get("HOST_CNI_BIN_PATH").map(PathBuf::from);
        let directory = self.directory.or_else(configured);
        let directory = directory.unwrap_or_else(|| PathBuf::from("/opt/cni/bin"));
        match plugin::install(&source, &directory) {
            Ok(installed) => {
                let target = directory.join(plugin::NAME);
                let what = match installed {
                    Installed::Unchanged => "is up to date",
                    Installed::Written => "was written",
                };
                outln!("{} {what}", target.display())?;
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => Ok(print_error(&chain(&error))),
        }
    }
}
