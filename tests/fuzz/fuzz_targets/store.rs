//! What may stand in the state file.

#![no_main]
#![expect(
    dead_code,
    reason = "the sources of the daemon, of which only the store is used here"
)]

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

libfuzzer_sys::fuzz_target!(|input: &[u8]| foreign::store(input));
