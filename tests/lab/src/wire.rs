//! The protocol between plugin and daemon, from outside: hand-made frames, and a recorded exchange.
//!
//! Owns the framing. Must not know the meaning of messages, or nodes.
//!
//! May use `proto` only.

pub mod http2;
pub mod recording_proxy;
