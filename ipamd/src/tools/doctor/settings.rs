//! The daemon's settings: what was not understood, what is not served, which names nobody knows.
//!
//! A running daemon tells which settings it was started with; without one, this process's own environment is looked at.

use super::{Check, Finding, warning};
use crate::{
    config::{
        Config,
        notices::{Kind, Notice},
    },
    rpc::view::{Setting, View},
};

pub(super) fn checks(config: &Config, view: Option<&View>) -> Vec<Check> {
    let told: Vec<Setting> = match view {
        Some(view) if !view.settings.is_empty() => view.settings.clone(),
        _ => config.notices.iter().map(setting).collect(),
    };
    let stock = |setting: &&Setting| setting.kind == Kind::NotServedStock.name();
    let not_served: Vec<_> = told
        .iter()
        .filter(stock)
        .map(|told| format!("{}: {}", told.setting, told.text))
        .collect();
    let findings = told
        .iter()
        .filter(|told| !stock(told))
        .map(finding)
        .collect();
    let mut checks = vec![Check::new(
        "settings",
        "none is misspelt or misunderstood",
        findings,
    )];
    if !not_served.is_empty() {
        // The AWS VPC CNI's manifest sets these, so they are no finding.
        checks.push(Check::new("not served", not_served.join("; "), Vec::new()));
    }
    checks
}

fn setting(notice: &Notice) -> Setting {
    Setting {
        setting: notice.setting.clone(),
        kind: notice.kind.name().to_owned(),
        text: notice.text.clone(),
    }
}

fn finding(told: &Setting) -> Finding {
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == told.kind);
    match kind {
        Some(Kind::NotServed | Kind::NotServedStock) => warning(
            "a setting is not served",
            format!("{}: {}", told.setting, told.text),
            "pods do without what it asks for",
            "see docs/settings.md, and remove it where nothing needs it",
        ),
        Some(Kind::Unknown) => warning(
            "nobody reads a setting of this name",
            format!("{}: {}", told.setting, told.text),
            "the default is in force",
            "correct the name; docs/settings.md lists all that are",
        ),
        Some(Kind::Ignored) | None => warning(
            "a setting is not understood",
            format!("{}: expected {}", told.setting, told.text),
            "the default is in force",
            "correct the value, and restart the daemon",
        ),
    }
}
