//! What EC2, or a proxy in its place, may answer: through the real client, and what we make of its answers.

#![no_main]

use std::sync::OnceLock;

#[path = "../../../ipamd/src/cloud"]
mod cloud {
    pub mod aws;
    pub mod call;
    pub mod class;
    pub mod identity;
    pub use call::{Bond, Call, CallError, CallFuture, Ec2, Interface, Reply};
}
#[path = "../../../ipamd/src/foreign/ec2.rs"]
mod foreign;

static CLIENT: OnceLock<foreign::Client> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|input: &[u8]| CLIENT.get_or_init(foreign::Client::new).read(input));
