//! The node's nftables: table `ip hawser`, which marks every packet of a pod with its ENI.
//!
//! Owns the ruleset of design §4.2 and the transactions that change it. Uses netfilter netlink directly: no binary in
//! the image, no lock, no text to compare. Every change is one transaction, so no packet sees a partial change. This is
//! true for rules. The contents of sets and maps take effect slightly before or after the rules that use them, so the
//! table that is replaced has no sets and no maps. Host ports are elements of maps in tables of their own, which stay
//! ([`ports`]). May use `netlink` and `netns`. Must not know single pods.
//!
//! Only our own bits of a packet's or connection's mark are changed.

mod batch;
mod choose_eni;
mod egress;
mod encoder;
mod expr;
mod guard;
mod ipv6;
mod leftovers;
pub(crate) mod list;
mod observe;
mod parts;
mod ports;
mod ruleset;
mod socket;

pub(crate) use leftovers::{AWS_NODE_CHAINS, AWS_NODE_COMMENTS};

pub use egress::{Egress, Snat, SourcePorts};
pub use list::Listed;
pub use observe::{Fingerprint, NftMonitor};
pub use ports::{PortEntry, PortRules};
pub use ruleset::Ruleset;
pub use socket::Nft;

#[cfg(test)]
mod tests;
