//! The CNI conformance table, row by row, with the real binary and a recording daemon: the rows that the plugin alone
//! decides. Rows that need a network are in the lab tests. Needs root for namespaces.

#![expect(
    clippy::unwrap_used,
    reason = "a test; its helpers are no test functions to the lint"
)]

mod daemon;
mod input;
mod runtime;
mod verbs;
