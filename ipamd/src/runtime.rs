//! What every part of the daemon uses: clocks, worker threads, supervised tasks, the log and memory.
//!
//! Must not know what the daemon does. Uses no other folder.

pub mod clock;
#[cfg(test)]
pub mod corpus;
pub mod log;
pub mod memory;
pub mod supervise;
pub mod worker;
