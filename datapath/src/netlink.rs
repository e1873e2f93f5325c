//! Blocking rtnetlink: one socket per namespace, requests as values, batches in one system call.
//!
//! Owns how requests are sent, how they are matched with their answers, and how errors of the kernel are explained. The
//! verb modules ([`link`], [`addr`], [`route`], [`neigh`], [`rule`], [`qdisc`]) build requests and contain no policy. A socket
//! always belongs to the namespace in which it was opened, whoever uses it later. May use `netns` and `constants`. Must
//! not know pods, ENIs or the ruleset.

pub(crate) mod channel;
mod error;
mod family;
mod monitor;
mod request;
pub(crate) mod socket;
mod tally;

pub mod addr;
pub mod link;
pub mod neigh;
pub mod qdisc;
pub mod route;
pub mod rule;

pub(crate) use channel::{Channel, Frame, align4};
pub use error::Error;
pub use monitor::{Event, Monitor, Topic, wait_for_link_by_mac};
pub use nettypes::{Family, Mac};
pub use nix::errno::Errno;
pub use request::Request;
pub(crate) use socket::verdict;
pub use socket::{Report, Socket};
pub use tally::{Kind, Tally};

#[cfg(test)]
mod tests;
