//! Strikes the real daemon at every boundary of an effect, and judges what becomes of it.
//!
//! An effect is whatever outlives the process: a write or sync of the state file, a netlink request, an EC2 call, an
//! answer to the plugin. The unmodified binary is traced from outside (`tracer`), each system call that is an effect
//! gets a name (`effect`), a first run lists them and in one more run per boundary a SIGKILL or a refusal of the kernel's
//! falls just there (`campaign`); then node, kernel and EC2's ledger are compared (`audit`). What takes the daemon
//! minutes takes a test none (`ahead`).

pub mod ahead;
pub mod audit;
pub mod campaign;
pub mod effect;
pub mod registers;
pub mod stage;
pub mod tracer;
