//! Policy rules. Ours have our protocol number. A rule is added before the rules that it replaces are removed.

use super::{During, HostError};
use crate::constants::PROTOCOL;
use crate::netlink::rule::{self, Rule};
use crate::netlink::{Error, Family, Socket};

/// Ensures that `wanted` exists, and then that none of our other rules matches `rival`.
pub(super) fn ensure(
    socket: &mut Socket,
    wanted: &Rule,
    rival: impl Fn(&Rule) -> bool,
) -> Result<(), HostError> {
    let what = "set up rules";
    let present = socket.rules(wanted.family).during(what)?;
    if !present.iter().any(|r| r.same(wanted)) {
        socket.apply(&rule::add(wanted)).during(what)?;
    }
    let wrong = present
        .iter()
        .filter(|r| r.protocol == PROTOCOL && !r.same(wanted) && rival(r));
    let requests: Vec<_> = wrong.map(rule::del).collect();
    socket.batch(&requests).and_then(all_gone).during(what)
}

/// Ensures that none of our rules matches `wrong`.
pub(super) fn remove(
    socket: &mut Socket,
    family: Family,
    wrong: impl Fn(&Rule) -> bool,
) -> Result<(), HostError> {
    let what = "remove rules";
    let present = socket.rules(family).during(what)?;
    let wrong = present
        .iter()
        .filter(|r| r.protocol == PROTOCOL && wrong(r));
    let requests: Vec<_> = wrong.map(rule::del).collect();
    socket.batch(&requests).and_then(all_gone).during(what)
}

/// Our rules for `table`.
pub(super) fn leading_to(socket: &mut Socket, table: u32) -> Result<Vec<Rule>, Error> {
    let mut rules = socket.rules(Family::V4)?;
    rules.retain(|r| r.protocol == PROTOCOL && r.table == table);
    Ok(rules)
}

/// For deletions: an object that does not exist is a success.
pub(super) fn all_gone(report: crate::netlink::Report) -> Result<(), Error> {
    report
        .results
        .into_iter()
        .filter(|r| !r.as_ref().is_err_and(Error::is_gone))
        .collect()
}
