//! `ipamd doctor`: checks a node and reports each problem with its evidence, effect and remedy.
//!
//! Each check first observes and then judges, and none changes anything: EC2 is tested with dry runs where its API
//! supports them, and the node with pods that exist only for the test. The daemon may be dead or may never have started; checks that need it are then skipped, and reported
//! as skipped.
//!
//! May use `config`, `ec2`, `host`, `install`, `kube`, `node`, `rpc`, `runtime` and `state`. Must not know the command line.

pub mod bundle;
mod cloud;
mod daemon;
mod features;
mod files;
mod kernel;
mod metadata;
mod neighbours;
mod pod_subnets;
mod probe;
mod settings;

use std::{borrow::Cow, path::PathBuf};

use serde::Serialize;

use crate::{config::Config, rpc::view::View};

/// The paths and addresses that are checked.
#[derive(Clone, Debug)]
pub struct Places {
    /// The host's file system: `/`, or its mount point in a container.
    pub root: PathBuf,
    /// Relative to `root`.
    pub cni_conf_dir: PathBuf,
    /// Relative to `root`.
    pub cni_bin_dir: PathBuf,
    /// `http://169.254.169.254`, or the value of the AWS SDK's variable.
    pub metadata: String,
}

impl Places {
    /// A path of the host, relative to this process.
    #[must_use]
    pub fn host(&self, path: &std::path::Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It works, but not for long, or not for all pods.
    Warning,
    /// Pods are affected now.
    Failure,
}

/// One problem. All four texts are for humans; `what` begins with a lower-case letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub what: String,
    pub evidence: String,
    pub effect: &'static str,
    pub remedy: Cow<'static, str>,
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    /// What was observed if nothing is wrong, or why the check was skipped.
    pub seen: String,
    pub skipped: bool,
    pub findings: Vec<Finding>,
}

impl Check {
    fn new(name: &'static str, seen: impl Into<String>, findings: Vec<Finding>) -> Self {
        Self {
            name,
            seen: seen.into(),
            skipped: false,
            findings,
        }
    }

    fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self {
            skipped: true,
            ..Self::new(name, why, Vec::new())
        }
    }
}

/// All checks.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub checks: Vec<Check>,
    /// The node from the daemon, or from its state file.
    #[serde(skip)]
    pub view: Option<View>,
}

impl Report {
    /// Whether pods are affected now.
    #[must_use]
    pub fn fails(&self) -> bool {
        let mut findings = self.checks.iter().flat_map(|check| &check.findings);
        findings.any(|finding| finding.severity == Severity::Failure)
    }
}

/// Runs all checks, from the runtime's side to EC2.
pub async fn examine(places: &Places, config: &Config) -> Report {
    let (daemon, view) = daemon::check(config).await;
    let mut checks = vec![files::conflist(places, config), files::plugin(places)];
    checks.push(daemon);
    checks.push(daemon::pool(view.as_ref()));
    checks.extend(settings::checks(config, view.as_ref()));
    checks.push(files::kubelet(places, view.as_ref()));
    checks.push(features::check(places, config));
    checks.extend(kernel::checks(places, config, view.as_ref()));
    checks.push(probe::check(config));
    checks.push(files::managers(places));
    checks.extend(metadata::checks(places, config).await);
    checks.extend(cloud::checks(config).await);
    Report { checks, view }
}

fn finding(
    severity: Severity,
    what: impl Into<String>,
    evidence: impl Into<String>,
    effect: &'static str,
    remedy: impl Into<Cow<'static, str>>,
) -> Finding {
    Finding {
        severity,
        what: what.into(),
        evidence: evidence.into(),
        effect,
        remedy: remedy.into(),
    }
}

/// Pods are affected now.
fn failure(
    what: impl Into<String>,
    evidence: impl Into<String>,
    effect: &'static str,
    remedy: impl Into<Cow<'static, str>>,
) -> Finding {
    finding(Severity::Failure, what, evidence, effect, remedy)
}

/// A problem that does not affect pods yet.
fn warning(
    what: impl Into<String>,
    evidence: impl Into<String>,
    effect: &'static str,
    remedy: impl Into<Cow<'static, str>>,
) -> Finding {
    finding(Severity::Warning, what, evidence, effect, remedy)
}
