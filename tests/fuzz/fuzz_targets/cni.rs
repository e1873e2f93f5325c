//! What a container runtime hands to the plugin: six variables and a configuration on stdin.

#![no_main]

#[path = "../../../cni-plugin/src"]
mod plugin {
    pub mod client;
    pub mod conf;
    pub mod env;
    pub mod error;
    pub mod fuzz_entry;
    pub mod gc;
    pub mod json;
    pub mod netns;
    pub mod result;
    pub mod rpc;
    pub mod version;
}
use plugin::{client, conf, env, error, gc, json, netns, result, rpc, version};

libfuzzer_sys::fuzz_target!(|input: &[u8]| plugin::fuzz_entry::cni(input));
