//! A container runtime's input to the plugin: six variables and a configuration on stdin.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cni_plugin::fuzz_entry::cni(input));
