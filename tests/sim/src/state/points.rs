//! Where a daemon can be killed: each time that it is about to change something outside of itself, or just has.

/// The points that a run has passed, and the one that kills.
#[derive(Debug, Default)]
pub struct Points {
    kill_at: Option<usize>,
    passed: Vec<String>,
    closed: bool,
}

impl Points {
    /// `kill_at`: the number of the point, from 0, at which the daemon dies; none if it lives.
    #[must_use]
    pub const fn new(kill_at: Option<usize>) -> Self {
        Self {
            kill_at,
            passed: Vec::new(),
            closed: false,
        }
    }

    /// No more kills from now on: the final conditions need time.
    pub const fn close(&mut self) {
        self.closed = true;
    }

    /// Records a point; returns whether the daemon dies there. Only the first daemon dies, because the numbers only
    /// increase.
    pub fn pass(&mut self, name: String) -> bool {
        if self.closed {
            return false;
        }
        let dies = self.kill_at == Some(self.passed.len());
        self.passed.push(name);
        dies
    }

    /// Every point so far, in order.
    #[must_use]
    pub fn passed(&self) -> &[String] {
        &self.passed
    }
}
