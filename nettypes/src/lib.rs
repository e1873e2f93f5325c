//! Types of the network that every crate shares: hardware address, address family, index of an ENI, identity of a
//! network namespace, what a pod asks of its network.
//!
//! Owns their meaning and their text form. Must not know any other crate of the workspace; does no I/O beyond asking
//! what a descriptor is.

mod asked;
mod bandwidth;
mod eni_index;
mod family;
mod host_port;
mod mac;
pub mod netns;

pub use asked::Asked;
pub use bandwidth::{Bandwidth, RateLimit};
pub use eni_index::EniIndex;
pub use family::Family;
pub use host_port::{HostPort, Transport};
pub use mac::Mac;
