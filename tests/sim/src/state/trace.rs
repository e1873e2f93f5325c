//! What happened, in order: always a running hash, and text only if it will be read.

use std::{collections::VecDeque, fmt, time::Duration};

/// How much of a run is written as text. The run itself is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceDetail {
    None,
    Last,
    All,
}

/// The number of lines that a failure shows.
const SHOWN: usize = 40;

/// Two runs of one seed have the same trace, otherwise the simulation is not deterministic.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: Option<VecDeque<String>>,
    keep: usize,
}

/// A number for a text in the hash (FNV-1a).
#[must_use]
pub fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Trace {
    /// `words`: keep readable lines; `all`: all of them, not only the last ones.
    #[must_use]
    pub fn new(words: bool, all: bool) -> Self {
        Self {
            hash: 0,
            lines: words.then(VecDeque::new),
            keep: if all { usize::MAX } else { SHOWN },
        }
    }

    /// Records that `what` happened with these operands; `words` is the text.
    pub fn note<W: fmt::Display>(
        &mut self,
        at: Duration,
        what: &str,
        operands: &[u64],
        words: impl FnOnce() -> W,
    ) {
        let moment = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        for number in [moment, digest(what)].iter().chain(operands) {
            self.hash = (self.hash ^ number)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
        }
        if let Some(lines) = &mut self.lines {
            lines.push_back(format!("{:>10.3}  {what}: {}", at.as_secs_f64(), words()));
            if lines.len() > self.keep {
                lines.pop_front();
            }
        }
    }

    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The readable lines, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().flatten().cloned().collect()
    }
}
