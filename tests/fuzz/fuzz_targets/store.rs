//! Anything that may be in the state file.

#![no_main]

libfuzzer_sys::fuzz_target!(
    // The daemon catches panics of the database; the fuzzer's own hook would end the process at the first one. A panic
    // that is not caught still ends it.
    init: std::panic::set_hook(Box::new(|_| {})),
    |input: &[u8]| ipamd::state::fuzz_entry::store(input)
);
