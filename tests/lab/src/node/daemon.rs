//! The daemon's process on a node: starting, querying, stopping and killing it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Node, binaries, log_lines};
use crate::wait::eventually;

/// The time limit for the daemon to become ready. Generous: labs run in parallel.
const READY_LIMIT: Duration = Duration::from_secs(60);

impl Node {
    /// Starts the daemon with only CAP_NET_ADMIN and waits until it is ready.
    ///
    /// # Errors
    /// If it ends or is not ready in time; the error contains its log.
    pub fn start_daemon(&mut self, ec2_endpoint: &str) -> io::Result<()> {
        self.start_daemon_under(&[], ec2_endpoint)
    }

    /// The same with another command in front, which must become the daemon by exec.
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

    /// Creates the daemon's process for a caller that traces, ends and reaps it: it is stopped before its first
    /// instruction.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn hold_daemon(&mut self, ec2_endpoint: &str) -> io::Result<Pid> {
        self.hold(ec2_endpoint, &["run"])
    }

    /// The same with another command of the daemon's binary.
    ///
    /// # Errors
    /// As [`Node::hold_daemon`].
    pub fn hold(&mut self, ec2_endpoint: &str, arguments: &[&str]) -> io::Result<Pid> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("ipamd.log"))?;
        let daemon = self.confined(&[], ec2_endpoint, arguments);
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

    /// Runs a daemon to its end, in addition to the node's own: for daemons that must refuse to start.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn run_daemon(&mut self, ec2_endpoint: &str) -> io::Result<std::process::Output> {
        let mut command = self.daemon_command(&[], ec2_endpoint);
        self.netns().run(move || command.output())?
    }

    /// Runs the daemon's binary with other arguments, like an operator on the node.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn ask(&self, ec2_endpoint: &str, arguments: &[&str]) -> io::Result<std::process::Output> {
        self.ask_under(&[], ec2_endpoint, arguments)
    }

    /// The same with another command in front.
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
        let mut command = Command::new(words.next().expect("at least the program's name"));
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
        self.confined(words, ec2_endpoint, &["run"])
    }

    fn confined(&self, words: &[&str], ec2_endpoint: &str, arguments: &[&str]) -> Command {
        let mut words = words.iter().chain(&["setpriv"]);
        let mut command = Command::new(words.next().expect("at least setpriv"));
        command.args(words);
        // Root with an empty bounding set: exec gives uid 0 no more than what is left in it.
        command
            .args([
                "--bounding-set",
                "-all,+net_admin",
                "--inh-caps",
                "-all",
                "--",
            ])
            .arg(self.release.ipamd())
            .args(arguments)
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

    /// Hands the running daemon over to a tracer, which ends and reaps it.
    ///
    /// # Panics
    /// If it does not run.
    pub fn surrender_daemon(&mut self) -> Pid {
        let pid = i32::try_from(self.pid()).expect("pids are positive");
        self.daemon = None;
        Pid::from_raw(pid)
    }

    /// Sends SIGTERM and waits for the end; returns whether it exited successfully.
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
}

/// Waits until every thread of the process is stopped, after SIGSTOP.
///
/// # Errors
/// If one of them continues.
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

impl Drop for Node {
    fn drop(&mut self) {
        // Best effort: the daemon is ours, and the test is over.
        drop(self.kill_daemon());
        // Here, so that every log line of every lab run is read. A test that fails already says more.
        if !std::thread::panicking() && self.release == binaries::Release::Current {
            let log = self.log();
            let found = log_lines::in_debug_syntax(log.get(self.log_from..).unwrap_or_default());
            assert!(found.is_empty(), "log fields in debug syntax: {found:#?}");
        }
    }
}
