//! What the planner asks of EC2 and of the host.

use std::time::Duration;

/// One kind of command. Denials are kept for each action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    Create,
    Attach,
    Modify,
    Regroup,
    Configure,
    Assign,
    Unassign,
    Deconfigure,
    Detach,
    Delete,
    Describe,
    Subnets,
}

impl Action {
    /// What the pool needs in order to grow, in the order in which a refusal is told.
    pub(crate) const GROWTH: [Self; 4] = [Self::Create, Self::Attach, Self::Assign, Self::Describe];

    /// Actions on the host do not wait for EC2's gates.
    pub(crate) const fn on_host(self) -> bool {
        matches!(self, Self::Configure | Self::Deconfigure)
    }

    /// After how long an answer is overdue. The daemon has shorter deadlines. These keep a lost answer from blocking an ENI
    /// for ever. Detaching takes seconds, at worst minutes.
    pub(crate) const fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Self::Detach => 240,
            Self::Attach | Self::Configure | Self::Delete => 60,
            _ => 30,
        })
    }

    /// The name of the EC2 operation, for humans.
    pub(crate) const fn api(self) -> &'static str {
        match self {
            Self::Create => "CreateNetworkInterface",
            Self::Attach => "AttachNetworkInterface",
            Self::Modify | Self::Regroup => "ModifyNetworkInterfaceAttribute",
            Self::Configure => "configuring the interface",
            Self::Assign => "AssignPrivateIpAddresses",
            Self::Unassign => "UnassignPrivateIpAddresses",
            Self::Deconfigure => "removing the interface's routes",
            Self::Detach => "DetachNetworkInterface",
            Self::Delete => "DeleteNetworkInterface",
            Self::Describe => "DescribeNetworkInterfaces",
            Self::Subnets => "DescribeSubnets",
        }
    }
}
