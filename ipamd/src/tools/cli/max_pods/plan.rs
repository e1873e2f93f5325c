//! `--plan`: a warm-pool policy as text, and its forecast. The daemon's own code reads the settings, so that a plan has
//! the same meaning as the variables on a node.

use std::{collections::BTreeMap, ops::RangeInclusive};

use planner::{
    EniClass, Holding, InstanceType, forecast,
    placement::{Listed, Selector},
};

use crate::config::{Config, Mistakes, Strings};

/// Variables that a plan can set.
const NAMES: [&str; 4] = [
    "WARM_ENI_TARGET",
    "WARM_IP_TARGET",
    "MINIMUM_IP_TARGET",
    "WARM_PREFIX_TARGET",
];

/// A parsed policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    settings: BTreeMap<String, String>,
    /// Numbers of pods to print; `None` for all that fit.
    pods: Option<RangeInclusive<u32>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlanError {
    #[error("\"{name}\" is not a setting of a plan; the settings are {}", NAMES.join(", "))]
    UnknownSetting { name: String },
    #[error("\"{item}\" is neither NAME=VALUE nor \"N pods\" nor \"N..M pods\"")]
    Item { item: String },
    #[error("the pods are given twice")]
    PodsTwice,
    #[error("{}", .0.join("; "))]
    Mistakes(Vec<String>),
}

/// How the daemon uses the slots of the instance.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    pub max_eni: Option<u16>,
    pub prefixes: bool,
    pub custom_networking: bool,
}

impl Used {
    /// What the node's ENIs are like.
    fn class(self) -> EniClass {
        if !self.custom_networking {
            return EniClass::like_primary();
        }
        let pods = Listed {
            subnet: "subnet-pods".into(),
            weight: 0,
        };
        EniClass {
            name: "ENIConfig".to_owned(),
            subnets: Selector::Listed(vec![pods]),
            security_groups: None,
            primary_serves: false,
        }
    }
}

/// What an instance type holds with a policy.
#[derive(Debug)]
pub(super) struct Forecast {
    pub instance: InstanceType,
    /// The settings, for a heading.
    pub policy: String,
    pub held: Vec<Holding>,
}

/// The settings of a plan, and the options that are settings of the daemon too.
struct Source(BTreeMap<String, String>);

impl Strings for Source {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

impl Plan {
    pub(super) fn parse(text: &str) -> Result<Self, PlanError> {
        let mut plan = Self {
            settings: BTreeMap::new(),
            pods: None,
        };
        let items = text.split(',').map(str::trim);
        for item in items.filter(|item| !item.is_empty()) {
            if let Some((name, value)) = item.split_once('=') {
                let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
                if !NAMES.contains(&name.as_str()) {
                    return Err(PlanError::UnknownSetting { name });
                }
                plan.settings.insert(name, value);
            } else if plan.pods.replace(pods(item)?).is_some() {
                return Err(PlanError::PodsTwice);
            }
        }
        plan.config(Used::default())?;
        Ok(plan)
    }

    fn config(&self, used: Used) -> Result<Config, PlanError> {
        let Used {
            max_eni, prefixes, ..
        } = used;
        let mut all = self.settings.clone();
        all.extend(max_eni.map(|n| ("MAX_ENI".to_owned(), n.to_string())));
        all.insert("ENABLE_PREFIX_DELEGATION".to_owned(), prefixes.to_string());
        Config::read(&Source(all)).map_err(|Mistakes(lines)| PlanError::Mistakes(lines))
    }

    pub(super) fn run(&self, instance: InstanceType, used: Used) -> Result<Forecast, PlanError> {
        let config = self.config(used)?;
        let last = self.pods.as_ref().map_or(u32::MAX, |pods| *pods.end());
        let mut held = forecast(&instance, &config.pool, &used.class(), last);
        if let Some(pods) = &self.pods {
            held.retain(|holding| pods.contains(&holding.pods));
        }
        let mut policy: Vec<_> = self
            .settings
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if policy.is_empty() {
            policy.push("no target set, the pool sizes itself".to_owned());
        }
        policy.extend(used.max_eni.map(|n| format!("MAX_ENI={n}")));
        let flags = [
            (used.prefixes, "ENABLE_PREFIX_DELEGATION=true"),
            (
                used.custom_networking,
                "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true",
            ),
        ];
        let set = flags.into_iter().filter(|(set, _)| *set);
        policy.extend(set.map(|(_, text)| text.to_owned()));
        Ok(Forecast {
            instance,
            policy: policy.join(", "),
            held,
        })
    }
}

fn pods(item: &str) -> Result<RangeInclusive<u32>, PlanError> {
    let wrong = || PlanError::Item {
        item: item.to_owned(),
    };
    let counts = item
        .strip_suffix("pods")
        .or_else(|| item.strip_suffix("pod"))
        .ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
    match counts.split_once("..") {
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong());
            }
            Ok(first..=last)
        }
        None => number(counts).map(|n| n..=n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_counts_and_settings() {
        let plan = Plan::parse("11 pods, WARM_IP_TARGET=5").unwrap();
        assert_eq!(plan.pods, Some(11..=11));
        assert_eq!(plan.settings["WARM_IP_TARGET"], "5");
        assert_eq!(Plan::parse("0..3 pods").unwrap().pods, Some(0..=3));
        assert_eq!(Plan::parse("").unwrap().pods, None);
    }

    #[test]
    fn an_invalid_plan_is_refused() {
        for text in [
            "WARM_IP=5",
            "WARM_IP_TARGET=many",
            "11",
            "9..3 pods",
            "1 pod, 2 pods",
        ] {
            assert!(Plan::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_beyond_the_limit_ends_there() {
        let plan = Plan::parse("8..100 pods, WARM_IP_TARGET=1").unwrap();
        let t3 = planner::limits::require("t3.small").unwrap().clone();
        let forecast = plan.run(t3, Used::default()).unwrap();
        let pods: Vec<_> = forecast.held.iter().map(|h| h.pods).collect();
        assert_eq!(pods, [8, 9]);
    }

    #[test]
    fn a_plan_with_custom_networking_holds_nothing_on_the_primary_eni() {
        let plan = Plan::parse("WARM_IP_TARGET=2").unwrap();
        let m5 = planner::limits::require("m5.large").unwrap().clone();
        let used = Used {
            custom_networking: true,
            ..Used::default()
        };
        let forecast = plan.run(m5, used).unwrap();
        let (first, last) = (&forecast.held[0], forecast.held.last().unwrap());
        assert_eq!((first.enis, first.addresses), (2, 2));
        assert_eq!((last.pods, last.enis, last.addresses), (18, 3, 18));
    }
}
