//! Processes that die, or that the kernel refuses what they need: at every effect, at a start, between starts.
//!
//! Owns the campaigns. May use `lab` (its `crash` traces the daemon), `suite` and `support`. Must not know the other
//! themes.

mod common;
mod files;
mod kill;
mod names;
mod processes;
mod refused_effects;
mod restart;
mod shrink;
mod start;
mod upgrade;

use crate::suite::suites;

suites!(
    files,
    kill,
    names,
    processes,
    refused_effects,
    restart,
    shrink,
    start,
    upgrade,
);
