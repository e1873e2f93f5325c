//! What is left of the sandboxes: the list that a test expects to be empty, and the clean-up after a failed test.

use std::{fs, io, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::Instant;

use super::{Containerd, POLL, RuntimeError, STOP_LIMIT, failed, machine, socket};

/// The default directory of containerd 1.6 for bound network namespaces.
const NETNS_DIR: &str = "/run/netns";

/// Where libcni keeps each ADD's result until its DEL.
const RESULTS_DIR: &str = "/var/lib/cni/results";

impl Containerd {
    /// One line for each object that exists because of a sandbox: the runtime's record, shim, network namespace, cached
    /// result, mount, control group. Empty when all sandboxes are removed.
    ///
    /// # Errors
    /// If one of the places cannot be read.
    pub fn leftovers(&self) -> Result<Vec<String>, RuntimeError> {
        let mut left = label("sandbox", self.list()?);
        left.extend(label("shim", self.shims()?));
        left.extend(label(
            "network namespace",
            machine::entries(Path::new(NETNS_DIR))?,
        ));
        left.extend(label("result", machine::entries(Path::new(RESULTS_DIR))?));
        left.extend(label("mount", self.mounts()?));
        for group in machine::cgroups(&self.cgroup_parent) {
            let pods = machine::entries(&group)?
                .into_iter()
                .filter(|name| group.join(name).is_dir());
            left.extend(label("control group", pods.collect()));
        }
        Ok(left)
    }

    /// Process ids of the shims that this containerd started: each has its address as an argument.
    fn shims(&self) -> Result<Vec<String>, RuntimeError> {
        let address = socket(&self.dir);
        let ours = |pid: &String| {
            // A process that has ended has no command line.
            let line = fs::read(Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words
                .next()
                .is_some_and(|program| program.ends_with(b"containerd-shim-runc-v2"))
                && words.any(|word| word == address.as_os_str().as_encoded_bytes())
        };
        Ok(machine::entries(Path::new("/proc"))?
            .into_iter()
            .filter(ours)
            .collect())
    }

    /// Mount points in the directory: the sandboxes' root and shared memory.
    fn mounts(&self) -> Result<Vec<String>, RuntimeError> {
        let table =
            fs::read_to_string("/proc/self/mounts").map_err(failed("read the mount table"))?;
        let points = table.lines().filter_map(|line| line.split(' ').nth(1));
        Ok(points
            .filter(|point| Path::new(point).starts_with(&self.dir))
            .map(str::to_owned)
            .collect())
    }

    /// Kills every sandbox's process, and what then remains of its shim.
    ///
    /// Not through the CRI, which would execute a plugin whose daemon may be gone. The CRI detects the end of a
    /// process, and deletes task, shim and control group.
    pub(super) fn kill_sandboxes(&self) -> Result<(), RuntimeError> {
        for shim in self.shims()? {
            // Children are listed per thread, and any thread of a shim may have started the sandbox.
            let threads = Path::new("/proc").join(shim).join("task");
            for thread in machine::entries(&threads)? {
                let children = fs::read_to_string(threads.join(thread).join("children"));
                children
                    .unwrap_or_default()
                    .split_whitespace()
                    .for_each(end);
            }
        }
        let begun = Instant::now();
        while begun.elapsed() < STOP_LIMIT {
            if self.shims()?.is_empty() {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        self.shims()?.iter().for_each(|shim| end(shim));
        Ok(())
    }
}

fn end(pid: &str) {
    if let Ok(pid) = pid.parse() {
        // It may have ended already.
        drop(kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(io::Error::from));
    }
}

fn label(kind: &str, names: Vec<String>) -> Vec<String> {
    names
        .into_iter()
        .map(|name| format!("{kind} {name}"))
        .collect()
}
