//! Every setting that the AWS VPC CNI documents or reads, and what becomes of it here. None is ignored in silence.
//!
//! Owns one table and the judgement of a value by it; `docs/settings.md` has the same table for people, and a test holds
//! the two together. Reads no setting that has an effect: the other files of this folder do.

use planner::Family;

use super::boolean;

/// What becomes of a setting, or of one of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has the effect that it has in the AWS VPC CNI.
    Served,
    /// Nothing depends on it here, whatever its value is. The text says why.
    NoEffect(&'static str),
    /// Not served yet, and a node does without it. The text says what happens instead.
    NotServed(On, &'static str),
    /// The same for a value that the AWS VPC CNI's own manifest sets: it says nothing about what the operator wants, so
    /// it is told without a warning.
    NotServedStock(On, &'static str),
    /// Not served, and pods would get something else than was asked for: the daemon does not start. The text says what
    /// would happen, and what to set instead.
    Refused(On, &'static str),
}

/// With which values a setting asks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// `true`, in one of Go's spellings.
    True,
    /// The same on a node of IPv6 pods.
    TrueWithIpv6,
    /// This value, in any case of letters.
    Value(&'static str),
    /// Whatever it is.
    Any,
}

impl On {
    /// Whether `value` asks for it where pods have addresses of `family`. The empty text asks for nothing.
    fn is_asked_by(self, value: &str, family: Family) -> bool {
        let on = boolean(value) == Some(true);
        match self {
            Self::True => on,
            Self::TrueWithIpv6 => on && family == Family::V6,
            Self::Value(wanted) => value.eq_ignore_ascii_case(wanted),
            Self::Any => !value.is_empty(),
        }
    }
}

/// A setting's name and what becomes of it: of the first entry that its value asks for.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub name: &'static str,
    pub standings: &'static [Standing],
}

impl Known {
    /// What becomes of `value`; `None` if it asks for nothing that would have to be told.
    #[must_use]
    pub fn judge(&self, value: &str, family: Family) -> Option<Standing> {
        let asked = |standing: &&Standing| match **standing {
            Served | NoEffect(_) => false,
            NotServed(on, _) | NotServedStock(on, _) | Refused(on, _) => {
                on.is_asked_by(value, family)
            }
        };
        self.standings.iter().find(asked).copied()
    }
}

use On::{Any, True, TrueWithIpv6, Value};
use Standing::{NoEffect, NotServed, NotServedStock, Refused, Served};

const fn known(name: &'static str, standings: &'static [Standing]) -> Known {
    Known { name, standings }
}

/// The AWS VPC CNI's settings: of its daemon, its entrypoint, its init container and its manifest.
#[rustfmt::skip] // one entry reads as the row of a table that it is
pub const OF_AWS_VPC_CNI: [Known; 63] = [
    known("ADDITIONAL_ENI_TAGS", &[Served]),
    known("ANNOTATE_POD_IP", &[NotServed(True, "pods get no annotation vpc.amazonaws.com/pod-ips; status.podIP has the address")]),
    known("AWS_EC2_ENDPOINT", &[NotServed(Any, "calls go to the region's own endpoint; set AWS_ENDPOINT_URL_EC2 for another one")]),
    known("AWS_EXTERNAL_SERVICE_CIDRS", &[NoEffect("a connection to a service outside the VPC leaves by the right ENI without a list")]),
    known("AWS_MANAGE_ENIS_NON_SCHEDULABLE", &[Served]),
    known("AWS_REGION", &[NoEffect("the region is what the metadata service says, for EC2 and STS")]),
    known("AWS_VPC_CNI_NODE_PORT_SUPPORT", &[Served]),
    known("AWS_VPC_ENI_MTU", &[Served]),
    known("AWS_VPC_K8S_CNI_BACKING_STORE", &[NoEffect("the state file is in HAWSER_RUN_DIR")]),
    known("AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER", &[NoEffect("the AWS VPC CNI ignores it as well")]),
    known("AWS_VPC_K8S_CNI_CONNMARK", &[Served]),
    known("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", &[Refused(True, "pods would get addresses of the node's own subnet and security groups; set it to false")]),
    known("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", &[Served]),
    known("AWS_VPC_K8S_CNI_EXTERNALSNAT", &[Served]),
    known("AWS_VPC_K8S_CNI_LOGLEVEL", &[Served]),
    known("AWS_VPC_K8S_CNI_LOG_FILE", &[NoEffect("log lines go to standard error, where the container runtime keeps them")]),
    known("AWS_VPC_K8S_CNI_RANDOMIZESNAT", &[Served]),
    known("AWS_VPC_K8S_CNI_VETHPREFIX", &[Served]),
    known("AWS_VPC_K8S_EGRESS_V4_PLUGIN_LOG_FILE", &[NoEffect("there is no egress plugin")]),
    known("AWS_VPC_K8S_EGRESS_V6_PLUGIN_LOG_FILE", &[NoEffect("there is no egress plugin")]),
    known("AWS_VPC_K8S_PLUGIN_LOG_FILE", &[NoEffect("the plugin answers the runtime; what it did is in the daemon's log")]),
    known("AWS_VPC_K8S_PLUGIN_LOG_LEVEL", &[NoEffect("the plugin answers the runtime; what it did is in the daemon's log")]),
    known("CLUSTER_ENDPOINT", &[Served]),
    known("CLUSTER_NAME", &[Served]),
    known("DISABLE_INTROSPECTION", &[Served]),
    known("DISABLE_LEAKED_ENI_CLEANUP", &[Served]),
    known("DISABLE_METRICS", &[Served]),
    known("DISABLE_NETWORK_RESOURCE_PROVISIONING", &[Served]),
    known("DISABLE_POD_V6", &[Served]),
    known("DISABLE_TCP_EARLY_DEMUX", &[NoEffect("only pods with security groups of their own need it, and there are none")]),
    known("ENABLE_BANDWIDTH_PLUGIN", &[Served]),
    known("ENABLE_IMDS_ONLY_MODE", &[Refused(True, "the daemon asks EC2 which ENIs the node has; set DISABLE_NETWORK_RESOURCE_PROVISIONING=true, which needs ec2:DescribeNetworkInterfaces only")]),
    known("ENABLE_IPv4", &[Served]),
    known("ENABLE_IPv6", &[Served]),
    known("ENABLE_MULTI_NIC", &[Refused(True, "pods would get one interface where they ask for several; set it to false")]),
    known("ENABLE_NFTABLES", &[NoEffect("nftables is used always; the AWS VPC CNI ignores it as well")]),
    known("ENABLE_POD_ENI", &[Refused(True, "pods would get the node's security groups instead of their own; set it to false")]),
    known("ENABLE_PREFIX_DELEGATION", &[Served]),
    known("ENABLE_SUBNET_DISCOVERY", &[NotServedStock(True, "new ENIs are in the subnet of the primary ENI; tags of subnets are not read")]),
    known("ENABLE_V4_EGRESS", &[NotServed(TrueWithIpv6, "pods with IPv6 addresses have no way to IPv4 destinations but NAT64")]),
    known("ENABLE_V6_EGRESS", &[Refused(True, "pods with IPv4 addresses would have no way to IPv6 destinations; set it to false")]),
    known("ENI_CONFIG_ANNOTATION_DEF", &[NoEffect("only AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true needs it, which is refused")]),
    known("ENI_CONFIG_LABEL_DEF", &[NoEffect("only AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true needs it, which is refused")]),
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
    known("NETWORK_POLICY_ENFORCING_MODE", &[Refused(Value("strict"), "pods would be open until a policy agent reaches them; set it to standard"), NotServedStock(Value("standard"), "the AWS network policy agent is not told of pods; an agent that finds them by their links enforces policies")]),
    known("NO_PROXY", &[Served]),
    known("POD_MTU", &[Served]),
    known("POD_SECURITY_GROUP_ENFORCING_MODE", &[NoEffect("only ENABLE_POD_ENI=true needs it, which is refused")]),
    known("VPC_CNI_VERSION", &[NoEffect("EC2 is told Hawser's own version")]),
    known("WARM_ENI_TARGET", &[Served]),
    known("WARM_IP_TARGET", &[Served]),
    known("WARM_PREFIX_TARGET", &[Served]),
];

/// Hawser's own settings.
pub const OWN: [&str; 5] = [
    "HAWSER_BLOCK_POD_IMDS",
    "HAWSER_METRICS_ADDRESS",
    "HAWSER_PROBE_ADDRESS",
    "HAWSER_RUN_DIR",
    "HAWSER_VPC_CIDR_PERIOD",
];

/// The row of a setting of the AWS VPC CNI.
#[must_use]
pub fn find(name: &str) -> Option<&'static Known> {
    OF_AWS_VPC_CNI.iter().find(|known| known.name == name)
}
