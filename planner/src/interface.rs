//! What crosses the planner's edge, as plain values: events in, commands out, and the snapshot for people.
//!
//! Owns these types, the names in them and their texts. It may use the clock value, the pod limit and the learnt demand,
//! which are plain values too. It must not know how a decision is made: nothing here reads the pool or the machine.

pub mod command;
pub mod event;
pub mod names;
pub mod obstacle;
pub mod placement;
pub mod snapshot;
