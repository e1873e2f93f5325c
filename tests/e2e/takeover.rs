//! Taking a node over from the AWS VPC CNI and giving it back, while its pods talk.
//!
//! The nodes are built by `lab::aws_node` as they were recorded. May use `lab`, `suite` and `support`. Must not know the
//! other themes.

mod back;
mod flows;
mod forth;
mod kill;
mod other_family;
mod real;
mod verbs;

use crate::suite::suites;

suites!(back, forth, kill, other_family, real, verbs);
