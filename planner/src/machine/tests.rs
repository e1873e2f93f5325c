//! The planner against a small EC2 of its own (`world`): scenarios by name, and random runs against a model.

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
mod throttling;
mod world;
