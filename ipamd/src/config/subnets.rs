//! Settings for the subnets of pods: which of three ways fills the class of the node's ENIs.

use planner::Family;

use super::Reader;

/// How the subnets of new ENIs are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodSubnets {
    /// The subnet of the primary ENI.
    Primary,
    /// `ENABLE_SUBNET_DISCOVERY`: by tags.
    Discovery,
    /// `AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG`: by the node's ENIConfig.
    Custom(EniConfigKeys),
}

/// Where a Node names its ENIConfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EniConfigKeys {
    /// `ENI_CONFIG_ANNOTATION_DEF`: the key of an annotation.
    pub annotation: String,
    /// `ENI_CONFIG_LABEL_DEF`: the key of a label.
    pub label: String,
}

impl Default for EniConfigKeys {
    fn default() -> Self {
        let key = || "k8s.amazonaws.com/eniConfig".to_owned();
        Self {
            annotation: key(),
            label: key(),
        }
    }
}

impl Reader<'_> {
    /// Custom networking is used if both are enabled, as in the AWS VPC CNI. On an IPv6 node, all pods use the primary ENI.
    pub(super) fn pod_subnets(&mut self, family: Family) -> PodSubnets {
        const CUSTOM: &str = "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG";
        let custom = self.flag(CUSTOM, false);
        let discovery = self.flag("ENABLE_SUBNET_DISCOVERY", true);
        let keys = self.eni_config_keys();
        if family == Family::V6 {
            if custom {
                let wanted = "false with ENABLE_IPv6: all pods of an IPv6 node use the primary ENI";
                self.wrong(CUSTOM, "true", wanted);
            }
            return PodSubnets::Primary;
        }
        if !custom {
            return match discovery {
                true => PodSubnets::Discovery,
                false => PodSubnets::Primary,
            };
        }
        if self.text("MY_NODE_NAME").is_none() {
            let wanted =
                "false, or MY_NODE_NAME with the name of the Node, which names its ENIConfig";
            self.wrong(CUSTOM, "true", wanted);
        }
        PodSubnets::Custom(keys)
    }

    fn eni_config_keys(&self) -> EniConfigKeys {
        let default = EniConfigKeys::default();
        let annotation = self.text("ENI_CONFIG_ANNOTATION_DEF");
        let label = self.text("ENI_CONFIG_LABEL_DEF");
        EniConfigKeys {
            annotation: annotation.unwrap_or(default.annotation),
            label: label.unwrap_or(default.label),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, Mistakes};

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<PodSubnets, Mistakes> {
        let source: BTreeMap<_, _> = pairs.iter().copied().collect();
        Config::read(&source).map(|config| config.pod_subnets)
    }

    const CUSTOM: (&str, &str) = ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true");
    const NODE: (&str, &str) = ("MY_NODE_NAME", "n");

    #[test]
    fn subnets_are_chosen_by_tags_unless_a_setting_says_otherwise() {
        assert_eq!(read(&[]), Ok(PodSubnets::Discovery));
        let off = ("ENABLE_SUBNET_DISCOVERY", "false");
        assert_eq!(read(&[off]), Ok(PodSubnets::Primary));
        let both = [("ENABLE_SUBNET_DISCOVERY", "true"), CUSTOM, NODE];
        assert_eq!(
            read(&both),
            Ok(PodSubnets::Custom(EniConfigKeys::default()))
        );
        let six = [
            ("ENABLE_IPv6", "true"),
            ("ENABLE_PREFIX_DELEGATION", "true"),
        ];
        assert_eq!(read(&six), Ok(PodSubnets::Primary));
    }

    #[test]
    fn the_keys_of_the_nodes_eni_config_are_settings() {
        let keys = [
            CUSTOM,
            NODE,
            ("ENI_CONFIG_LABEL_DEF", "topology.kubernetes.io/zone"),
            ("ENI_CONFIG_ANNOTATION_DEF", ""),
        ];
        let wanted = EniConfigKeys {
            label: "topology.kubernetes.io/zone".to_owned(),
            ..EniConfigKeys::default()
        };
        assert_eq!(read(&keys), Ok(PodSubnets::Custom(wanted)));
    }

    #[test]
    fn custom_networking_is_refused_on_an_ipv6_node() {
        let six = [
            ("ENABLE_IPv6", "true"),
            ("ENABLE_PREFIX_DELEGATION", "true"),
            CUSTOM,
            NODE,
        ];
        let Err(Mistakes(lines)) = read(&six) else {
            panic!("accepted");
        };
        assert!(lines.concat().contains("primary ENI"), "{lines:?}");
    }

    #[test]
    fn custom_networking_needs_the_name_of_the_node() {
        let Err(Mistakes(lines)) = read(&[CUSTOM]) else {
            panic!("accepted");
        };
        assert!(lines.concat().contains("MY_NODE_NAME"), "{lines:?}");
    }
}
