//! The command line: `run`, `inspect`, `doctor` and `max-pods`.
//!
//! Only `run` changes anything. May use every other folder.

pub mod cli;
pub mod doctor;
mod saved_view;
