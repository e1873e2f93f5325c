//! The container runtime's side: executes the real binary with a given environment and stdin, and reads its outputs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// A process in its own network namespace, which is a sandbox for CNI.
pub struct Pod(Child);

impl Pod {
    pub fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It has left this namespace only when it prints.
        let mut ready = [0; 6];
        let stdout = child.stdout.as_mut().unwrap();
        stdout.read_exact(&mut ready).expect("needs root");
        Self(child)
    }

    pub fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// The inode of its namespace.
    pub fn inode(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(self.path()).unwrap().ino()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// An execution to be started.
#[derive(Clone)]
pub struct Call {
    env: BTreeMap<&'static str, OsString>,
    stdin: Vec<u8>,
    /// A shell command that ends in `exec "$0"` and runs in its own mount namespace.
    prelude: Option<String>,
}

/// The result of an execution.
#[derive(Debug)]
pub struct Outcome {
    pub exit: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Call {
    /// A complete call of `command`, like containerd's, in protocol 1.1.0.
    pub fn new(command: &str, socket: &Path) -> Self {
        let call = Self::bare()
            .env("CNI_COMMAND", command)
            .env("CNI_PATH", "/opt/cni/bin")
            .conf(&conf("1.1.0", socket, &json!({})));
        match command {
            "GC" | "STATUS" => call,
            _ => call
                .env("CNI_CONTAINERID", "c0ffee")
                .env("CNI_IFNAME", "eth0"),
        }
    }

    /// No environment and an empty stdin.
    pub fn bare() -> Self {
        Self {
            env: BTreeMap::new(),
            stdin: Vec::new(),
            prelude: None,
        }
    }

    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.insert(name, value.into());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    pub fn netns(self, path: impl AsRef<Path>) -> Self {
        self.env("CNI_NETNS", path.as_ref())
    }

    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    pub fn conf(self, conf: &Value) -> Self {
        self.stdin(conf.to_string())
    }

    pub fn prelude(mut self, shell: String) -> Self {
        self.prelude = Some(shell);
        self
    }

    pub fn run(&self) -> Outcome {
        self.run_with(Stdio::piped())
    }

    pub fn run_with(&self, stdout: Stdio) -> Outcome {
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let bytes = self.stdin.clone();
        // On a thread: the plugin may answer before it has read everything, or read nothing at all.
        let writer = std::thread::spawn(move || {
            drop(stdin.write_all(&bytes));
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Outcome {
            exit: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_hawser");
        let mut command = match &self.prelude {
            None => Command::new(binary),
            Some(shell) => {
                let mut command = Command::new("/usr/bin/unshare");
                command.args(["--mount", "/bin/sh", "-ec", shell, binary]);
                command
            }
        };
        command.env_clear().envs(&self.env);
        command
    }
}

/// A configuration for the daemon at `socket`, with `keys` added or replaced.
pub fn conf(version: &str, socket: &Path, keys: &Value) -> Value {
    let mut conf = json!({
        "cniVersion": version,
        "name": "aws-cni",
        "type": "hawser",
        "socket": socket,
        "deadlineSeconds": 5,
    });
    for (key, value) in keys.as_object().unwrap() {
        conf[key] = value.clone();
    }
    conf
}

impl Outcome {
    /// The result of a successful ADD or VERSION.
    #[track_caller]
    pub fn result(&self) -> Value {
        assert_eq!(self.exit, Some(0), "{self:?}");
        assert_eq!(self.stderr, "", "a success is silent");
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Success without a result.
    #[track_caller]
    pub fn silent(&self) {
        assert_eq!(self.exit, Some(0), "{self:?}");
        assert_eq!((self.stdout.as_str(), self.stderr.as_str()), ("", ""));
    }

    /// An error with `code`: exactly one JSON object in the form of the specification. Returns its message.
    #[track_caller]
    pub fn error(&self, code: u64) -> String {
        assert_eq!(self.exit, Some(1), "{self:?}");
        let error: Value = serde_json::from_str(&self.stdout).unwrap();
        let mut keys: Vec<&String> = error.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(keys, ["cniVersion", "code", "details", "msg"]);
        assert_eq!(error["code"], code, "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        error["msg"].as_str().unwrap().to_owned()
    }
}
