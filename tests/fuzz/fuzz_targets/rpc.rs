//! What a connection to the daemon may bring.

#![no_main]

#[path = "../../../ipamd/src"]
mod daemon {
    pub mod listener;
    pub mod supervise;
}
#[path = "../../../ipamd/src/foreign/rpc.rs"]
mod foreign;
use daemon::{listener, supervise};

/// Stands in for the daemon's clock: here it only times complaints.
mod clock {
    pub fn now() -> planner::Mono {
        planner::Mono::ZERO
    }
}

/// Stands in for what puts an error into words, which nobody reads here.
mod refusals {
    pub fn chain(error: &dyn std::error::Error) -> String {
        error.to_string()
    }
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| foreign::rpc(input));
