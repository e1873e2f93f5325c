//! Kills the real daemon at every boundary of an effect, and judges what a restart makes of it.
//!
//! An effect is whatever outlives the process: a write or sync of the state file, a netlink request, an EC2 call, an
//! answer to the plugin. The unmodified binary is traced from outside (`tracer`), each system call that is an effect
//! gets a name (`effect`), a first run lists them and one more run per boundary ends in SIGKILL just there
//! (`campaign`); then node, kernel and EC2's ledger are compared (`audit`).

pub mod audit;
pub mod campaign;
pub mod effect;
pub mod registers;
pub mod stage;
pub mod tracer;
