//! What the operator asked for, already parsed. Reading it from the environment is the shell's work.

use std::time::Duration;

/// The policy's inputs. Names, defaults and precedence are those of the AWS VPC CNI's variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `WARM_ENI_TARGET`: keep this many ENIs' worth of free addresses. Ignored when either IP target is set.
    pub warm_eni_target: u32,
    /// `WARM_IP_TARGET`: free addresses to keep.
    pub warm_ip_target: Option<u32>,
    /// `MINIMUM_IP_TARGET`: the least number of addresses to hold in all.
    pub minimum_ip_target: Option<u32>,
    /// `WARM_PREFIX_TARGET`: free /28 prefixes to keep, in prefix mode.
    pub warm_prefix_target: u32,
    /// `MAX_ENI`: never hold more ENIs than this, whatever the instance could.
    pub max_eni: Option<u16>,
    /// `ENABLE_PREFIX_DELEGATION`: ask for /28 prefixes instead of single addresses (Nitro only).
    pub prefix_delegation: bool,
    /// `IP_COOLDOWN_PERIOD`: how long a released address rests before it is granted again.
    pub cooldown: Duration,
    /// `AWS_MANAGE_ENIS_NON_SCHEDULABLE`: grow and free ENIs on a cordoned node too.
    pub manage_cordoned: bool,
    /// Whether the pool may call EC2 to grow or shrink (`DISABLE_NETWORK_RESOURCE_PROVISIONING` inverted).
    pub provisioning: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            warm_eni_target: 1,
            warm_ip_target: None,
            minimum_ip_target: None,
            warm_prefix_target: 1,
            max_eni: None,
            prefix_delegation: false,
            cooldown: Duration::from_secs(30),
            manage_cordoned: false,
            provisioning: true,
        }
    }
}
