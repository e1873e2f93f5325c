//! `ipamd doctor`: its options, output and exit status. The checks are in [`crate::tools::doctor`].

use std::{path::PathBuf, process::ExitCode};

use clap::ValueEnum;
use stdout::{errln, out, outln};

use super::USAGE;
use crate::{
    config::{Config, Environment, Strings as _},
    tools::doctor::{Check, Places, Report, Severity, bundle, examine},
};

const MANUAL: &str = "\
CHECKS
  conflist      the runtime uses Hawser's network configuration, and the file is complete
  plugin        the runtime finds the plugin and can execute it
  daemon        the daemon answers at its socket
  pool          growth, waiting pods and the pod limit, as reported by the daemon
  settings      every setting is known, understood and served
  max-pods      the kubelet accepts no more pods than the node has addresses
  kernel        the kernel has the features that pods' network needs
  sysctl        the node forwards packets
  links         each ENI has a link that is up, with the right MTU and a loose source check
  rules         each ENI has its rules, and no rule of another program comes before them
  predecessors  no other network plugin runs on the node, and none left rules or chains
  dhcp          no DHCP client configures secondary ENIs
  routes        each pod has a route
  egress        if pods reach the other address family: the node has an address and a default route
  nftables      Hawser's table exists, and no table of another network plugin
  filters       no filter of another program drops pods' packets
  probe         a connection between two probe pods, which end with the command, passes the node
  interference  network managers and MAC policies
  imds          the instance metadata service returns a token
  clock         the node's clock agrees with the metadata service's clock
  iam           the EC2 permissions, tested one by one with dry runs
  subnets       free addresses
  pod subnets   where new ENIs are created: tags or ENIConfig, zones, groups, routes and room
  hop limit     the hop limit of the metadata service's answers

WHERE TO RUN IT
  Run it in the host's network namespace, with the same environment variables as the daemon. In the \
daemon's container, set --root to the directory where the host's file system is mounted.

EXIT STATUS
  0  no failures; there may be warnings
  1  at least one failure";

/// Check this node, and report each problem with its remedy
///
/// The command changes nothing. Each finding has the problem, the evidence, the effect and the remedy.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub(super) struct Doctor {
    /// The directory where the host's file system is mounted [default: /]
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "/",
        hide_default_value = true
    )]
    root: PathBuf,
    /// The runtime's configuration directory [default: HOST_CNI_CONFDIR_PATH, or /etc/cni/net.d]
    #[arg(long, value_name = "DIRECTORY")]
    cni_conf_dir: Option<PathBuf>,
    /// The runtime's plugin directory [default: /opt/cni/bin]
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "/opt/cni/bin",
        hide_default_value = true
    )]
    cni_bin_dir: PathBuf,
    /// Also write a support archive (.tar.gz) without pod names and secrets
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// The output format [default: text]
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Form::Text, hide_default_value = true)]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Human-readable text
    Text,
    /// A JSON object
    Json,
}

impl Doctor {
    pub(super) fn run(self) -> ExitCode {
        let config = match Config::read(&Environment) {
            Ok(config) => config,
            Err(mistakes) => {
                errln!("ipamd: invalid settings:\n{mistakes}");
                return ExitCode::from(USAGE);
            }
        };
        let places = self.places(&config);
        let report = match super::block_on(examine(&places, &config)) {
            Ok(report) => report,
            Err(error) => return super::print_error(&error),
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
            return super::print_error(&error);
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
