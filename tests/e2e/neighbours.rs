//! Programs that share a node with Hawser, each set up with the commands that it runs itself.
//!
//! Owns their commands, as published. May use `lab`, `suite` and `support`. Must not know the other themes. The rows of
//! `docs/faults.md` from N1 on name these tests.

mod host_addresses;
mod interfaces;
mod metadata_agent;
mod multus;
mod operating_system;
mod orchestrators;
mod policy_engines;
mod predecessors;
mod standard_plugins;
mod vip;
mod vpn;

use crate::suite::suites;

suites!(
    host_addresses,
    interfaces,
    metadata_agent,
    multus,
    operating_system,
    orchestrators,
    policy_engines,
    predecessors,
    standard_plugins,
    vip,
    vpn
);
