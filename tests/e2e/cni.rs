//! What container runtimes and the kubelet see: the verbs, their refusals, and how a node fills and grows.
//!
//! Owns no helper that another theme needs: those are in `support`. May use `lab`, `suite` and `support`. Must not know
//! the other themes.

mod chain;
mod conformance;
mod growth;
mod lifecycle;
mod limits;
mod prefixes;
mod refusals;
mod runtime;
mod upgrade;

use crate::suite::suites;

suites!(
    chain,
    conformance,
    growth,
    lifecycle,
    limits,
    prefixes,
    refusals,
    runtime,
    upgrade
);
