//! One node of the lab: an instance's namespace, the daemon running in it, and pods placed by executing the plugin.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use datapath::{
    netlink::{self, Socket},
    netns::Netns,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use vpc_sim::Instance;

use crate::{
    binaries,
    inspect::inspect,
    lab::eventually,
    plugin::{Invocation, Outcome},
};

/// How long the daemon may take to become ready. Generous: labs run beside other labs.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// An instance with a daemon on it.
#[derive(Debug)]
pub struct Node {
    pub instance: Instance,
    dir: PathBuf,
    settings: Vec<(String, String)>,
    daemon: Option<Child>,
}

/// A pod's sandbox: its namespace, and what ADD answered.
#[derive(Debug)]
pub struct Pod {
    pub id: String,
    pub netns: Netns,
    pub path: PathBuf,
    pub added: Outcome,
}

impl Pod {
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.added.address()
    }

    /// The address of a pod on a node of IPv4.
    ///
    /// # Panics
    /// If it is of the other family.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        match self.address() {
            IpAddr::V4(address) => address,
            IpAddr::V6(address) => panic!("the pod has {address}"),
        }
    }
}

impl Node {
    /// A node whose daemon is not started yet. `dir` must exist and be this node's alone.
    ///
    /// # Errors
    /// If the directory for the pods' namespaces cannot be made.
    pub fn new(instance: Instance, dir: PathBuf, settings: &[(&str, &str)]) -> io::Result<Self> {
        fs::create_dir_all(dir.join("netns"))?;
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Ok(Self {
            instance,
            dir,
            settings,
            daemon: None,
        })
    }

    /// Changes a setting for the daemons that are started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.instance.netns
    }

    /// The node's namespace once more, for plugins that run while the daemon is started again.
    ///
    /// # Errors
    /// If the process has no descriptor to spare.
    pub fn host(&self) -> io::Result<Netns> {
        let fd = self.netns().as_fd().try_clone_to_owned()?;
        Netns::from_fd(fd).map_err(io::Error::other)
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("run/ipamd.sock")
    }

    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        self.dir.join("run/state")
    }

    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("ipamd.log")).unwrap_or_default()
    }

    /// Starts the daemon with CAP_NET_ADMIN as its only capability and waits until it says that it is ready.
    ///
    /// # Errors
    /// If it ends or is not ready in time; the error holds its log.
    pub fn start_daemon(&mut self, ec2_endpoint: &str) -> io::Result<()> {
        self.start_daemon_under(&[], ec2_endpoint)
    }

    /// The same behind the words of another command, which must become the daemon by exec.
    ///
    /// # Errors
    /// As [`Node::start_daemon`].
    pub fn start_daemon_under(&mut self, words: &[&str], ec2_endpoint: &str) -> io::Result<()> {
        let before = self.log().matches("\"ready\"").count();
        self.spawn_daemon_under(words, ec2_endpoint)?;
        self.wait_ready(before)
    }

    /// As [`Node::start_daemon`], without the wait.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn spawn_daemon(&mut self, ec2_endpoint: &str) -> io::Result<()> {
        self.spawn_daemon_under(&[], ec2_endpoint)
    }

    fn spawn_daemon_under(&mut self, words: &[&str], ec2_endpoint: &str) -> io::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("ipamd.log"))?;
        let mut command = self.daemon_command(words, ec2_endpoint);
        command.stdout(Stdio::null()).stderr(log);
        self.daemon = Some(self.netns().run(move || command.spawn())??);
        Ok(())
    }

    /// Makes the daemon's process for whoever will trace, end and reap it: it stands still before its first step.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn hold_daemon(&mut self, ec2_endpoint: &str) -> io::Result<Pid> {
        let log = File::options()
            .append(true)
            .open(self.dir.join("ipamd.log"))?;
        let daemon = self.daemon_command(&[], ec2_endpoint);
        let mut command = Command::new("sh");
        command
            .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
            .arg(daemon.get_program())
            .args(daemon.get_args())
            .env_clear()
            .envs(
                daemon
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.daemon = Some(self.netns().run(move || command.spawn())??);
        let pid = self.surrender_daemon();
        await_stop(pid).map(|()| pid)
    }

    /// Runs a daemon to its end, beside the node's own if that runs: for daemons that must refuse to start.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn run_daemon(&mut self, ec2_endpoint: &str) -> io::Result<std::process::Output> {
        let mut command = self.daemon_command(&[], ec2_endpoint);
        self.netns().run(move || command.output())?
    }

    /// Runs the daemon's binary with other arguments, as an operator on the node does.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn ask(&self, ec2_endpoint: &str, arguments: &[&str]) -> io::Result<std::process::Output> {
        self.ask_under(&[], ec2_endpoint, arguments)
    }

    /// The same behind the words of another command.
    ///
    /// # Errors
    /// As [`Node::ask`].
    pub fn ask_under(
        &self,
        words: &[&str],
        ec2_endpoint: &str,
        arguments: &[&str],
    ) -> io::Result<std::process::Output> {
        let binary = binaries::ipamd();
        let mut words = words.iter().map(OsStr::new).chain([binary.as_os_str()]);
        let mut command = Command::new(words.next().expect("the binary at the least"));
        command
            .args(words)
            .args(arguments)
            .env_clear()
            .env("HAWSER_RUN_DIR", self.dir.join("run"))
            .env("AWS_ENDPOINT_URL_EC2", ec2_endpoint)
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null());
        self.netns().run(move || command.output())?
    }

    fn daemon_command(&self, words: &[&str], ec2_endpoint: &str) -> Command {
        let mut words = words.iter().chain(&["setpriv"]);
        let mut command = Command::new(words.next().expect("setpriv at the least"));
        command.args(words);
        // Root with an emptied bounding set: exec gives uid 0 no more than what is left in it.
        command
            .args([
                "--bounding-set",
                "-all,+net_admin",
                "--inh-caps",
                "-all",
                "--",
            ])
            .arg(binaries::ipamd())
            .arg("run")
            .env_clear()
            .env("HAWSER_RUN_DIR", self.dir.join("run"))
            .env("HAWSER_METRICS_ADDRESS", "127.0.0.1:61678")
            .env("AWS_ENDPOINT_URL_EC2", ec2_endpoint)
            .env("RUST_BACKTRACE", "1")
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    #[expect(clippy::disallowed_methods, reason = "the lab measures real time")]
    fn wait_ready(&mut self, ready_before: usize) -> io::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < READY_LIMIT {
            if self.log().matches("\"ready\"").count() > ready_before {
                return Ok(());
            }
            if let Some(status) = self
                .daemon
                .as_mut()
                .and_then(|daemon| daemon.try_wait().transpose())
            {
                return Err(io::Error::other(format!(
                    "ipamd ended ({:?}):\n{}",
                    status?,
                    self.log()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(io::Error::other(format!(
            "ipamd is not ready after {READY_LIMIT:?}:\n{}",
            self.log()
        )))
    }

    /// The daemon's process id.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon
            .as_ref()
            .map(Child::id)
            .expect("the daemon runs")
    }

    /// Gives the running daemon up to whoever traces it, who ends and reaps it.
    ///
    /// # Panics
    /// If it does not run.
    pub fn surrender_daemon(&mut self) -> Pid {
        let pid = i32::try_from(self.pid()).expect("pids are positive");
        self.daemon = None;
        Pid::from_raw(pid)
    }

    /// Sends SIGTERM and waits for the end: whether it was a clean one.
    ///
    /// # Errors
    /// If the process cannot be signalled or waited for.
    pub fn stop_daemon(&mut self) -> io::Result<bool> {
        self.end_daemon(Signal::SIGTERM)
    }

    /// Sends SIGKILL.
    ///
    /// # Errors
    /// If the process cannot be signalled or waited for.
    pub fn kill_daemon(&mut self) -> io::Result<()> {
        self.end_daemon(Signal::SIGKILL).map(drop)
    }

    fn end_daemon(&mut self, signal: Signal) -> io::Result<bool> {
        let Some(mut daemon) = self.daemon.take() else {
            return Ok(true);
        };
        if daemon.try_wait()?.is_none() {
            kill(
                Pid::from_raw(i32::try_from(daemon.id()).expect("pids are positive")),
                signal,
            )?;
        }
        Ok(daemon.wait()?.success())
    }

    /// How many ADDs wait for an address.
    ///
    /// # Errors
    /// If the daemon cannot be asked.
    pub fn waiting(&self) -> io::Result<u32> {
        Ok(inspect(&self.socket())?.waiting)
    }

    /// What a shell command prints in the node's namespace: the view of an operator, not our own.
    ///
    /// # Errors
    /// If it fails; the error holds what it said.
    pub fn shell(&self, command: &str) -> io::Result<String> {
        let mut shell = Command::new("sh");
        shell.args(["-ec", command]);
        let output = self.netns().run(move || shell.output())??;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("{command}: {said}")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The daemon's metrics, as Prometheus gets them.
    ///
    /// # Errors
    /// If they cannot be had.
    pub fn metrics(&self) -> io::Result<String> {
        self.netns().run(|| {
            let mut stream = std::net::TcpStream::connect("127.0.0.1:61678")?;
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })?
    }

    /// One metric's value, 0 while it has none. `name` with its labels, as in the text.
    ///
    /// # Errors
    /// As [`Node::metrics`].
    pub fn metric(&self, name: &str) -> io::Result<u64> {
        let text = self.metrics()?;
        let mut values = text.lines().filter_map(|line| line.strip_prefix(name));
        Ok(values
            .next()
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(0))
    }

    /// Makes a sandbox as a runtime would: a namespace bound to a path.
    ///
    /// # Errors
    /// If the namespace cannot be made or bound.
    pub fn sandbox(&self, id: &str) -> io::Result<(Netns, PathBuf)> {
        sandbox_in(&self.sandboxes(), id)
    }

    /// Where sandboxes are bound.
    #[must_use]
    pub fn sandboxes(&self) -> PathBuf {
        self.dir.join("netns")
    }

    /// An ADD for a sandbox, not yet run.
    #[must_use]
    pub fn invocation(&self, verb: &str, id: &str, netns: Option<&Path>) -> Invocation {
        Invocation::new(verb, id, netns, &self.socket())
    }

    /// Makes a sandbox and adds it.
    ///
    /// # Errors
    /// If the sandbox cannot be made, or ADD fails: the error holds what it answered.
    pub fn add_pod(&self, id: &str) -> io::Result<Pod> {
        let (netns, path) = self.sandbox(id)?;
        let added = self.invocation("ADD", id, Some(&path)).run(self.netns())?;
        if !added.succeeded() {
            return Err(io::Error::other(format!(
                "ADD {id} failed: {added:?}\n{}",
                self.log()
            )));
        }
        Ok(Pod {
            id: id.to_owned(),
            netns,
            path,
            added,
        })
    }

    /// Ends a pod's namespace without DEL, and waits for its link: the kernel takes that along in its own time.
    ///
    /// # Errors
    /// If the link stays.
    pub fn end_pod(&self, pod: Pod) -> io::Result<()> {
        let link = host_link(&pod);
        Netns::unbind(&pod.path)?;
        drop(pod);
        let gone = || {
            self.shell("ip -o link")
                .is_ok_and(|links| !links.contains(&link))
        };
        match eventually(Duration::from_secs(60), gone) {
            true => Ok(()),
            false => Err(io::Error::other(format!("{link} stays"))),
        }
    }

    /// Deletes the pod: DEL, then the end of its namespace.
    ///
    /// # Errors
    /// If DEL fails or the namespace cannot be unbound.
    pub fn delete_pod(&self, pod: Pod) -> io::Result<Outcome> {
        let deleted = self
            .invocation("DEL", &pod.id, Some(&pod.path))
            .run(self.netns())?;
        if !deleted.succeeded() {
            return Err(io::Error::other(format!(
                "DEL {} failed: {deleted:?}",
                pod.id
            )));
        }
        Netns::unbind(&pod.path)?;
        Ok(deleted)
    }
}

/// The name of a pod's link on the host, as ADD told it.
#[must_use]
pub fn host_link(pod: &Pod) -> String {
    let name = pod.added.json.pointer("/interfaces/0/name");
    name.and_then(|name| name.as_str())
        .unwrap_or_default()
        .to_owned()
}

/// Makes a sandbox bound in `directory`, for whoever cannot hold the node meanwhile.
///
/// # Errors
/// If the namespace cannot be made or bound.
pub fn sandbox_in(directory: &Path, id: &str) -> io::Result<(Netns, PathBuf)> {
    let netns = Netns::create()?;
    let path = directory.join(format!("cni-{id}"));
    netns.bind(&path)?;
    Ok((netns, path))
}

/// Waits until every thread of the process stands still, as one that has been sent SIGSTOP does.
///
/// # Errors
/// If one of them goes on.
pub fn await_stop(pid: Pid) -> io::Result<()> {
    let stopped = |task: io::Result<fs::DirEntry>| {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        Ok::<_, io::Error>(stat.contains(") T "))
    };
    let all_stopped = || {
        fs::read_dir(format!("/proc/{pid}/task"))
            .is_ok_and(|mut tasks| tasks.all(|task| stopped(task).is_ok_and(|stopped| stopped)))
    };
    if eventually(READY_LIMIT, all_stopped) {
        return Ok(());
    }
    Err(io::Error::other("the daemon's process did not stop"))
}

/// Makes an interface of this name in the calling thread's namespace, so that nobody else can.
///
/// # Errors
/// What the kernel says.
pub fn occupy(name: &str) -> Result<(), netlink::Error> {
    let end = |name| netlink::link::End {
        name,
        mtu: None,
        mac: None,
        group: 0,
        up: false,
    };
    Socket::open()?.apply(&netlink::link::add_veth(&end(name), &end("occupier"), None))
}

impl Drop for Node {
    fn drop(&mut self) {
        // Best effort: the daemon is ours, and the test is over.
        drop(self.kill_daemon());
    }
}
