//! Tests the planner with a small simulated EC2 (`world`): scenarios by name, and random runs compared with a model.

mod claims;
mod closing;
mod explain;
mod faults;
mod ipv6;
mod itself;
mod links;
mod lists;
mod obstacles;
mod random;
mod scenarios;
mod shrinking;
mod subnets;
mod throttling;
mod world;
