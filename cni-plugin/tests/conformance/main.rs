//! The CNI conformance table, walked row by row with the real binary against a recording daemon: what the plugin alone
//! decides. Rows that need a network behind the daemon are walked in the lab. Needs root, for namespaces.

#![expect(
    clippy::unwrap_used,
    reason = "a test; its helpers are no test functions to the lint"
)]

mod daemon;
mod input;
mod runtime;
mod verbs;
