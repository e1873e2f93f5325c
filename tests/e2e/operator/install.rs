//! `ipamd install` on hosts where the plugin cannot be installed: one line says which path, and what the kernel answered.
//! A plugin that is already there stays.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use lab::{Lab, node::binaries};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    a_directory_without_execute_permission_is_named,
    a_file_system_mounted_noexec_is_named,
    a_full_disk_is_named_and_the_old_plugin_stays,
    a_missing_directory_is_named,
    a_read_only_directory_is_named_unless_the_plugin_is_there,
);

const OLD: &str = "the old plugin";

/// A plugin directory on a file system of its own.
struct Host {
    directory: PathBuf,
    lab: Lab,
}

impl Host {
    fn new(options: &str, flags: MsFlags) -> io::Result<Self> {
        let lab = Lab::start(SimConfig::default())?;
        let directory = lab.dir().join("bin");
        fs::create_dir(&directory)?;
        let tmpfs = Some("tmpfs");
        mount(tmpfs, &directory, tmpfs, flags, Some(options))?;
        Ok(Self { directory, lab })
    }

    fn plugin(&self) -> PathBuf {
        self.directory.join("hawser")
    }

    fn unfinished(&self) -> PathBuf {
        self.directory.join(".hawser.new")
    }

    /// The output of `ipamd install`, or its error.
    fn install(&self, program: &mut Command) -> io::Result<Result<String, String>> {
        install(program, &self.directory, &self.lab.dir().join("image"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // An error cannot be handled here. The mount also ends with the test's namespace.
        umount2(&self.directory, MntFlags::MNT_DETACH).unwrap_or_default();
    }
}

/// Installs the file `image`, which is created if it is missing.
fn install(
    program: &mut Command,
    directory: &Path,
    image: &Path,
) -> io::Result<Result<String, String>> {
    if !image.exists() {
        fs::write(image, [7; 256 << 10])?;
    }
    let output = program
        .env_clear()
        .arg("install")
        .arg("--plugin")
        .arg(image)
        .arg("--directory")
        .arg(directory)
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    })
}

fn ipamd() -> Command {
    Command::new(binaries::ipamd())
}

fn a_missing_directory_is_named() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (directory, image) = (lab.dir().join("bin"), lab.dir().join("image"));
    let told = install(&mut ipamd(), &directory, &image)?;
    let wanted = format!(
        "ipamd: {} is not a directory on the host: mount the runtime's plugin directory there: No such file or \
         directory (os error 2)",
        directory.display()
    );
    assert_eq!(told, Err(wanted));
    Ok(())
}

fn a_full_disk_is_named_and_the_old_plugin_stays() -> Outcome {
    let host = Host::new("size=64k", MsFlags::empty())?;
    fs::write(host.plugin(), OLD)?;
    let wanted = format!(
        "ipamd: cannot write {}: No space left on device (os error 28)",
        host.unfinished().display()
    );
    assert_eq!(host.install(&mut ipamd())?, Err(wanted));
    assert_eq!(fs::read_to_string(host.plugin())?, OLD);
    assert!(!host.unfinished().exists(), "the space is free again");
    Ok(())
}

fn a_read_only_directory_is_named_unless_the_plugin_is_there() -> Outcome {
    let host = Host::new("", MsFlags::empty())?;
    let none = None::<&str>;
    let read_only = |flag| {
        let flags = MsFlags::MS_REMOUNT | flag;
        mount(none, &host.directory, none, flags, none)
    };
    read_only(MsFlags::MS_RDONLY)?;
    let wanted = format!(
        "ipamd: cannot create {}: Read-only file system (os error 30)",
        host.unfinished().display()
    );
    assert_eq!(host.install(&mut ipamd())?, Err(wanted));
    read_only(MsFlags::empty())?;
    let path = host.plugin().display().to_string();
    assert_eq!(
        host.install(&mut ipamd())?,
        Ok(format!("{path} was written"))
    );
    read_only(MsFlags::MS_RDONLY)?;
    assert_eq!(
        host.install(&mut ipamd())?,
        Ok(format!("{path} is up to date"))
    );
    Ok(())
}

/// The init container has no capabilities, so root's permissions are checked as anybody's.
fn a_directory_without_execute_permission_is_named() -> Outcome {
    let host = Host::new("mode=644", MsFlags::empty())?;
    fs::set_permissions(&host.directory, fs::Permissions::from_mode(0o644))?;
    let mut unprivileged = Command::new("setpriv");
    unprivileged
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(binaries::ipamd());
    let wanted = format!(
        "ipamd: cannot create {}: Permission denied (os error 13)",
        host.unfinished().display()
    );
    assert_eq!(host.install(&mut unprivileged)?, Err(wanted));
    Ok(())
}

fn a_file_system_mounted_noexec_is_named() -> Outcome {
    let host = Host::new("", MsFlags::MS_NOEXEC)?;
    let wanted = format!(
        "ipamd: {} is mounted with noexec, so the runtime could not execute a plugin in it: remount it with exec, or \
         configure another directory in the runtime and here",
        host.directory.display()
    );
    assert_eq!(host.install(&mut ipamd())?, Err(wanted));
    assert!(!host.plugin().exists());
    Ok(())
}
