//! The node's network, configured from outside the pods: namespaces, netlink and nftables.
//!
//! Owns every object that Hawser creates in the kernel, how it is undone, and how it is compared with the desired
//! state. All calls are blocking: an ADD is a dozen requests in a row, and the daemon makes them from a dedicated
//! thread. Must not know AWS, Kubernetes or an async runtime, and enters only namespaces that the caller passes.

pub mod conntrack;
pub mod constants;
pub mod filter;
#[doc(hidden)]
pub mod fuzz_entry;
pub mod host;
pub mod marks;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod pod;
pub mod sockets;
pub mod uplink;

#[cfg(test)]
mod testing;
