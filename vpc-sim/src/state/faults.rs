//! Injected faults of EC2 calls. Pure: it returns the fault, and the server applies it.
//!
//! Random faults from a seed can be another source behind [`Faults::take`]; callers will not notice.

use std::{collections::VecDeque, time::Duration};

use crate::action::Action;

/// The kind of fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing is done; the answer is this error.
    Error { code: String },
    /// Done as usual, after this delay.
    Delay(Duration),
    /// Done, but the connection closes before the answer.
    LoseReply,
    /// Not done, and never answered: the connection stays open.
    Hang,
}

/// `kind` happens to the next `times` calls of `action`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub action: Action,
    pub times: u32,
    pub kind: FaultKind,
}

impl Fault {
    /// The next `times` calls of `action` return the error `code`.
    #[must_use]
    pub fn error(action: Action, times: u32, code: &str) -> Self {
        Self {
            action,
            times,
            kind: FaultKind::Error {
                code: code.to_owned(),
            },
        }
    }
}

/// Pending faults, oldest first per action.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    script: VecDeque<Fault>,
}

impl Faults {
    /// Adds a fault after those that are queued for its action.
    pub fn push(&mut self, fault: Fault) {
        self.script.push_back(fault);
    }

    /// Discards all pending faults.
    pub fn clear(&mut self) {
        self.script.clear();
    }

    /// The fault for this call of `action`, which is then used up.
    pub fn take(&mut self, action: Action) -> Option<FaultKind> {
        self.script.retain(|f| f.times > 0);
        let fault = self.script.iter_mut().find(|f| f.action == action)?;
        fault.times -= 1;
        Some(fault.kind.clone())
    }

    /// Whether all queued faults were used.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.script.iter().all(|f| f.times == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_one_action_happen_in_order_and_as_often_as_asked() {
        let mut f = Faults::default();
        f.push(Fault::error(Action::CreateTags, 2, "A"));
        f.push(Fault {
            action: Action::CreateTags,
            times: 1,
            kind: FaultKind::Hang,
        });
        assert_eq!(f.take(Action::DeleteTags), None);
        let error = Some(FaultKind::Error { code: "A".into() });
        assert_eq!(f.take(Action::CreateTags), error);
        assert!(!f.is_spent());
        assert_eq!(f.take(Action::CreateTags), error);
        assert_eq!(f.take(Action::CreateTags), Some(FaultKind::Hang));
        assert_eq!(f.take(Action::CreateTags), None);
        assert!(f.is_spent());
    }
}
