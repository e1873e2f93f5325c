//! `ipamd doctor`: its options, its output and its exit status. Looking and judging is [`crate::tools::doctor`]'s.

use std::{path::PathBuf, process::ExitCode};

use clap::ValueEnum;
use stdout::{errln, out, outln};

use super::USAGE;
use crate::{
    config::{Config, Environment, Strings as _},
    tools::doctor::{Check, Places, Report, Severity, bundle, examine},
};

const MANUAL: &str = "\
WHAT IS LOOKED AT
  conflist      the runtime takes our network configuration, and it is whole
  plugin        the runtime finds the plugin and may execute it
  daemon        it answers at its socket
  pool          what it says of its growth, its waiting pods and its limit
  max-pods      kubelet takes no more pods than there are addresses
  kernel        it was built with what pods' network is made of
  sysctl        the node forwards packets
  links         each ENI has a link, up, of the right MTU, with a loose source check
  rules         each ENI's rules are there, and no other program's come before them
  routes        each pod has a route
  nftables      our table is there, and no other network plugin's
  interference  network managers and MAC policies
  imds          the instance metadata service gives a token
  clock         the node's clock, against the metadata service's
  iam           EC2 permissions, action by action, by dry run
  subnets       free addresses
  hop limit     how far the metadata service's answers travel

WHERE TO RUN IT
  In the host's network namespace, as the daemon does; in the daemon's container, say where the host's \
file system is mounted (--root). Settings are the daemon's: WARM_IP_TARGET, HAWSER_RUN_DIR and so on.

EXIT STATUS
  0  nothing that makes pods suffer; there may be warnings
  1  at least one failure";

/// Look at this node from outside in, and say what is wrong and what to do about it
///
/// Changes nothing. Each finding says what is wrong, by which evidence, what comes of it and what helps.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub(super) struct Doctor {
    /// Where the host's file system is, seen from here
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "/",
        hide_default_value = true
    )]
    root: PathBuf,
    /// The runtime's configuration directory; HOST_CNI_CONFDIR_PATH, or /etc/cni/net.d, unless given
    #[arg(long, value_name = "DIRECTORY")]
    cni_conf_dir: Option<PathBuf>,
    /// Where the runtime looks for plugins; /opt/cni/bin unless given
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "/opt/cni/bin",
        hide_default_value = true
    )]
    cni_bin_dir: PathBuf,
    /// Write a support archive (.tar.gz) as well, without pods' names and secrets
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// How the findings are written: text unless given
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Form::Text, hide_default_value = true)]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    Text,
    /// One object
    Json,
}

impl Doctor {
    pub(super) fn run(self) -> ExitCode {
        let config = match Config::read(&Environment) {
            Ok(config) => config,
            Err(mistakes) => {
                errln!("ipamd: settings cannot be used:\n{mistakes}");
                return ExitCode::from(USAGE);
            }
        };
        let places = self.places(&config);
        let report = match super::block_on(examine(&places, &config)) {
            Ok(report) => report,
            Err(error) => return super::complain(&error),
        };
        let bundled = self.bundle.as_ref().map_or(Ok(()), |path| {
            bundle::write(path, &report, &places, &Environment)
                .map_err(|error| format!("\"{}\" could not be written: {error}", path.display()))
        });
        let shown = match self.output {
            Form::Text => out!("{}", text(&report)),
            Form::Json => outln!("{:#}", serde_json::json!(report)),
        };
        if let Err(error) = shown {
            return stdout::ended("ipamd", Err(error));
        }
        if let Err(error) = bundled {
            return super::complain(&error);
        }
        if report.fails() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }

    fn places(&self, config: &Config) -> Places {
        let conf = self.cni_conf_dir.clone();
        let metadata = Environment
            .get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
            .filter(|url| !url.is_empty());
        Places {
            root: self.root.clone(),
            cni_conf_dir: conf
                .or_else(|| config.paths.cni_conf_dir.clone())
                .unwrap_or_else(|| PathBuf::from("/etc/cni/net.d")),
            cni_bin_dir: self.cni_bin_dir.clone(),
            metadata: metadata.unwrap_or_else(|| "http://169.254.169.254".to_owned()),
        }
    }
}

fn text(report: &Report) -> String {
    report.checks.iter().map(of_check).collect()
}

fn of_check(check: &Check) -> String {
    let name = check.name;
    if check.skipped {
        return format!("skip  {name:<13} {}\n", check.seen);
    }
    if check.findings.is_empty() {
        return format!("ok    {name:<13} {}\n", check.seen);
    }
    let each = check.findings.iter().map(|finding| {
        let mark = match finding.severity {
            Severity::Warning => "warn",
            Severity::Failure => "FAIL",
        };
        format!(
            "{mark}  {name:<13} {}\n      evidence      {}\n      effect        {}\n      remedy        {}\n",
            finding.what, finding.evidence, finding.effect, finding.remedy
        )
    });
    each.collect()
}
