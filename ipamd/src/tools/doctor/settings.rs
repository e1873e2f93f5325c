//! Checks the daemon's settings: invalid values, settings that are not served, and unknown names.
//!
//! A running daemon reports the settings with which it was started. Without one, this process's environment is checked.

use proto::v1::SettingNotice;

use super::{Check, Finding, warning};
use crate::{
    config::{
        Config,
        notices::{Kind, Notice},
    },
    rpc::view::View,
};

pub(super) fn checks(config: &Config, view: Option<&View>) -> Vec<Check> {
    let told: Vec<SettingNotice> = match view {
        Some(view) if !view.settings.is_empty() => view.settings.clone(),
        _ => config.notices.iter().map(setting).collect(),
    };
    let stock = |setting: &&SettingNotice| setting.kind == Kind::NotServedStock.name();
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
    let mut checks = vec![Check::new("settings", "all settings are valid", findings)];
    if !not_served.is_empty() {
        // The AWS VPC CNI's manifest sets these, so they are not a problem.
        checks.push(Check::new("not served", not_served.join("; "), Vec::new()));
    }
    checks
}

fn setting(notice: &Notice) -> SettingNotice {
    SettingNotice {
        setting: notice.setting.clone(),
        kind: notice.kind.name().to_owned(),
        text: notice.text.clone(),
    }
}

fn finding(told: &SettingNotice) -> Finding {
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == told.kind);
    match kind {
        Some(Kind::NotServed | Kind::NotServedStock) => warning(
            "a setting is not served",
            format!("{}: {}", told.setting, told.text),
            "pods do not get what it requests",
            "see docs/settings.md, and remove the setting if nothing needs it",
        ),
        Some(Kind::Unknown) => warning(
            "there is no setting with this name",
            format!("{}: {}", told.setting, told.text),
            "the default is used",
            "correct the name; docs/settings.md lists all settings",
        ),
        Some(Kind::Ignored) | None => warning(
            "a setting is invalid",
            format!("{}: expected {}", told.setting, told.text),
            "the default is used",
            "correct the value, and restart the daemon",
        ),
    }
}
