//! Anything that may be in the state file.

#![no_main]

#[path = "../../../ipamd/src/node"]
mod node {
    pub mod identity;
}
#[path = "../../../ipamd/src/state"]
mod state {
    pub mod fuzz_entry;
    pub mod store;
}

mod runtime {
    /// Replaces the daemon's clock, which only measures commits here.
    pub mod clock {
        pub fn now() -> planner::Mono {
            planner::Mono::ZERO
        }
    }
}

mod telemetry {
    /// Replaces the daemon's metrics, which are not used here.
    pub mod metrics {
        #[derive(Debug)]
        pub struct Metrics;

        impl Metrics {
            pub fn committed(&self, _: std::time::Duration) {}
        }
    }
}

libfuzzer_sys::fuzz_target!(
    // The daemon catches panics of the database; the fuzzer's own hook would end the process at the first one. A panic
    // that is not caught still ends it.
    init: std::panic::set_hook(Box::new(|_| {})),
    |input: &[u8]| state::fuzz_entry::store(input)
);
