//! IPv6 mode: the same checks on a node whose pods have addresses of one /80 prefix.
//!
//! Owns no helper that another theme needs: those are in `support`. May use `lab`, `suite` and `support`. Must not know
//! the other themes.

mod container;
mod forgery;
mod pods;
mod repair;
mod services;

use crate::suite::suites;

suites!(container, forgery, pods, repair, services);
