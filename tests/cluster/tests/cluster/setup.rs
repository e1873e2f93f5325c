//! The size of the test's cluster, and how long the test waits.

use std::time::Duration;

/// The limit of every wait. A busy machine takes ten times as long as an idle one.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// The same for kubectl.
pub const TIMEOUT: &str = "--timeout=240s";
/// 27 pod addresses.
pub const KIND: &str = "m5.large";
pub const NODES: usize = 2;
pub const TAINT: &str = "hawser.dev/agent-not-ready";
