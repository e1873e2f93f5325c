//! What the daemon tells people about itself: metrics, the recent history, and spans.
//!
//! Must not decide anything or delay anybody. May use `runtime`, `config` and `node`.

pub mod history;
pub mod metrics;
pub mod recorder;
pub mod spans;
