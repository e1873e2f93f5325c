//! Anything that a connection to the daemon may receive.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ipamd::rpc::fuzz_entry::rpc(input));
