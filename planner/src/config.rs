//! The operator's settings, already parsed. The daemon reads them from the environment.

use std::time::Duration;

use nettypes::Family;

/// The policy's inputs. Names, precedence and defaults are those of the AWS VPC CNI's variables. The one exception: no
/// target is set ([`Config::upstream`] sets the targets of the AWS VPC CNI).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `ENABLE_IPv4`, `ENABLE_IPv6`: which addresses pods get. IPv6 ones come from one /80 on the primary ENI, and the warm
    /// targets and `MAX_ENI` have no effect.
    pub family: Family,
    /// `WARM_ENI_TARGET`: keep this many ENIs' worth of free addresses. Ignored when either IP target is set. `None` if
    /// the variable is not set. If none of the four targets is set, the pool sizes itself by the demand that it sees.
    pub warm_eni_target: Option<u32>,
    /// `WARM_IP_TARGET`: free addresses to keep.
    pub warm_ip_target: Option<u32>,
    /// `MINIMUM_IP_TARGET`: the minimum number of addresses to hold in all.
    pub minimum_ip_target: Option<u32>,
    /// `WARM_PREFIX_TARGET`: free /28 prefixes to keep, in prefix mode. `None` if the variable is not set.
    pub warm_prefix_target: Option<u32>,
    /// `MAX_ENI`: never hold more ENIs than this, even if the instance could.
    pub max_eni: Option<u16>,
    /// `ENABLE_PREFIX_DELEGATION`: request /28 prefixes instead of single addresses (Nitro only).
    pub prefix_delegation: bool,
    /// `IP_COOLDOWN_PERIOD`: how long a released address is not granted again.
    pub cooldown: Duration,
    /// `AWS_MANAGE_ENIS_NON_SCHEDULABLE`: grow and shrink on a cordoned node too.
    pub manage_cordoned: bool,
    /// Whether the pool may call EC2 to grow or shrink: the inverse of `DISABLE_NETWORK_RESOURCE_PROVISIONING`.
    pub provisioning: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            family: Family::V4,
            warm_eni_target: None,
            warm_ip_target: None,
            minimum_ip_target: None,
            warm_prefix_target: None,
            max_eni: None,
            prefix_delegation: false,
            cooldown: Duration::from_secs(30),
            manage_cordoned: false,
            provisioning: true,
        }
    }
}

impl Config {
    /// The targets that the AWS VPC CNI's manifest sets: one spare ENI or one spare prefix.
    #[must_use]
    pub fn upstream() -> Self {
        Self {
            warm_eni_target: Some(1),
            warm_prefix_target: Some(1),
            ..Self::default()
        }
    }

    /// No target is set, so the pool follows the demand.
    #[must_use]
    pub(crate) const fn sizes_itself(&self) -> bool {
        self.warm_eni_target.is_none()
            && self.warm_ip_target.is_none()
            && self.minimum_ip_target.is_none()
            && self.warm_prefix_target.is_none()
    }
}
