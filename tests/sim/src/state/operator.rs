//! What the operator changes while the node runs, and whether the daemon knows of all changes.

use std::time::Duration;

use planner::EniClass;

use crate::{
    scenario::{Change, Mode},
    state::State,
};

impl State {
    /// Whether the daemon has been told of everything that others did. It learns of a changed tag with the next list.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let tagged = self.places.mode() == Mode::Discovery && self.places.changed;
        self.disturbed.is_empty() && !tagged
    }

    /// The operator changes a tag or the ENIConfig. Returns what the API server tells of it.
    pub fn change_places(&mut self, change: &Change, now: Duration) -> Option<EniClass> {
        let fault = self.places.change(&mut self.world, change);
        self.count(fault, now);
        self.places.told()
    }
}
