//! A daemon whose clocks can be set forward, so that a test does not wait a minute for what the daemon does in a
//! minute.
//!
//! The binary is unmodified: a small preloaded library adds an offset to its clocks. For the daemon, this looks like a
//! suspended machine: it stops, and time has passed when it continues.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::node::{Node, await_stop};

/// The library compiled by `build.rs`.
const LIBRARY: &str = concat!(env!("OUT_DIR"), "/clock_offset.so");

/// The clock offset of a node's daemons. A later daemon sees the same time as the previous one.
#[derive(Debug)]
pub struct ClockOffset {
    path: PathBuf,
    file: File,
    seconds: u64,
}

impl ClockOffset {
    /// Correct clocks at first; `dir` must exist and belong to this node alone.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join("ahead");
        let file = File::create(&path)?;
        let mut ahead = Self {
            path,
            file,
            seconds: 0,
        };
        ahead.leap(Duration::ZERO)?;
        Ok(ahead)
    }

    /// The environment variables of a daemon with these clocks.
    #[must_use]
    pub fn settings(&self) -> [(&str, &str); 2] {
        let path = self.path.to_str().expect("made of plain words");
        [("LD_PRELOAD", LIBRARY), ("AHEAD", path)]
    }

    /// Lets this much time pass for the node's daemon at once.
    ///
    /// # Errors
    /// As [`ClockOffset::fall_asleep`].
    pub fn pass(&mut self, node: &Node, span: Duration) -> io::Result<()> {
        let pid = self.fall_asleep(node, span)?;
        Ok(kill(pid, Signal::SIGCONT)?)
    }

    /// Stops the node's daemon until it is told to continue, and sets its clocks forward.
    ///
    /// # Errors
    /// If it cannot be stopped.
    pub fn fall_asleep(&mut self, node: &Node, span: Duration) -> io::Result<Pid> {
        let pid = Pid::from_raw(i32::try_from(node.pid()).expect("pids are positive"));
        kill(pid, Signal::SIGSTOP)?;
        // Otherwise, it may see the time before its timers do.
        await_stop(pid)?;
        self.leap(span)?;
        Ok(pid)
    }

    fn leap(&mut self, by: Duration) -> io::Result<()> {
        self.seconds += by.as_secs();
        self.file.write_all_at(&self.seconds.to_ne_bytes(), 0)
    }
}
