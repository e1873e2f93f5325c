//! One node of the lab: an instance's namespace, its daemon, and pods that are added by executing the plugin.
//!
//! Owns both binaries under test (`daemon`, `plugin`) and their output (`inspect`, logs, metrics). May use `wait`. Must
//! not know the VPC around the node.

pub mod binaries;
mod daemon;
pub mod inspect;
pub mod log_lines;
pub mod plugin;
mod pods;

use std::{
    fs,
    io::{self, Read, Write},
    os::fd::AsFd,
    path::PathBuf,
    process::{Child, Command},
};

use datapath::netns::Netns;
use vpc_sim::Instance;

use self::{binaries::Release, inspect::inspect};
pub use self::{
    daemon::await_stop,
    pods::{Pod, host_link, occupy, sandbox_in},
};

/// An instance with a daemon.
#[derive(Debug)]
pub struct Node {
    pub instance: Instance,
    dir: PathBuf,
    settings: Vec<(String, String)>,
    release: Release,
    /// Where the log of this checkout's daemons begins, in bytes. An earlier release wrote what is before it.
    log_from: usize,
    daemon: Option<Child>,
}

impl Node {
    /// A node whose daemon is not started yet. `dir` must exist and belong to this node alone.
    ///
    /// # Errors
    /// If the directory for the pods' namespaces cannot be created.
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
            release: Release::Current,
            log_from: 0,
            daemon: None,
        })
    }

    /// Changes a setting for daemons that are started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Changes whose daemon is started and whose plugin is executed from now on.
    pub fn set_release(&mut self, release: Release) {
        self.release = release;
        self.log_from = self.log().len();
    }

    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.instance.netns
    }

    /// Another handle of the node's namespace, for plugins that run while the daemon is restarted.
    ///
    /// # Errors
    /// If the process has no free descriptor.
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

    /// How many ADDs wait for an address.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn waiting(&self) -> io::Result<u32> {
        Ok(inspect(&self.socket())?.waiting)
    }

    /// The output of a shell command in the node's namespace, which is independent of our own code.
    ///
    /// # Errors
    /// If it fails; the error contains its output.
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

    /// The daemon's metrics, as scraped by Prometheus.
    ///
    /// # Errors
    /// If they are not available.
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

    /// The value of one metric, 0 if it has none. `name` includes its labels, as in the text.
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
}

/// The number of addresses in `state` on ENIs that are ready for use.
///
/// # Errors
/// If the daemon does not answer.
pub fn count(node: &Node, state: &str) -> io::Result<usize> {
    let snapshot = inspect(&node.socket())?;
    let ready = snapshot.enis.iter().filter(|eni| eni.state == "ready");
    let addresses = ready.flat_map(|eni| &eni.addresses);
    Ok(addresses.filter(|address| address.state == state).count())
}
