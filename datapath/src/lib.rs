//! The node's network, programmed from outside the pods: namespaces, netlink and nftables.
//!
//! Owns every object that Hawser puts into a kernel, how it is undone, and how it is compared with what ought to be
//! there. Blocking throughout: an ADD is a dozen requests in a row, and the daemon calls this from one thread of its
//! own. Must not know AWS, Kubernetes or an async runtime, and enters no namespace that it was not handed.

pub mod conntrack;
pub mod constants;
pub mod host;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod pod;

#[cfg(test)]
mod fuzz_entry;
#[cfg(test)]
mod testing;
