//! What the daemon reports about itself: metrics, the recent history, and spans.
//!
//! Must not make decisions or delay anything. May use `runtime`, `config` and `node`.

pub mod history;
pub mod metrics;
pub mod recorder;
pub mod spans;
