//! Kills the real daemon, or makes the kernel refuse its calls, at every boundary of an effect, and checks the result.
//!
//! An effect is anything that outlives the process: a write or sync of the state file, a netlink request, an EC2 call,
//! an answer to the plugin. The unmodified binary is traced from outside (`tracer`), and each system call that is an
//! effect gets a name (`effect`). A first run lists them. One more run per boundary kills the daemon or makes the
//! kernel refuse the call exactly there (`campaign`). Afterwards, node, kernel and EC2's ledger are compared (`audit`).
//! A test does not wait for the daemon's minutes (`clock_offset`).
//!
//! May use `node`, `traffic`, `wait` and the lab. Must not know the daemon's code.

pub mod audit;
pub mod campaign;
pub mod clock_offset;
pub mod effect;
pub mod registers;
pub mod setup;
pub mod tracer;
