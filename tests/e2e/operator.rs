//! What operators and their tools see of a node: commands, pages, metrics, alerts and traces.
//!
//! Owns no helper that another theme needs: those are in `support`. May use `lab`, `suite` and `support`. Must not know
//! the other themes.

mod cli;
mod closed_pipe;
mod deploy;
mod doctor;
mod inspect;
mod install;
mod introspection;
mod memory;
mod node_object;
mod page;
mod settings;
mod traces;
mod uninstall;

use crate::suite::suites;

suites!(
    cli,
    closed_pipe,
    deploy,
    doctor,
    inspect,
    install,
    introspection,
    memory,
    node_object,
    page,
    settings,
    traces,
    uninstall
);
