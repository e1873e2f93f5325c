//! Every refusal, provoked: its code, its words, the counter's label and the line in the log.
//!
//! Owns the ways to provoke them, by who refuses. May use `lab` and `support`. Must not know the daemon's own tables.

mod ec2;
mod host;

use crate::suite::suites;

suites!(ec2, host);
