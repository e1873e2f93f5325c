//! The executable. Its entry takes the place of the standard library's, see `cni_plugin::entry`.

#![cfg_attr(not(test), no_main)]

#[cfg(not(test))]
#[global_allocator]
static MEMORY: cni_plugin::arena::Arena = cni_plugin::arena::Arena::new();

#[cfg(not(test))]
#[expect(unsafe_code, reason = "the name that the C runtime calls")]
// SAFETY: nothing else in the program has this name, and it is called once.
#[unsafe(no_mangle)]
extern "C" fn main() -> std::ffi::c_int {
    cni_plugin::entry::enter()
}

/// The test harness has its own entry and needs an ordinary `main`.
#[cfg(test)]
fn main() {
    cni_plugin::entry::enter();
}
