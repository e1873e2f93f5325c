//! `ipamd doctor` against a node on which everything that it can find is made to happen, one thing after the other.
//!
//! Owns the examined node (`ward`) and the findings by where they are. May use `lab` and `support`. Must not know how
//! the doctor looks.

mod cloud;
mod host;
mod kernel;
mod pool;
mod report;
mod ward;

use crate::suite::suites;

suites!(cloud, host, kernel, pool, report);
