//! Debian's Chromium without a screen, controlled over two pipes with its own protocol: one JSON per message,
//! terminated by NUL. Owns the process and its profile; knows nothing of the page.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use datapath::netns::Netns;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::wait::eventually;

/// A window.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: String,
    next: u64,
    profile: PathBuf,
}

impl Browser {
    /// Opens `url` in a new window, inside `netns`.
    ///
    /// # Errors
    /// If Chromium is not installed, does not start, or does not answer.
    pub fn open(netns: &Netns, url: &str, profile: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(profile)?;
        // It reads and writes on descriptors 3 and 4; the shell only renames the pipes and is replaced by exec.
        let script = "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                      --no-proxy-server --hide-scrollbars --window-size=1280,900 --remote-debugging-pipe \
                      --user-data-dir=\"$0\" about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .arg(profile)
            .env("HOME", profile)
            .env("DBUS_SESSION_BUS_ADDRESS", "disabled:")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // It has many processes, which end together.
            .process_group(0);
        let mut child = netns.run(move || command.spawn())??;
        let missing = || io::Error::other("a pipe is missing");
        let to = child.stdin.take().ok_or_else(missing)?;
        let from = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        let mut browser = Self {
            child,
            to,
            from,
            session: String::new(),
            next: 0,
            profile: profile.to_owned(),
        };
        let target = browser.call("Target.createTarget", json!({ "url": url }))?;
        let attached = browser.call(
            "Target.attachToTarget",
            json!({ "targetId": target["targetId"], "flatten": true }),
        )?;
        browser.session = attached["sessionId"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Ok(browser)
    }

    /// Sends a message and waits for its answer; events in between are ignored.
    ///
    /// # Errors
    /// If the browser has ended, or returns an error.
    pub fn call(&mut self, method: &str, parameters: Value) -> io::Result<Value> {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.to.write_all(&text)?;
        loop {
            let mut answer = Vec::new();
            if self.from.read_until(0, &mut answer)? == 0 {
                return Err(io::Error::other(format!(
                    "the browser ended during {method}"
                )));
            }
            answer.pop();
            let answer: Value = serde_json::from_slice(&answer)?;
            if answer["id"] == self.next {
                return match answer.get("error") {
                    Some(error) => Err(io::Error::other(format!("{method}: {error}"))),
                    None => Ok(answer["result"].clone()),
                };
            }
        }
    }

    /// The value of an expression on the page.
    ///
    /// # Errors
    /// If the page throws an exception.
    pub fn evaluate(&mut self, expression: &str) -> io::Result<Value> {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", parameters)?;
        match result.get("exceptionDetails") {
            Some(details) => Err(io::Error::other(format!("{expression}: {details}"))),
            None => Ok(result["result"]["value"].clone()),
        }
    }

    /// Waits until an expression on the page has this value; returns whether it did.
    pub fn becomes(&mut self, expression: &str, value: &Value, limit: Duration) -> bool {
        eventually(limit, || {
            self.evaluate(expression).is_ok_and(|found| found == *value)
        })
    }

    /// Presses a named key, such as `ArrowRight` or `Tab`.
    ///
    /// # Errors
    /// If the browser has ended.
    pub fn press(&mut self, key: &str, code: u32) -> io::Result<()> {
        for kind in ["rawKeyDown", "keyUp"] {
            let event =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// A PNG of the whole page, in base64.
    ///
    /// # Errors
    /// If the browser has ended.
    pub fn picture(&mut self) -> io::Result<String> {
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let result = self.call("Page.captureScreenshot", parameters)?;
        Ok(result["data"].as_str().unwrap_or_default().to_owned())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Best effort: the process group is ours, and the test is over.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            drop(killpg(Pid::from_raw(pid), Signal::SIGKILL).map_err(io::Error::from));
        }
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.profile));
    }
}
