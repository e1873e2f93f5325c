//! Anything that EC2, or a proxy in its place, may answer: through the real client and our interpretation.

#![no_main]

use std::sync::OnceLock;

#[path = "../../../ipamd/src/ec2"]
mod ec2 {
    pub mod api;
    pub mod aws;
    pub mod classify;
    pub mod fuzz_entry;
}
#[path = "../../../ipamd/src/node"]
mod node {
    pub mod http_client;
    pub mod identity;
}

static CLIENT: OnceLock<ec2::fuzz_entry::Client> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|input: &[u8]| CLIENT
    .get_or_init(ec2::fuzz_entry::Client::new)
    .read(input));
