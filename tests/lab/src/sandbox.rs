//! The process's private environment: mount and network namespaces that are created before any thread, so that
//! everything that a test leaves behind ends with them. Without root, a user namespace comes first.

use std::{fs, io};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

/// Enters the namespaces. Call this first in `main`: `unshare` of a user namespace needs a single thread.
///
/// # Errors
/// One line with the missing permission and the remedy.
pub fn enter() -> Result<(), String> {
    let (uid, gid) = (geteuid(), getegid());
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    if !uid.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).map_err(|errno| {
        format!("cannot make namespaces ({errno}): run as root, or allow user namespaces (sysctl user.max_user_namespaces)")
    })?;
    if !uid.is_root() {
        map_root(uid.as_raw(), gid.as_raw())
            .map_err(|e| format!("cannot become root in a user namespace: {e}"))?;
    }
    // Mounts made here must not propagate to the machine.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .map_err(|errno| format!("cannot make mounts private: {errno}"))
}

fn map_root(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}
