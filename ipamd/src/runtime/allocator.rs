//! The C library's memory allocator.

use nix::libc;

/// Lets all threads share one memory arena. By default, glibc creates an arena for each of the daemon's threads and keeps
/// what each has freed, which is a third of the daemon's memory. The threads allocate too rarely to wait for each other.
///
/// To be called before other threads start. Other C libraries have no arenas, so nothing is done there.
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "no safe wrapper exists")
)]
pub fn use_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers and the allocator's own lock.
    let done = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    #[cfg(target_env = "gnu")]
    debug_assert_eq!(done, 1, "M_ARENA_MAX is a parameter of glibc");
}
