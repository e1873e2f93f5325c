//! The verbs of the CNI specification, one file each.
//!
//! Owns what each verb asks of the daemon and what it answers. May use `input`, `rpc`, `netns` and `result`; must not read
//! the environment, write to stdout, or know how a call looks on the wire.

pub mod add;
pub mod check;
pub mod del;
pub mod gc;
pub mod status;
pub mod version;
