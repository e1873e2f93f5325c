//! When EC2 is asked for its list of this node's ENIs again.

use std::time::Duration;

use super::Planner;
use crate::{Command, Mono, Op, gate::Action};

/// The state of asking EC2 for its list.
#[derive(Clone, Debug, Default)]
pub(super) struct Describe {
    pub op: Option<Op>,
    /// When the next call is wanted.
    pub at: Option<Mono>,
    /// A list that is requested at this time or later is wanted, even if another one is read before.
    pub latest: Option<Mono>,
    pub failures: u32,
    /// A list that was requested at this time or later must be read.
    pub confirm: Option<Mono>,
    /// How many lists in a row left something in doubt. Each makes the next wait longer.
    pub unsettled: u32,
    /// When all calls so far would have been sent at [`Describe::PACE`].
    pub paid: Mono,
}

impl Describe {
    /// A list costs two calls of the API with the smallest budget, and one list settles every doubt. If many answers are
    /// lost in a row, their doubts share one list (I9).
    const PACE: Duration = Duration::from_secs(4);
    /// How many calls may follow each other without a pause.
    const AT_ONCE: u32 = 5;

    /// When the pace allows the next call.
    pub fn earliest(&self) -> Mono {
        self.paid - Self::PACE * (Self::AT_ONCE - 1)
    }

    fn count_sent(&mut self, now: Mono) {
        self.paid = self.paid.max(now) + Self::PACE;
    }
}

impl Planner {
    /// Requests a list in `delay` or later. A list that is requested earlier, for another reason, does not count.
    pub(super) fn describe_after(&mut self, delay: Duration) {
        self.describe.latest = self.describe.latest.max(Some(self.now + delay));
        self.describe_within(delay);
    }

    /// Requests a list in `delay` or earlier.
    pub(super) fn describe_within(&mut self, delay: Duration) {
        let at = self.now + delay;
        self.describe.at = Some(self.describe.at.map_or(at, |known| known.min(at)));
    }

    /// Sends the call, if it is due.
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
