//! `ipamd doctor`: looks at a node from outside in and says what is wrong, by which evidence, to what effect, and what
//! to do about it.
//!
//! Each check observes first and judges then, and none changes anything: EC2 is asked by dry run where its API has one.
//! The daemon may be dead or may never have started; what only it could tell is then passed over, and said to be.

pub mod bundle;
mod cloud;
mod daemon;
mod features;
mod files;
mod kernel;
mod metadata;

use std::path::PathBuf;

use serde::Serialize;

use crate::{config::Config, rpc::view::View};

/// Where things are, as seen from here.
#[derive(Clone, Debug)]
pub struct Places {
    /// The host's file system: `/`, or where a container has it mounted.
    pub root: PathBuf,
    /// Below `root`.
    pub cni_conf_dir: PathBuf,
    /// Below `root`.
    pub cni_bin_dir: PathBuf,
    /// `http://169.254.169.254`, or what the AWS SDK's variable says.
    pub metadata: String,
}

impl Places {
    /// A path of the host, from here.
    #[must_use]
    pub fn host(&self, path: &std::path::Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Works, but not for long, or not for everybody.
    Warning,
    /// Pods suffer now.
    Failure,
}

/// One thing that is wrong. All four texts are for people; `what` begins with a lower-case letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub what: String,
    pub evidence: String,
    pub effect: &'static str,
    pub remedy: &'static str,
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    /// What was seen where nothing is wrong, or why it could not be looked at.
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

/// Everything that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub checks: Vec<Check>,
    /// The node as the daemon, or its state file, tells it.
    #[serde(skip)]
    pub view: Option<View>,
}

impl Report {
    /// Whether anything makes pods suffer now.
    #[must_use]
    pub fn fails(&self) -> bool {
        let mut findings = self.checks.iter().flat_map(|check| &check.findings);
        findings.any(|finding| finding.severity == Severity::Failure)
    }
}

/// Looks at everything, from the runtime's side towards EC2.
pub async fn examine(places: &Places, config: &Config) -> Report {
    let (daemon, view) = daemon::check(config).await;
    let mut checks = vec![files::conflist(places, config), files::plugin(places)];
    checks.push(daemon);
    checks.push(daemon::pool(view.as_ref()));
    checks.push(files::kubelet(places, view.as_ref()));
    checks.push(features::check(places, config.pool.family));
    checks.extend(kernel::checks(config, view.as_ref()));
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
    remedy: &'static str,
) -> Finding {
    Finding {
        severity,
        what: what.into(),
        evidence: evidence.into(),
        effect,
        remedy,
    }
}

/// Pods suffer now.
fn failure(
    what: impl Into<String>,
    evidence: impl Into<String>,
    effect: &'static str,
    remedy: &'static str,
) -> Finding {
    finding(Severity::Failure, what, evidence, effect, remedy)
}

/// Worth knowing before pods suffer.
fn warning(
    what: impl Into<String>,
    evidence: impl Into<String>,
    effect: &'static str,
    remedy: &'static str,
) -> Finding {
    finding(Severity::Warning, what, evidence, effect, remedy)
}
