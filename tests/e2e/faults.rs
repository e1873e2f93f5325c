//! Faults of a running node, by the rows of `docs/faults.md`.
//!
//! Owns no helper that another theme needs: those are in `support`. May use `lab`, `suite` and `support`. Must not know
//! the other themes.

mod api_server;
mod ec2;
mod host_addresses;
mod hostile_callers;
mod node;
mod repair;

use crate::suite::suites;

suites!(
    api_server,
    ec2,
    host_addresses,
    hostile_callers,
    node,
    repair
);
