//! The command line: `run`, `inspect`, `doctor` and `max-pods`.
//!
//! Only `run` changes anything. May use every other folder.
//!
//! No other folder may use it, and it must not know how they work inside.

pub mod cli;
pub mod doctor;
mod saved_view;
