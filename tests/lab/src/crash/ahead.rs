//! A daemon whose clocks can be set forward, so that nobody waits a minute for what the daemon does in a minute.
//!
//! The binary is the unmodified one: a small library, preloaded, adds to what its clocks say. To the daemon a leap is what
//! the sleep of a machine is: it stands still, and time has passed when it goes on.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// The library, as `build.rs` has compiled it.
const LIBRARY: &str = concat!(env!("OUT_DIR"), "/ahead.so");

/// By how much the clocks of a node's daemons run ahead. One that is started later sees what its forerunner saw.
#[derive(Debug)]
pub struct Ahead {
    path: PathBuf,
    file: File,
    seconds: u64,
}

impl Ahead {
    /// Clocks that are right so far; `dir` must exist and be this node's alone.
    ///
    /// # Errors
    /// If the file cannot be made.
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

    /// What a daemon's environment must have for these clocks.
    #[must_use]
    pub fn settings(&self) -> [(&str, &str); 2] {
        let path = self.path.to_str().expect("made of plain words");
        [("LD_PRELOAD", LIBRARY), ("AHEAD", path)]
    }

    /// Sets the clocks forward. The daemon must be standing still, or it may see the time before its timers do.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn leap(&mut self, by: Duration) -> io::Result<()> {
        self.seconds += by.as_secs();
        self.file.write_all_at(&self.seconds.to_ne_bytes(), 0)
    }
}
