//! The protocol between plugin and daemon, from outside either: frames made by hand, and a recorded conversation.
//!
//! Owns the framing. Must not know what the messages mean, or nodes.

pub mod http2;
pub mod recording_proxy;
