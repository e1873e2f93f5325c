//! Provokes every refusal: its code, its text, the counter's label and the log line.
//!
//! Owns the ways to provoke them, grouped by the refusing component. May use `lab` and `support`. Must not know the
//! daemon's own tables.

mod ec2;
mod host;
mod host_ports;

use crate::suite::suites;

suites!(ec2, host, host_ports);
