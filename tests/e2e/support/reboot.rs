//! Another boot of the machine, as far as the daemon sees it.

use std::fs;

use lab::Lab;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::suite::Outcome;

/// Runs `then` with another boot id.
pub fn after_reboot(lab: &Lab, then: impl FnOnce() -> Outcome) -> Outcome {
    const BOOT: &str = "/proc/sys/kernel/random/boot_id";
    let other = lab.dir().join("boot_id");
    fs::write(&other, "00000000-0000-4000-8000-000000000001\n")?;
    mount(
        Some(&other),
        BOOT,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    let outcome = then();
    umount2(BOOT, MntFlags::MNT_DETACH)?;
    outcome
}
