//! When EC2 is asked for its list of this node's ENIs again.

use std::time::Duration;

use super::Planner;
use crate::{Command, Mono, Op, gate::Action};

/// Reading EC2's list again.
#[derive(Clone, Debug, Default)]
pub(super) struct Describe {
    pub op: Option<Op>,
    /// The next one, and not before when.
    pub at: Option<Mono>,
    /// Whatever is read earlier, a list asked for at this moment or later is wanted.
    pub latest: Option<Mono>,
    pub failures: u32,
    /// A list that was asked for at this moment or later must be read.
    pub confirm: Option<Mono>,
    /// Reads in a row that left something in doubt; each makes the next wait longer.
    pub unsettled: u32,
    /// When all that were asked for would have been, at [`Describe::PACE`].
    pub paid: Mono,
}

impl Describe {
    /// A list costs two calls of the account's dearest API, and one settles every doubt there is: while answers get
    /// lost in a row, doubts share it (I9).
    const PACE: Duration = Duration::from_secs(4);
    /// So many may follow each other at once.
    const AT_ONCE: u32 = 5;

    /// When the pace allows the next one.
    pub fn earliest(&self) -> Mono {
        self.paid - Self::PACE * (Self::AT_ONCE - 1)
    }

    fn count_sent(&mut self, now: Mono) {
        self.paid = self.paid.max(now) + Self::PACE;
    }
}

impl Planner {
    /// Has EC2 asked for its list, then or later: one that is asked for earlier, for another's sake, is no answer.
    pub(super) fn describe_after(&mut self, delay: Duration) {
        self.describe.latest = self.describe.latest.max(Some(self.now + delay));
        self.describe_within(delay);
    }

    /// Has EC2 asked for its list, then or earlier.
    pub(super) fn describe_within(&mut self, delay: Duration) {
        let at = self.now + delay;
        self.describe.at = Some(self.describe.at.map_or(at, |known| known.min(at)));
    }

    /// Asks EC2 for its list, if somebody wants it.
    pub(super) fn send_describe(&mut self, out: &mut Vec<Command>) {
        let due = self.describe.at.is_some_and(|at| at <= self.now);
        if !due
            || self.describe.earliest() > self.now
            || self.describe.op.is_some()
            || self.stopping
            || !self.gates.open(Action::Describe, self.now)
        {
            return;
        }
        let op = self.pending(Action::Describe, None);
        self.describe.op = Some(op);
        self.describe.at = None;
        self.describe.count_sent(self.now);
        self.counters.count(Action::Describe);
        out.push(Command::Describe { op });
    }
}
