//! What a connection to the daemon may bring.

#![no_main]

#[path = "../../../ipamd/src/foreign/rpc.rs"]
mod foreign;

libfuzzer_sys::fuzz_target!(|input: &[u8]| foreign::rpc(input));
