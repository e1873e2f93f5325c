//! Types of the network that every crate shares: hardware address, address family, identity of a network namespace.
//!
//! Owns their meaning and their text form. Must not know any other crate of the workspace; does no I/O beyond asking
//! what a descriptor is.

mod family;
mod mac;
pub mod netns;

pub use family::Family;
pub use mac::Mac;
