//! A real container runtime: Debian's containerd as a child process, with all its files in one directory, controlled
//! through the CRI like the kubelet does.
//!
//! Owns the process, its configuration and its end. Knows nothing of Hawser: the given directories determine the
//! plugins that containerd executes. Calls block, on their own runtime, so they must not be used in async code.
//!
//! May use no other module.

mod cri {
    //! Generated from `proto/cri.proto`.
    tonic::include_proto!("runtime.v1");
}
mod config;
mod image;
mod leftovers;
mod machine;
mod pods;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use datapath::netns::Netns;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{runtime::Runtime, time::Instant};
use tonic::transport::{Channel, Endpoint};

pub use cri::Protocol;
pub use pods::{PodAsks, PodSandbox, PodStatus};

/// The CRI's namespace in containerd.
const NAMESPACE: &str = "k8s.io";

/// containerd 1.6 executes the plugin `loopback` for every sandbox, with any network configuration.
const LOOPBACK: &str = "/usr/lib/cni/loopback";

/// Start-up takes 0.2 s on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// From SIGTERM to SIGKILL.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The polling interval when there is no event: for the readiness of another process.
const POLL: Duration = Duration::from_millis(5);

/// Why the runtime, or a call to it, failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The machine lacks something; `hint` names it and the remedy.
    #[error("cannot run containerd here: {hint}")]
    Machine {
        /// One line for humans.
        hint: String,
    },
    /// A file, a process or a channel could not be created.
    #[error("cannot {what}")]
    Io {
        /// The operation: a verb and its object.
        what: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A command failed.
    #[error("{command} failed ({status}): {stderr}")]
    Command {
        /// The program and its verb.
        command: String,
        /// Its exit status.
        status: ExitStatus,
        /// Its output.
        stderr: String,
    },
    /// containerd ended, or did not reach the expected state.
    #[error("containerd did not {what} within {limit:?} (ended: {ended:?}); its log:\n{log}")]
    NotReady {
        /// The expected state.
        what: &'static str,
        /// For how long.
        limit: Duration,
        /// Its exit status, if it ended.
        ended: Option<ExitStatus>,
        /// Its log.
        log: String,
    },
    /// The runtime refused a call. `message` is containerd's, and contains the message of runc or of the plugin.
    #[error("containerd refused {call} ({code:?}): {message}")]
    Refused {
        /// The CRI method.
        call: &'static str,
        /// The status code.
        code: tonic::Code,
        /// The reason.
        message: String,
    },
}

/// The two directories in which a runtime searches CNI plugins.
#[derive(Clone, Debug)]
pub struct CniDirs {
    /// Executables, by their names in configurations.
    pub bin: PathBuf,
    /// `*.conflist`; the first one by name is used. containerd detects changes.
    pub conf: PathBuf,
}

impl CniDirs {
    /// Creates `bin` and `conf` in `dir`, with only Debian's `loopback`, which containerd needs.
    ///
    /// # Errors
    /// If the package containernetworking-plugins is not installed, or `dir` is not writable.
    pub fn create(dir: &Path) -> Result<Self, RuntimeError> {
        if !Path::new(LOOPBACK).is_file() {
            let hint = format!(
                "{LOOPBACK} is missing: run `make tools` (package containernetworking-plugins)"
            );
            return Err(RuntimeError::Machine { hint });
        }
        let dirs = Self {
            bin: dir.join("bin"),
            conf: dir.join("conf"),
        };
        let made = fs::create_dir_all(&dirs.bin)
            .and_then(|()| fs::create_dir_all(&dirs.conf))
            .and_then(|()| symlink(LOOPBACK, dirs.bin.join("loopback")));
        made.map_err(failed(format!("make CNI directories in {}", dir.display())))?;
        Ok(dirs)
    }
}

/// A running containerd. Dropping it kills its sandboxes and ends it.
#[derive(Debug)]
pub struct Containerd {
    dir: PathBuf,
    child: Child,
    runtime: Runtime,
    channel: Channel,
    cgroup_parent: String,
}

impl Containerd {
    /// Starts containerd, in `netns` if given, and waits until it answers and has a pause image. Its files are in
    /// `dir`, which must exist, or in mounts that only this process and its children see:
    /// [`sandbox::enter`](crate::sandbox::enter) must have been called. One of these mounts covers `/run`.
    ///
    /// # Errors
    /// [`RuntimeError`]. Everything that was started is ended again.
    pub fn start(dir: &Path, netns: Option<&Netns>, cni: &CniDirs) -> Result<Self, RuntimeError> {
        machine::prepare()?;
        let cgroup_parent = format!("/hawser-e2e-{}", std::process::id());
        fs::create_dir_all(dir).map_err(failed(format!("make {}", dir.display())))?;
        let config = dir.join("config.toml");
        fs::write(&config, config::toml(dir, cni))
            .map_err(failed(format!("write {}", config.display())))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(failed("make an async runtime"))?;
        let channel = {
            let _inside = runtime.enter();
            endpoint(dir)?.connect_lazy()
        };
        let child = spawn(dir, &config, netns)?;
        let mut containerd = Self {
            dir: dir.to_owned(),
            child,
            runtime,
            channel,
            cgroup_parent,
        };
        containerd.wait("answer", |containerd| Ok(containerd.version().is_ok()))?;
        let archive = image::build(&dir.join("pause"))?;
        let archive = archive.to_string_lossy();
        containerd.ctr(&[
            "images",
            "import",
            "--snapshotter",
            config::SNAPSHOTTER,
            archive.as_ref(),
        ])?;
        // The CRI learns of images from containerd's events, shortly after the import.
        containerd.wait("see the pause image", Self::has_pause_image)?;
        Ok(containerd)
    }

    /// Waits until the runtime reports the network as ready: it has read a configuration from [`CniDirs::conf`].
    ///
    /// # Errors
    /// [`RuntimeError::NotReady`] after `START_LIMIT`.
    pub fn wait_network_ready(&mut self) -> Result<(), RuntimeError> {
        self.wait("call the network ready", Self::network_ready)
    }

    /// containerd's log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("containerd.log")).unwrap_or_default()
    }

    fn wait(
        &mut self,
        what: &'static str,
        is_so: impl Fn(&Self) -> Result<bool, RuntimeError>,
    ) -> Result<(), RuntimeError> {
        let begun = Instant::now();
        let mut ended = None;
        while begun.elapsed() < START_LIMIT && ended.is_none() {
            if is_so(self)? {
                return Ok(());
            }
            std::thread::sleep(POLL);
            ended = self
                .child
                .try_wait()
                .map_err(failed("look after containerd"))?;
        }
        let log = self.log();
        Err(RuntimeError::NotReady {
            what,
            limit: START_LIMIT,
            ended,
            log,
        })
    }

    /// Runs containerd's own client, and returns its output.
    fn ctr(&self, arguments: &[&str]) -> Result<String, RuntimeError> {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(socket(&self.dir))
            .args(["--namespace", NAMESPACE]);
        run(command.args(arguments))
    }

    fn end(&mut self) -> io::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("pids are positive"));
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            let late = begun.elapsed() > STOP_LIMIT;
            kill(
                pid,
                if late {
                    Signal::SIGKILL
                } else {
                    Signal::SIGTERM
                },
            )?;
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Best effort: the test is over. The sandboxes first, because containerd cleans up after them while it runs.
        drop(self.kill_sandboxes());
        drop(self.end());
        machine::remove_cgroups(&self.cgroup_parent);
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("containerd.sock")
}

fn endpoint(dir: &Path) -> Result<Endpoint, RuntimeError> {
    let uri = format!("unix://{}", socket(dir).display());
    Endpoint::from_shared(uri.clone()).map_err(|error| RuntimeError::Io {
        what: format!("use {uri} as an address"),
        source: io::Error::other(error),
    })
}

fn spawn(dir: &Path, config: &Path, netns: Option<&Netns>) -> Result<Child, RuntimeError> {
    let start = || -> io::Result<Child> {
        let log = File::create(dir.join("containerd.log"))?;
        Command::new("containerd")
            .arg("--config")
            .arg(config)
            // The plugins inherit the environment, so it must contain nothing of the test's.
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
    };
    match netns {
        Some(netns) => netns.run(start).and_then(|spawned| spawned),
        None => start(),
    }
    .map_err(failed(
        "start containerd (package containerd; `make tools`)",
    ))
}

/// Runs a command to its end and returns its standard output.
fn run(command: &mut Command) -> Result<String, RuntimeError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(failed(format!("run {name}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(RuntimeError::Command {
        command: name,
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> RuntimeError {
    let what = what.into();
    move |source| RuntimeError::Io { what, source }
}
