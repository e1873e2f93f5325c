//! The node's own network: rules, ENI tables, device settings, the marking of packets (design §4.2).
//!
//! Owns everything on a node that does not belong to one pod. Each function compares the actual state with the desired
//! state: correct objects are not touched, missing ones are added, and wrong ones are removed last. All functions can
//! therefore be repeated at any time, under traffic. Rules and routes of other programs are recognised by their
//! protocol number and are not changed. May use `filter`, `netlink`, `nft` and `pod`; must not know AWS or who calls.

mod config;
mod eni;
mod error;
mod foreign;
mod ipv6;
mod link;
mod migration;
mod monitor;
mod node;
mod reconciler;
mod rules;
mod stale;
mod sysctl;
mod uninstall;

pub use config::HostConfig;
pub use eni::{EniLink, add_eni, remove_eni};
pub use error::HostError;
pub use foreign::{ForeignPod, Predecessor, Scene, Steered};
pub use monitor::{Changes, HostMonitor};
pub use node::{Prepared, prepare, update_local};
pub use reconciler::{Claims, DirtySet, Reconciler, Removed, Repaired, find};
pub use rules::conflicts;
pub use uninstall::{HandedBack, let_go, restore_classic, uninstall};

#[cfg(test)]
mod tests;
