//! Executes the plugin like a container runtime: variables, configuration on standard input, one JSON back.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::IpAddr,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use datapath::netns::Netns;
use proto::names::{FORMER_NETWORK, NETWORK};
use serde_json::{Value, json};

use crate::node::binaries::Release;

/// One invocation.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub variables: BTreeMap<String, String>,
    pub stdin: String,
    pub release: Release,
}

/// Its exit status.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub code: Option<i32>,
    /// The standard output, if it was JSON.
    pub json: Value,
    pub stderr: String,
    /// From before the start of the process to after its end.
    pub took: Duration,
}

impl Outcome {
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// The CNI error code, if it failed with one.
    #[must_use]
    pub fn error_code(&self) -> Option<u64> {
        self.json.get("code").and_then(Value::as_u64)
    }

    /// The error's message and details in one text.
    #[must_use]
    pub fn error_text(&self) -> String {
        let text = |key: &str| {
            self.json
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        format!("{} {}", text("msg"), text("details"))
    }

    /// The pod's address from an ADD's result.
    ///
    /// # Panics
    /// If there is none: the test expected the ADD to succeed.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        let text = self.json.pointer("/ips/0/address").and_then(Value::as_str);
        let address = text.and_then(|text| text.split('/').next()?.parse().ok());
        address.unwrap_or_else(|| panic!("no address in the result: {self:?}"))
    }
}

impl Invocation {
    /// `verb` for one sandbox, with the configuration that a runtime derives from our conflist.
    #[must_use]
    pub fn new(verb: &str, container_id: &str, netns: Option<&Path>, socket: &Path) -> Self {
        let netns = netns
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME=pod-{container_id}");
        let variables = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", container_id),
            ("CNI_NETNS", &netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", &args),
            ("CNI_PATH", "/opt/cni/bin"),
        ];
        let conf =
            json!({ "cniVersion": "1.0.0", "name": NETWORK, "type": "hawser", "socket": socket });
        Self {
            variables: variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            stdin: conf.to_string(),
            release: Release::Current,
        }
    }

    /// Executes another release's plugin.
    #[must_use]
    pub fn of(mut self, release: Release) -> Self {
        self.release = release;
        match release {
            Release::Current => self,
            // What it calls its network in the configuration that it writes.
            Release::Previous => self.conf("name", FORMER_NETWORK.into()),
        }
    }

    /// Changes the configuration on standard input.
    #[must_use]
    pub fn conf(mut self, key: &str, value: Value) -> Self {
        let mut conf: Value = serde_json::from_str(&self.stdin).expect("we wrote it");
        conf[key] = value;
        self.stdin = conf.to_string();
        self
    }

    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    /// Runs the plugin in the node's namespace.
    ///
    /// # Errors
    /// If the process cannot be started or its pipes fail.
    pub fn run(&self, node: &Netns) -> io::Result<Outcome> {
        node.run(|| self.run_here())?
    }

    fn run_here(&self) -> io::Result<Outcome> {
        self.run_as(self.command())
    }

    /// The plugin's process, with these variables and no others.
    fn command(&self) -> Command {
        let mut command = Command::new(self.release.plugin());
        command.env_clear().envs(&self.variables);
        command
    }

    /// Runs a prepared command in the caller's namespace.
    ///
    /// # Errors
    /// As [`Invocation::run`].
    #[expect(clippy::disallowed_methods, reason = "the lab measures real time")]
    pub fn run_as(&self, command: Command) -> io::Result<Outcome> {
        let begun = Instant::now();
        let output = self.spawn(command)?.wait_with_output()?;
        Ok(Outcome {
            code: output.status.code(),
            json: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: begun.elapsed(),
        })
    }

    /// Starts the plugin and kills it after this time, like an impatient runtime; returns whether it was killed.
    ///
    /// # Errors
    /// If the process cannot be started, killed or waited for.
    pub fn run_and_kill(&self, node: &Netns, after: Duration) -> io::Result<bool> {
        let mut child = self.start(node)?;
        std::thread::sleep(after);
        child.kill()?;
        Ok(child.wait()?.signal().is_some())
    }

    /// Starts the plugin in the node's namespace; the caller ends it.
    ///
    /// # Errors
    /// If the process cannot be started or its pipes fail.
    pub fn start(&self, node: &Netns) -> io::Result<Child> {
        node.run(|| self.spawn(self.command()))?
    }

    fn spawn(&self, mut command: Command) -> io::Result<Child> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(self.stdin.as_bytes()) {
                // A plugin that refuses its variables may not read its input.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        Ok(child)
    }
}
