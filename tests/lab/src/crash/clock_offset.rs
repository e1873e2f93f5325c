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

    /// Sets the clocks forward. The daemon must be stopped, otherwise it may see the time before its timers do.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn leap(&mut self, by: Duration) -> io::Result<()> {
        self.seconds += by.as_secs();
        self.file.write_all_at(&self.seconds.to_ne_bytes(), 0)
    }
}
