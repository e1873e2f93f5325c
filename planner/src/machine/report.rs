//! What is told to people: refusals and their causes, the snapshot, and what the planner would do next.
//!
//! Reads the planner's state. Changes nothing but counters and the waiting list. May use the pool, the policy,
//! the gates and the snapshot. Must not know the daemon.

mod explain;
mod obstacles;
mod refuse;
mod view;

pub(super) use obstacles::Obstacles;
