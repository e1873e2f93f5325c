//! The table of all settings of the AWS VPC CNI, and their support in Hawser. No setting is ignored silently.
//!
//! `docs/settings.md` has the same table, and a test compares both. The other files of this folder read the settings that
//! have an effect.

use super::boolean;

/// The support of a setting, or of one of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has the same effect as in the AWS VPC CNI.
    Served,
    /// No value has an effect. The text gives the reason.
    NoEffect(&'static str),
    /// Not served, but the node works without it. The text says what happens instead.
    NotServed(On, &'static str),
    /// The same for a value in the AWS VPC CNI's default manifest. The operator may not have chosen it, so there is no
    /// warning.
    NotServedStock(On, &'static str),
    /// Not served, and pods would not get what the setting requests, so the daemon does not start. The text says what would
    /// happen, and what to set instead.
    Refused(On, &'static str),
}

/// The values for which an entry of the table applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// `true`, in one of Go's spellings.
    True,
    /// This value, ignoring case.
    Value(&'static str),
    /// Any value.
    Any,
}

impl On {
    /// Whether the entry applies to `value`. It never applies to an empty value.
    fn is_asked_by(self, value: &str) -> bool {
        let on = boolean(value) == Some(true);
        match self {
            Self::True => on,
            Self::Value(wanted) => value.eq_ignore_ascii_case(wanted),
            Self::Any => !value.is_empty(),
        }
    }
}

/// A setting's name and its entries. The first one that applies to the value is used.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub name: &'static str,
    pub standings: &'static [Standing],
}

impl Known {
    /// Returns the entry for `value`. None: there is nothing to report.
    #[must_use]
    pub fn judge(&self, value: &str) -> Option<Standing> {
        let asked = |standing: &&Standing| match **standing {
            Served | NoEffect(_) => false,
            NotServed(on, _) | NotServedStock(on, _) | Refused(on, _) => on.is_asked_by(value),
        };
        self.standings.iter().find(asked).copied()
    }
}

use On::{Any, True, Value};
use Standing::{NoEffect, NotServed, NotServedStock, Refused, Served};

const fn known(name: &'static str, standings: &'static [Standing]) -> Known {
    Known { name, standings }
}

/// The settings of the AWS VPC CNI: of its daemon, its entrypoint, its init container and its manifest.
#[rustfmt::skip] // one row per setting
pub const OF_AWS_VPC_CNI: [Known; 63] = [
    known("ADDITIONAL_ENI_TAGS", &[Served]),
    known("ANNOTATE_POD_IP", &[NotServed(True, "pods get no annotation vpc.amazonaws.com/pod-ips; status.podIP has the address")]),
    known("AWS_EC2_ENDPOINT", &[NotServed(Any, "calls go to the region's own endpoint; set AWS_ENDPOINT_URL_EC2 for another one")]),
    known("AWS_EXTERNAL_SERVICE_CIDRS", &[NoEffect("connections to services outside the VPC use the right ENI without a list")]),
    known("AWS_MANAGE_ENIS_NON_SCHEDULABLE", &[Served]),
    known("AWS_REGION", &[NoEffect("the region for EC2 and STS is read from the metadata service")]),
    known("AWS_VPC_CNI_NODE_PORT_SUPPORT", &[Served]),
    known("AWS_VPC_ENI_MTU", &[Served]),
    known("AWS_VPC_K8S_CNI_BACKING_STORE", &[NoEffect("the state file is in HAWSER_RUN_DIR")]),
    known("AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER", &[NoEffect("the AWS VPC CNI ignores it as well")]),
    known("AWS_VPC_K8S_CNI_CONNMARK", &[Served]),
    known("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", &[Served]),
    known("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", &[Served]),
    known("AWS_VPC_K8S_CNI_EXTERNALSNAT", &[Served]),
    known("AWS_VPC_K8S_CNI_LOGLEVEL", &[Served]),
    known("AWS_VPC_K8S_CNI_LOG_FILE", &[NoEffect("log lines go to standard error, where the container runtime keeps them")]),
    known("AWS_VPC_K8S_CNI_RANDOMIZESNAT", &[Served]),
    known("AWS_VPC_K8S_CNI_VETHPREFIX", &[Served]),
    known("AWS_VPC_K8S_EGRESS_V4_PLUGIN_LOG_FILE", &[NoEffect("there is no egress plugin")]),
    known("AWS_VPC_K8S_EGRESS_V6_PLUGIN_LOG_FILE", &[NoEffect("there is no egress plugin")]),
    known("AWS_VPC_K8S_PLUGIN_LOG_FILE", &[NoEffect("the plugin has no log; it reports errors to the runtime, and the daemon logs its requests")]),
    known("AWS_VPC_K8S_PLUGIN_LOG_LEVEL", &[NoEffect("the plugin has no log; it reports errors to the runtime, and the daemon logs its requests")]),
    known("CLUSTER_ENDPOINT", &[Served]),
    known("CLUSTER_NAME", &[Served]),
    known("DISABLE_INTROSPECTION", &[Served]),
    known("DISABLE_LEAKED_ENI_CLEANUP", &[Served]),
    known("DISABLE_METRICS", &[Served]),
    known("DISABLE_NETWORK_RESOURCE_PROVISIONING", &[Served]),
    known("DISABLE_POD_V6", &[Served]),
    known("DISABLE_TCP_EARLY_DEMUX", &[NoEffect("only needed for pods with their own security groups, which are not supported")]),
    known("ENABLE_BANDWIDTH_PLUGIN", &[Served]),
    known("ENABLE_IMDS_ONLY_MODE", &[Refused(True, "the daemon lists the node's ENIs in EC2; set DISABLE_NETWORK_RESOURCE_PROVISIONING=true instead, which needs only ec2:DescribeNetworkInterfaces")]),
    known("ENABLE_IPv4", &[Served]),
    known("ENABLE_IPv6", &[Served]),
    known("ENABLE_MULTI_NIC", &[Refused(True, "pods that request several interfaces would get only one; set it to false")]),
    known("ENABLE_NFTABLES", &[NoEffect("nftables is always used; the AWS VPC CNI ignores it as well")]),
    known("ENABLE_POD_ENI", &[Refused(True, "pods would get the node's security groups instead of their own; set it to false")]),
    known("ENABLE_PREFIX_DELEGATION", &[Served]),
    known("ENABLE_SUBNET_DISCOVERY", &[Served]),
    known("ENABLE_V4_EGRESS", &[Served]),
    known("ENABLE_V6_EGRESS", &[Served]),
    known("ENI_CONFIG_ANNOTATION_DEF", &[Served]),
    known("ENI_CONFIG_LABEL_DEF", &[Served]),
    known("HOST_CNI_BIN_PATH", &[Served]),
    known("HOST_CNI_CONFDIR_PATH", &[Served]),
    known("HTTPS_PROXY", &[Served]),
    known("HTTP_PROXY", &[Served]),
    known("HTTP_TIMEOUT", &[Served]),
    known("INTROSPECTION_BIND_ADDRESS", &[Served]),
    known("IP_COOLDOWN_PERIOD", &[Served]),
    known("MANAGE_UNTAGGED_ENI", &[Served]),
    known("MAX_ENI", &[Served]),
    known("MINIMUM_IP_TARGET", &[Served]),
    known("MY_NODE_NAME", &[Served]),
    known("MY_POD_NAME", &[NoEffect("the daemon sends no events about its own pod")]),
    known("NETWORK_POLICY_ENFORCING_MODE", &[Refused(Value("strict"), "pods would accept all traffic until a policy agent configures them; set it to standard"), NotServedStock(Value("standard"), "the AWS network policy agent receives no pods; use an agent that finds pods by their links")]),
    known("NO_PROXY", &[Served]),
    known("POD_MTU", &[Served]),
    known("POD_SECURITY_GROUP_ENFORCING_MODE", &[NoEffect("only needed with ENABLE_POD_ENI=true, which is refused")]),
    known("VPC_CNI_VERSION", &[NoEffect("calls to EC2 contain Hawser's version")]),
    known("WARM_ENI_TARGET", &[Served]),
    known("WARM_IP_TARGET", &[Served]),
    known("WARM_PREFIX_TARGET", &[Served]),
];

/// Hawser's own settings.
pub const OWN: [&str; 11] = [
    "HAWSER_AWS_NODE_DIR",
    "HAWSER_BLOCK_POD_IMDS",
    "HAWSER_ENI_MARK_MASK",
    "HAWSER_METRICS_ADDRESS",
    "HAWSER_NODE_CONDITIONS",
    "HAWSER_NODE_EVENTS",
    "HAWSER_PROBE_ADDRESS",
    "HAWSER_RUN_DIR",
    "HAWSER_STARTUP_TAINT",
    "HAWSER_TAKEOVER_DESPITE_POLICIES",
    "HAWSER_VPC_CIDR_PERIOD",
];

/// The row of a setting of the AWS VPC CNI.
#[must_use]
pub fn find(name: &str) -> Option<&'static Known> {
    OF_AWS_VPC_CNI.iter().find(|known| known.name == name)
}
