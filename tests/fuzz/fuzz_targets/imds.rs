//! Anything that the instance metadata service may answer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ipamd::node::fuzz_entry::imds(input));
