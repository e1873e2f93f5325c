//! Policy rules. Ours have our protocol number. A rule is added before the rules that it replaces are removed.

use super::error::{During, HostError};
use crate::constants::PROTOCOL;
use crate::marks::Marks;
use crate::netlink::rule::{self, Rule};
use crate::netlink::{Error, Report, Socket};

/// What must change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Diff {
    pub(super) missing: Vec<Rule>,
    pub(super) wrong: Vec<Rule>,
}

/// Compares the rules that are `present` with those `wanted`. Of our other rules, those that match `rival` are wrong.
pub(super) fn diff(present: &[Rule], wanted: &[Rule], rival: impl Fn(&Rule) -> bool) -> Diff {
    let is_wanted = |rule: &Rule| wanted.iter().any(|w| rule.same(w));
    let missing = wanted
        .iter()
        .filter(|w| !present.iter().any(|rule| rule.same(w)));
    let wrong = present
        .iter()
        .filter(|r| r.protocol == PROTOCOL && !is_wanted(r) && rival(r));
    Diff {
        missing: missing.cloned().collect(),
        wrong: wrong.cloned().collect(),
    }
}

impl Diff {
    /// Adds, then removes.
    pub(super) fn apply(&self, socket: &mut Socket) -> Result<(), HostError> {
        let what = "set up rules";
        let missing: Vec<_> = self.missing.iter().map(rule::add).collect();
        socket.batch(&missing).and_then(Report::ok).during(what)?;
        let wrong: Vec<_> = self.wrong.iter().map(rule::del).collect();
        socket.batch(&wrong).and_then(all_gone).during(what)
    }
}

/// The rules of other programs that decide by mark bits that are ours: they may catch pods' packets, and ours may catch
/// packets that these programs have marked.
#[must_use]
pub fn conflicts(present: &[Rule], marks: Marks) -> Vec<Rule> {
    let shares = |rule: &&Rule| rule.mark.is_some_and(|(_, mask)| mask & marks.all() != 0);
    let foreign = present.iter().filter(|rule| rule.protocol != PROTOCOL);
    foreign.filter(shares).cloned().collect()
}

/// For deletions: an object that does not exist is a success.
pub(super) fn all_gone(report: Report) -> Result<(), Error> {
    report
        .results
        .into_iter()
        .filter(|r| !r.as_ref().is_err_and(Error::is_gone))
        .collect()
}
