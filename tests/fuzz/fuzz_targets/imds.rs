//! Anything that the instance metadata service may answer.

#![no_main]

#[path = "../../../ipamd/src/node"]
mod node {
    pub mod fuzz_entry;
    pub mod identity;
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| node::fuzz_entry::imds(input));
