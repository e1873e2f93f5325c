//! Whether the filters of other programs drop pods' packets on their way through the node.
//!
//! Reads the rulesets of nftables, of iptables on top of it, and of the older iptables, and follows a new TCP connection
//! through each chain of the forward hook and of the hooks around it. Owns no rule, and only [`remove_legacy`] changes
//! something. Reading does not load a ruleset that is absent. Hawser's own tables are left out. May use `marks`, `netlink` and
//! `nft`. Must not know pods or the reason for the question.
//!
//! If a condition cannot be decided here, the packet is assumed to pass: only what is certainly dropped is reported.

mod chains;
mod legacy;
mod nft;
mod xt;

use std::fmt;

use crate::{
    marks::Marks,
    netlink::{Error, Family},
};

/// A new connection that the node forwards. Addresses are not known; a rule about them may match.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub family: Family,
    /// The link that it comes in by.
    pub iif: &'a str,
    /// The link that it leaves by.
    pub oif: &'a str,
    /// The bits of the packet mark that tell ENIs apart: it may have any of them, and no other.
    pub marks: Marks,
}

/// A chain that drops the packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blocked {
    /// `nft` or `iptables-legacy`.
    pub backend: &'static str,
    /// Such as `ip filter`.
    pub table: String,
    pub chain: String,
    pub why: Why,
}

/// What drops the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// No rule accepts it.
    Policy,
    /// A rule drops or rejects it.
    Rule,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            backend,
            table,
            chain,
            why,
        } = self;
        let why = match why {
            Why::Policy => "its policy is drop, and no rule accepts the packet",
            Why::Rule => "a rule drops the packet",
        };
        write!(f, "{backend} table {table}, chain {chain}: {why}")
    }
}

/// The chains that drop `packet`, in order.
///
/// # Errors
/// If an existing ruleset cannot be read.
pub fn blocked(packet: &Packet<'_>) -> Result<Vec<Blocked>, Error> {
    let mut found = nft::blocked(packet)?;
    found.extend(legacy::blocked(packet)?);
    found.sort();
    found.dedup();
    Ok(found)
}

/// Whether a ruleset of the older iptables contains one of these texts, such as the name of a chain.
///
/// # Errors
/// If a ruleset that is there cannot be read.
pub fn legacy_mentions(family: Family, texts: &[&str]) -> Result<bool, Error> {
    legacy::mentions(family, texts)
}

/// Objects in rulesets of the older iptables.
#[derive(Clone, Copy, Debug)]
pub struct OfLegacy<'a> {
    /// What the names of chains begin with.
    pub chains: &'a [&'a str],
    /// The comments of rules in chains of others.
    pub comments: &'a [&'a str],
}

/// Why objects could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum LegacyError {
    /// Without the lock, changes of other programs could be lost.
    #[error("the lock of iptables, /run/xtables.lock, could not be taken")]
    Lock(#[source] std::io::Error),
    /// The kernel's error.
    #[error(transparent)]
    Kernel(#[from] Error),
}

/// Removes objects from the rulesets of the older iptables, with the rules that lead to them, and returns each as text. The
/// other rules keep their counters.
///
/// # Errors
/// [`LegacyError`]. A repetition removes the rest.
pub fn remove_legacy(family: Family, wanted: &OfLegacy<'_>) -> Result<Vec<String>, LegacyError> {
    legacy::remove(family, wanted)
}

#[cfg(test)]
mod tests;
