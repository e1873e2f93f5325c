//! A machine of the cluster: an instance of the VPC with its own mounts, processes and control groups.
//!
//! The machine's first process owns the namespaces. When it ends, the kernel ends all other processes of the machine,
//! including containers, and removes the mounts. The first process ends with the program that started it, even if that
//! program is killed.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use lab::wait::eventually;
use vpc_sim::Instance;

use crate::{command::run, programs};

const BOOT_LIMIT: Duration = Duration::from_secs(60);
const END_LIMIT: Duration = Duration::from_secs(60);
const CGROUPS: &str = "/sys/fs/cgroup";

/// See the module.
#[derive(Debug)]
pub struct Machine {
    /// The name of its Node object.
    pub name: String,
    pub instance: Instance,
    dir: PathBuf,
    unshare: Child,
    /// The first process, as seen from outside.
    init: String,
    services: Vec<Child>,
}

impl Machine {
    /// Boots `instance`. Its files are in `dir`, which no other machine may use.
    ///
    /// # Errors
    /// If the namespaces or the mounts cannot be created. The error contains the output of the boot script.
    pub fn boot(name: String, instance: Instance, dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(dir.join("log"))?;
        let unshare = power_on(&instance, &dir)?;
        let mut machine = Self {
            name,
            instance,
            dir,
            unshare,
            init: String::new(),
            services: Vec::new(),
        };
        machine.await_boot()?;
        Ok(machine)
    }

    /// Ends all processes and boots the machine again: with an empty /run and another boot id, with the same disk, and
    /// with the network as the operating system configures it. No service is started.
    ///
    /// # Errors
    /// As [`Machine::boot`].
    pub fn reboot(&mut self) -> io::Result<()> {
        self.power_off();
        fs::remove_file(self.dir.join("booted"))?;
        let mut reset = Command::new("nsenter");
        let mac = self.instance.mac.to_string();
        reset.arg(netns(&self.instance)).args([
            "sh",
            "-euc",
            include_str!("machine/reset.sh"),
            "reset",
            &mac,
        ]);
        run(&mut reset)?;
        self.unshare = power_on(&self.instance, &self.dir)?;
        self.await_boot()
    }

    fn await_boot(&mut self) -> io::Result<()> {
        let booted = self.dir.join("booted");
        if !eventually(BOOT_LIMIT, || booted.exists()) {
            let text = format!("{} does not boot: {}", self.name, self.log("boot"));
            return Err(io::Error::other(text));
        }
        let parent = self.unshare.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        children.trim().clone_into(&mut self.init);
        self.make_cgroups()
    }

    /// Errors are ignored, because the machine is not used as it is any more.
    fn power_off(&mut self) {
        drop(self.unshare.kill());
        drop(self.unshare.wait());
        for service in &mut self.services {
            drop(service.wait());
        }
        self.services.clear();
        for group in self.cgroups().unwrap_or_default() {
            // A group can be removed when its last process has ended.
            eventually(END_LIMIT, || remove_cgroup(&group).is_ok());
        }
    }

    /// Prepares a command that runs on the machine.
    ///
    /// # Errors
    /// If the cluster's programs are not built.
    pub fn command(&self, program: &str) -> io::Result<Command> {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init, "--mount", "--net", "--pid", "--"])
            .arg(program)
            .env_clear()
            .env("PATH", programs::search_path()?);
        Ok(command)
    }

    /// Runs a shell script on the machine and returns its output.
    ///
    /// # Errors
    /// If it fails. The error contains its output.
    pub fn shell(&self, script: &str) -> io::Result<String> {
        run(self.command("sh")?.args(["-euc", script]))
    }

    /// Starts a long-running program. Its output goes to the log of this name.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&mut self, service: &str, program: &str, arguments: &[String]) -> io::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file(service))?;
        // nsenter forks to enter the process namespace, so only the program can find its process id there.
        let script = "echo $$ > \"/run/$0.pid\"; exec \"$@\"";
        let mut command = self.command("sh")?;
        command
            .args(["-c", script, service, program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.services.push(command.spawn()?);
        Ok(())
    }

    /// Ends a program started by [`Machine::start`], and waits for its end.
    ///
    /// # Errors
    /// If it is not running.
    pub fn stop(&self, service: &str, signal: &str) -> io::Result<()> {
        self.shell(&format!(
            "pid=$(cat /run/{service}.pid); kill -{signal} $pid; while [ -e /proc/$pid ]; do sleep 0.05; done"
        ))
        .map(drop)
    }

    /// The parent of the control groups of the machine's pods.
    #[must_use]
    pub fn cgroup(&self) -> String {
        // Two programs may each run a cluster with the same machine at the same time.
        format!("hawser-cluster-{}-{}", std::process::id(), self.name)
    }

    /// The log of a service.
    #[must_use]
    pub fn log(&self, service: &str) -> String {
        fs::read_to_string(self.log_file(service)).unwrap_or_default()
    }

    /// The directory of the machine's files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of a file on the machine, given without the leading slash, for programs outside.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(&self.init).join("root").join(file)
    }

    /// The command that opens a shell on the machine.
    #[must_use]
    pub fn entry(&self) -> String {
        format!("nsenter --target {} --mount --net --pid", self.init)
    }

    fn log_file(&self, service: &str) -> PathBuf {
        self.dir.join(format!("log/{service}.log"))
    }

    /// In every hierarchy of version 1, or in the only one of version 2.
    fn make_cgroups(&self) -> io::Result<()> {
        for group in self.cgroups()? {
            fs::create_dir_all(&group)?;
            // A new group of this controller has no processors and memory nodes, and accepts no process without them.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let (mine, parent) = (group.join(file), group.parent().map(|dir| dir.join(file)));
                if let Some(Ok(value)) = parent.map(fs::read_to_string)
                    && !value.trim().is_empty()
                {
                    fs::write(mine, value)?;
                }
            }
        }
        Ok(())
    }

    fn cgroups(&self) -> io::Result<Vec<PathBuf>> {
        let root = Path::new(CGROUPS);
        if root.join("cgroup.controllers").exists() {
            return Ok(vec![root.join(self.cgroup())]);
        }
        let mut groups = Vec::new();
        for hierarchy in fs::read_dir(root)? {
            let hierarchy = hierarchy?.path();
            if hierarchy.join("cgroup.procs").exists() {
                groups.push(hierarchy.join(self.cgroup()));
            }
        }
        Ok(groups)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// Starts the machine's first process.
fn power_on(instance: &Instance, dir: &Path) -> io::Result<Child> {
    let log = File::create(dir.join("log/boot.log"))?;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "nsenter", &netns(instance)])
        .args(["unshare", "--mount", "--propagation", "private"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-eu", "-c", include_str!("machine/boot.sh"), "boot"])
        .arg(dir)
        .env_clear()
        .env("PATH", programs::search_path()?)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command.spawn()
}

/// The option of nsenter for the instance's network namespace.
fn netns(instance: &Instance) -> String {
    let (process, netns) = (std::process::id(), instance.netns.as_fd().as_raw_fd());
    format!("--net=/proc/{process}/fd/{netns}")
}

/// Removes a control group and its children.
fn remove_cgroup(group: &Path) -> io::Result<()> {
    if !group.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
