//! Anything that EC2, or a proxy in its place, may answer: through the real client and our interpretation.

#![no_main]

use std::sync::OnceLock;

use ipamd::ec2::fuzz_entry::Client;

static CLIENT: OnceLock<Client> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|input: &[u8]| CLIENT.get_or_init(Client::default).read(input));
