//! The address pool: the task that owns the planner, and the tasks that send events to it.
//!
//! Must not know the kernel, the CNI verbs, or HTTP. May use `runtime`, `telemetry`, `state`, `ec2`, `node` and the
//! seam of `host`.

pub mod checkpoint;
pub mod discovery;
pub mod driver;
pub mod groups;
pub mod restorable;
