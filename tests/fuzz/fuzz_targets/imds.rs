//! What the instance metadata service may answer.

#![no_main]

#[path = "../../../ipamd/src/cloud"]
mod cloud {
    pub mod identity;
}
#[path = "../../../ipamd/src/foreign/imds.rs"]
mod foreign;

libfuzzer_sys::fuzz_target!(|input: &[u8]| foreign::imds(input));
