//! `ipamd doctor` on a node on which each of its findings is provoked, one after another.
//!
//! Owns the examined node (`ward`) and the findings by area. May use `lab` and `support`. Must not know how the doctor
//! works.

mod cloud;
mod host;
mod kernel;
mod pool;
mod report;
mod ward;

use crate::suite::suites;

suites!(cloud, host, kernel, pool, report);
