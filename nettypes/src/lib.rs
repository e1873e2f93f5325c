//! Types of the network that every crate shares: hardware address, address family, index of an ENI, identity of a
//! network namespace.
//!
//! Owns their meaning and their text form. Must not know any other crate of the workspace; does no I/O beyond asking
//! what a descriptor is.

mod eni_index;
mod family;
mod mac;
pub mod netns;

pub use eni_index::EniIndex;
pub use family::Family;
pub use mac::Mac;
