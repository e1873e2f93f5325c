//! Policy rules by difference: ours are known by their protocol number, and a rule is added before its rivals go.

use super::{During, HostError};
use crate::constants::PROTOCOL;
use crate::netlink::rule::{self, Rule};
use crate::netlink::{Error, Family, Socket};

/// Makes sure that `wanted` is there, and then that of our own rules no other one is that `rival` matches.
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

/// Makes sure that no rule of ours is there that `wrong` matches.
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

/// Our rules that lead to `table`.
pub(super) fn leading_to(socket: &mut Socket, table: u32) -> Result<Vec<Rule>, Error> {
    let mut rules = socket.rules(Family::V4)?;
    rules.retain(|r| r.protocol == PROTOCOL && r.table == table);
    Ok(rules)
}

/// Of deletions: gone already is as good.
pub(super) fn all_gone(report: crate::netlink::Report) -> Result<(), Error> {
    report
        .results
        .into_iter()
        .filter(|r| !r.as_ref().is_err_and(Error::is_gone))
        .collect()
}
