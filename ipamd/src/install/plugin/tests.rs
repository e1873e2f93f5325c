//! The plugin on the host: installed, replaced while it runs, and removed.

use std::{
    error::Error as _,
    fs,
    io::{self, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    process::Stdio,
};

use super::{InstallError, Installed, NAME, UNFINISHED, install, remove};

/// An image with a plugin and a host without one, in the test's own directory.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("hawser-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("host")).unwrap();
        fs::write(root.join("image"), "one").unwrap();
        Self(root)
    }

    fn host(&self) -> PathBuf {
        self.0.join("host")
    }

    fn install(&self) -> Result<Installed, InstallError> {
        install(&self.0.join("image"), &self.host())
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.host()).unwrap();
        names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn the_plugin_is_installed_once_and_replaced_when_it_is_another() {
    let scratch = Scratch::new("install");
    let target = scratch.host().join(NAME);
    assert_eq!(scratch.install().unwrap(), Installed::Written);
    assert_eq!(scratch.install().unwrap(), Installed::Unchanged);
    fs::write(scratch.0.join("image"), "two").unwrap();
    assert_eq!(scratch.install().unwrap(), Installed::Written);
    assert_eq!(fs::read_to_string(&target).unwrap(), "two");
    let mode = fs::metadata(&target).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert_eq!(scratch.files(), [NAME]);
    remove(&scratch.host()).unwrap();
    remove(&scratch.host()).unwrap();
    assert!(scratch.files().is_empty());
}

/// Writing to the file of a running program fails with ETXTBSY.
#[test]
fn a_running_plugin_is_replaced_and_goes_on() {
    let scratch = Scratch::new("running");
    let target = scratch.host().join(NAME);
    fs::copy("/bin/cat", scratch.0.join("image")).unwrap();
    assert_eq!(scratch.install().unwrap(), Installed::Written);
    let mut command = std::process::Command::new(&target);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let running = command.spawn().unwrap();
    let in_place = fs::OpenOptions::new().write(true).open(&target);
    let busy = io::ErrorKind::ExecutableFileBusy;
    assert_eq!(in_place.unwrap_err().kind(), busy, "it runs");
    fs::write(scratch.0.join("image"), "two").unwrap();
    assert_eq!(scratch.install().unwrap(), Installed::Written);
    assert_eq!(fs::read_to_string(&target).unwrap(), "two");
    let mut input = running.stdin.as_ref().unwrap();
    input.write_all(b"one").unwrap();
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"one");
}

#[test]
fn what_is_not_a_plugin_of_ours_is_replaced() {
    let scratch = Scratch::new("replace");
    let target = scratch.host().join(NAME);
    fs::write(&target, "one").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(scratch.install().unwrap(), Installed::Written);
    fs::remove_file(&target).unwrap();
    let elsewhere = scratch.0.join("elsewhere");
    fs::write(&elsewhere, "kept").unwrap();
    symlink(&elsewhere, &target).unwrap();
    symlink(&elsewhere, scratch.host().join(UNFINISHED)).unwrap();
    assert_eq!(scratch.install().unwrap(), Installed::Written);
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "kept");
}

#[test]
fn installations_at_the_same_time_all_succeed_and_leave_one_complete_plugin() {
    let scratch = Scratch::new("at-once");
    // Large enough that one installation would meet the unfinished file of another.
    let plugins = ["one", "two"].map(|name| {
        let path = scratch.0.join(name);
        fs::write(&path, name.repeat(1 << 20)).unwrap();
        path
    });
    let host = scratch.host();
    std::thread::scope(|scope| {
        for plugin in plugins.iter().cycle().take(8) {
            let host = &host;
            scope.spawn(move || {
                for _ in 0..5 {
                    install(plugin, host).unwrap();
                }
            });
        }
    });
    let installed = fs::read(host.join(NAME)).unwrap();
    assert!(
        plugins
            .iter()
            .any(|plugin| fs::read(plugin).unwrap() == installed)
    );
    assert_eq!(scratch.files(), [NAME]);
}

#[test]
fn errors_name_the_path_and_the_cause() {
    let scratch = Scratch::new("errors");
    let missing = scratch.0.join("missing");
    let error = install(&missing, &scratch.host()).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    let error = install(&scratch.0.join("image"), &missing).unwrap_err();
    assert!(matches!(error, InstallError::NoDirectory { .. }), "{error}");
    let source = error.source().unwrap().to_string();
    assert_eq!(source, "No such file or directory (os error 2)");
    // A directory in the plugin's place cannot be replaced by a file.
    fs::create_dir(scratch.host().join(NAME)).unwrap();
    let error = scratch.install().unwrap_err();
    let path = scratch.host().join(NAME);
    assert_eq!(
        error.to_string(),
        format!("cannot rename a file to {}", path.display())
    );
    assert_eq!(scratch.files(), [NAME], "no partial files are left");
}
