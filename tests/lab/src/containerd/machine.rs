//! The paths outside its own directory that a runtime writes to: replaces them by private mounts, and cleans up what
//! cannot be private. Must not be used where others would see its mounts, and refuses that.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::{
    mount::{MsFlags, mount},
    unistd::getppid,
};

use super::{RuntimeError, failed};

/// Paths that are compiled into containerd, runc and libcni: sockets of shims and bound network namespaces in the first
/// one, results of plugins in the second one.
const PRIVATE: [&str; 2] = ["/run", "/var/lib/cni"];

const CGROUPS: &str = "/sys/fs/cgroup";

/// Mounts an empty file system over each of [`PRIVATE`], once per process.
pub(super) fn prepare() -> Result<(), RuntimeError> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        if shares_mounts().map_err(|e| format!("cannot compare mount namespaces ({e})"))? {
            return Err("its mounts would be seen outside: call sandbox::enter first".to_owned());
        }
        PRIVATE.iter().try_for_each(|path| {
            cover(Path::new(path)).map_err(|e| {
                format!("cannot mount over {path} ({e}): it takes root, and more than a user namespace's")
            })
        })
    });
    done.clone().map_err(|hint| RuntimeError::Machine { hint })
}

/// Whether the parent of this process would see its mounts. It is not compared with process 1: if that has more
/// capabilities, as outside a container, its namespaces cannot be read (`EACCES`).
fn shares_mounts() -> io::Result<bool> {
    let of = |process: String| fs::read_link(format!("/proc/{process}/ns/mnt"));
    Ok(of("self".to_owned())? == of(getppid().to_string())?)
}

fn cover(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let options = Some("mode=0755");
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::empty(),
        options,
    )?;
    Ok(())
}

/// Control groups named `parent` in every hierarchy, including version 2, with the pods in them.
pub(super) fn cgroups(parent: &str) -> Vec<PathBuf> {
    let parent = parent.trim_start_matches('/');
    let hierarchies = fs::read_dir(CGROUPS).into_iter().flatten().flatten();
    let hierarchies = hierarchies.map(|entry| entry.path());
    hierarchies
        .chain([CGROUPS.into()])
        .map(|hierarchy| hierarchy.join(parent))
        .filter(|group| group.is_dir())
        .collect()
}

/// Removes what runc leaves: it removes a pod's group, but not the parent that it created.
pub(super) fn remove_cgroups(parent: &str) {
    for group in cgroups(parent) {
        drop(fs::remove_dir(group));
    }
}

/// Names in a directory; empty if it does not exist.
pub(super) fn entries(dir: &Path) -> Result<Vec<String>, RuntimeError> {
    let names = match fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    names.map_err(failed(format!("list {}", dir.display())))
}
