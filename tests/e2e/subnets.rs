//! Pods on other subnets than the node: subnet discovery, custom networking, and what each costs in calls.
//!
//! Owns the VPC with several subnets (`vpc`). May use `lab`, `suite` and `support`. Must not know the other themes.

mod custom;
mod discovery;
mod doctor;
mod traffic;
mod vpc;

use crate::suite::suites;

suites!(custom, discovery, doctor, traffic);
