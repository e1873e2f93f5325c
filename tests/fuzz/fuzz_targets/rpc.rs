//! Anything that a connection to the daemon may receive.

#![no_main]

#[path = "../../../ipamd/src/rpc"]
mod rpc {
    pub mod fuzz_entry;
    pub mod listener;
}
#[path = "../../../ipamd/src/runtime"]
mod runtime {
    pub mod supervise;

    /// Replaces the daemon's clock, which only limits log lines here.
    pub mod clock {
        pub fn now() -> planner::Mono {
            planner::Mono::ZERO
        }
    }
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| rpc::fuzz_entry::rpc(input));
