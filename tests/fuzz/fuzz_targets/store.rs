//! What may stand in the state file.

#![no_main]

#[path = "../../../ipamd/src/cloud"]
mod cloud {
    pub mod identity;
}
#[path = "../../../ipamd/src"]
mod daemon {
    pub mod store;
}
#[path = "../../../ipamd/src/foreign/store.rs"]
mod foreign;
use daemon::store;

/// Stands in for the daemon's clock: here it only times commits.
mod clock {
    pub fn now() -> planner::Mono {
        planner::Mono::ZERO
    }
}

/// Stands in for the daemon's counters, which nobody reads here.
mod metrics {
    #[derive(Debug)]
    pub struct Metrics;

    impl Metrics {
        pub fn committed(&self, _: std::time::Duration) {}
    }
}

libfuzzer_sys::fuzz_target!(
    // The daemon catches panics of the database; the fuzzer's own hook would end the process at the first. A panic that
    // is not caught ends it all the same.
    init: std::panic::set_hook(Box::new(|_| {})),
    |input: &[u8]| foreign::store(input)
);
