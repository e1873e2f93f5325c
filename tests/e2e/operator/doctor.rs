//! `ipamd doctor` on a node on which each of its findings is provoked, one after another.
//!
//! Owns the examined node (`doctor_node`) and the findings by area. May use `lab` and `support`. Must not know how the doctor
//! works.

mod cloud;
mod doctor_node;
mod host;
mod kernel;
mod neighbours;
mod pool;
mod probe;
mod report;

use crate::suite::suites;

suites!(cloud, host, kernel, neighbours, pool, probe, report);
