//! What the process keeps of its memory.
//!
//! The C library's allocator keeps what was freed, and the kernel keeps all code resident that ever ran, most of it at the
//! start only. Both are given back while the daemon runs. The code stays in the page cache: what is used again is mapped again,
//! by a page fault of a microsecond for each 64 KiB.

use std::{ffi::c_void, fs, io, ops::Range, ptr::NonNull, time::Duration};

use nix::{
    libc,
    sys::mman::{MmapAdvise, madvise},
};

/// After the start, and between two looks at what was freed. A look takes less than a millisecond.
const PERIOD: Duration = Duration::from_secs(60);

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

/// Gives back what the start used, and from then on what was freed, forever.
pub async fn give_back() {
    tokio::time::sleep(PERIOD).await;
    if let Err(error) = unmap_code() {
        tracing::debug!(%error, "the code of the start stays resident");
    }
    loop {
        // Off the threads that serve ADDs.
        let trimmed = tokio::task::spawn_blocking(trim);
        trimmed.await.unwrap_or_default();
        tokio::time::sleep(PERIOD).await;
    }
}

/// Gives the allocator's free pages back to the kernel.
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "no safe wrapper exists")
)]
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and the allocator's own lock.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps the pages of the program's code.
#[expect(unsafe_code, reason = "madvise may destroy the content of a mapping")]
fn unmap_code() -> io::Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let here = unmap_code as *const () as usize;
    let code = code(&maps, here).ok_or(io::ErrorKind::NotFound)?;
    let start = NonNull::new(code.start as *mut c_void).ok_or(io::ErrorKind::NotFound)?;
    // SAFETY: nobody writes to a mapping that cannot be written, so its pages are those of the file, and the kernel maps them
    // again at the next access.
    unsafe { madvise(start, code.len(), MmapAdvise::MADV_DONTNEED) }?;
    Ok(())
}

/// The executable, unwritable mapping with the address `within`. `maps` is `/proc/self/maps`.
fn code(maps: &str, within: usize) -> Option<Range<usize>> {
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let parse = |text| usize::from_str_radix(text, 16).ok();
        let range = parse(start)?..parse(end)?;
        (rest.starts_with("r-xp") && range.contains(&within)).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident, in kB.
    fn resident(what: &str) -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn only_the_mapping_of_the_code_is_found() {
        let maps = "\
            1000-3000 r--p 00000000 fe:00 7 /usr/bin/ipamd\n\
            3000-9000 r-xp 00002000 fe:00 7 /usr/bin/ipamd\n\
            9000-a000 r--p 00008000 fe:00 7 /usr/bin/ipamd\n\
            a000-b000 rw-p 00000000 00:00 0 [heap]\n\
            f000-ffff r-xp 00000000 fe:00 8 /usr/lib/libc.so.6\n";
        assert_eq!(code(maps, 0x8fff), Some(0x3000..0x9000));
        // Relocated data, which cannot be written any more, differs from the file.
        assert_eq!(code(maps, 0x9000), None);
        assert_eq!(code("nonsense\n-\n", 0), None);
    }

    #[test]
    fn unmapped_code_runs_on() {
        let before = resident("RssFile:");
        unmap_code().unwrap();
        let after = resident("RssFile:");
        assert!(after < before, "{before} kB, then {after}");
    }

    #[test]
    fn freed_memory_is_given_back() {
        let mut blocks: Vec<_> = (0..1000).map(|_| vec![7_u8; 16 * 1024]).collect();
        // The last one keeps the allocator from shrinking the heap by itself.
        let last = blocks.pop();
        drop(blocks);
        let before = resident("RssAnon:");
        trim();
        let after = resident("RssAnon:");
        assert!(after + 8 * 1024 < before, "{before} kB, then {after}");
        drop(last);
    }
}
