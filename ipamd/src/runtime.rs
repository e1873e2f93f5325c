//! What every part of the daemon uses: clocks, worker threads, supervised tasks, and the log.
//!
//! Must not know what the daemon does. Uses no other folder.

pub mod clock;
#[cfg(test)]
pub mod corpus;
pub mod log;
pub mod supervise;
pub mod worker;
