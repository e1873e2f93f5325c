//! Changing the marks of packets under traffic: from the marks of an earlier version, or from other bits.
//!
//! Until version 0.1 the primary ENI had no table, and the mark of an ENI was its index; now it is the index plus one. The same
//! mark then means two ENIs, while rules and nftables cannot change together. So there is a third set of marks in between, with
//! a bit that neither of the two uses: first its rules are added, then nftables set these marks, then the rules for the final
//! marks replace the old ones, then nftables set the final marks. At every moment each packet's mark leads to its ENI's table.
//!
//! The rules in the kernel tell how far a process came that died in the middle: the primary's rule is added last in each set.

use std::collections::BTreeMap;

use super::rules;
use crate::constants::{PROTOCOL, RULE_ENI};
use crate::marks::Marks;
use crate::netlink::Family;
use crate::netlink::rule::Rule;
use nettypes::EniIndex;

/// The steps of a change of marks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Migration {
    /// Adds the rules for the marks in between. To be applied before nftables set these marks.
    pub(super) begin: rules::Diff,
    /// Replaces the old rules. To be applied before nftables set the final marks.
    pub(super) switch: rules::Diff,
    /// Removes the rules of the marks in between.
    pub(super) end: rules::Diff,
}

/// Plans the change from the rules that are `present` to `marks`. `None` if there is nothing to change. `primary` is the
/// primary ENI's table.
pub(super) fn plan(present: &[Rule], marks: Marks, primary: u32) -> Option<Migration> {
    let ours: Vec<&Rule> = present
        .iter()
        .filter(|r| r.protocol == PROTOCOL && r.priority == RULE_ENI && r.mark.is_some())
        .collect();
    let between = marks.tagged();
    let tables = tables(&ours, marks, primary)?;
    let set = |marks: Marks| -> Vec<Rule> {
        // The primary's rule is last.
        let rules = tables.iter().rev();
        rules
            .filter_map(|(index, table)| {
                let mask = marks.eni_mask();
                Some(Rule::mark(
                    Family::V4,
                    RULE_ENI,
                    marks.of(*index)?,
                    mask,
                    *table,
                ))
            })
            .collect()
    };
    let (tagged, last) = (set(between), set(marks));
    let is_tagged = |r: &&&Rule| tagged.iter().any(|t| r.same(t));
    let missing = |wanted: &[Rule]| {
        let absent = wanted.iter().filter(|w| !ours.iter().any(|r| r.same(w)));
        absent.cloned().collect()
    };
    let wrong = ours
        .iter()
        .filter(|r| !is_tagged(r) && !last.iter().any(|l| r.same(l)));
    Some(Migration {
        begin: rules::Diff {
            missing: missing(&tagged),
            wrong: Vec::new(),
        },
        switch: rules::Diff {
            missing: missing(&last),
            wrong: wrong.map(|r| (*r).clone()).collect(),
        },
        end: rules::Diff {
            missing: Vec::new(),
            // The primary's first, which says that the set is complete.
            wrong: tagged.into_iter().rev().collect(),
        },
    })
}

/// The table of each ENI, as the rules tell. `None` if they are those of `marks` already, or if there are none.
fn tables(ours: &[&Rule], marks: Marks, primary: u32) -> Option<BTreeMap<EniIndex, u32>> {
    let between = marks.tagged();
    let decode = |marks: Marks, rule: &Rule| {
        let (value, mask) = rule.mark?;
        let index = (mask == marks.eni_mask()).then(|| marks.index_of(value))??;
        Some((index, rule.table))
    };
    let leads = |marks: Marks| {
        let rule = |r: &&&Rule| decode(marks, r) == Some((EniIndex::PRIMARY, primary));
        ours.iter().any(|r| rule(&r))
    };
    if leads(between) {
        return Some(ours.iter().filter_map(|r| decode(between, r)).collect());
    }
    if leads(marks) {
        return None;
    }
    let mut tables: BTreeMap<_, _> = ours
        .iter()
        .filter_map(|r| earlier(ours, r, primary))
        .collect();
    if tables.is_empty() {
        return None;
    }
    tables.insert(EniIndex::PRIMARY, primary);
    Some(tables)
}

/// The ENI of a rule with other bits, or of one from before the primary ENI had a rule.
fn earlier(ours: &[&Rule], rule: &Rule, primary: u32) -> Option<(EniIndex, u32)> {
    let (value, mask) = rule.mark?;
    let number = (value & mask).checked_shr(mask.trailing_zeros())?;
    let same_bits = |r: &&&Rule| r.mark.is_some_and(|(_, other)| other == mask);
    let counts_from_one = ours.iter().filter(same_bits).any(|r| r.table == primary);
    let index = number.checked_sub(u32::from(counts_from_one))?;
    Some((EniIndex::new(u16::try_from(index).ok()?)?, rule.table))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: u32 = 1;

    fn rule(mark: u32, table: u32) -> Rule {
        Rule::mark(Family::V4, RULE_ENI, mark, 0x7f, table)
    }

    /// Applies the steps one by one, and after each plans again, as a process that was started then would.
    fn run(mut rules: Vec<Rule>, marks: Marks) -> Vec<Rule> {
        let apply = |rules: &mut Vec<Rule>, diff: &rules::Diff| {
            rules.extend(diff.missing.iter().cloned());
            rules.retain(|r| !diff.wrong.contains(r));
        };
        let first = plan(&rules, marks, PRIMARY).unwrap();
        apply(&mut rules, &first.begin);
        let second = plan(&rules, marks, PRIMARY).unwrap();
        assert_eq!((&second.switch, &second.end), (&first.switch, &first.end));
        assert!(second.begin.missing.is_empty());
        apply(&mut rules, &first.switch);
        let third = plan(&rules, marks, PRIMARY).unwrap();
        assert!(third.begin.missing.is_empty() && third.switch.missing.is_empty());
        assert_eq!(third.end, first.end);
        apply(&mut rules, &first.end);
        assert_eq!(plan(&rules, marks, PRIMARY), None);
        rules
    }

    #[test]
    fn marks_of_the_earlier_version_are_counted_up() {
        let rules = run(vec![rule(1, 2), rule(2, 3)], Marks::default());
        assert_eq!(rules, [rule(3, 3), rule(2, 2), rule(1, PRIMARY)]);
    }

    #[test]
    fn at_no_moment_does_a_mark_lead_to_two_tables() {
        let old = [rule(1, 2), rule(2, 3), rule(3, 4)];
        let plan = plan(&old, Marks::default(), PRIMARY).unwrap();
        let between: Vec<_> = plan.begin.missing.iter().map(|r| r.mark).collect();
        for others in [&old[..], &plan.switch.missing] {
            assert!(others.iter().all(|r| !between.contains(&r.mark)));
        }
        assert_eq!(plan.switch.wrong, old);
    }

    #[test]
    fn other_bits_are_taken_over() {
        let moved = Marks::new(0x80, 0x7f00).unwrap();
        let rules = run(vec![rule(1, PRIMARY), rule(2, 2)], moved);
        let wanted = |mark, table| Rule::mark(Family::V4, RULE_ENI, mark, 0x7f00, table);
        assert_eq!(rules, [wanted(0x200, 2), wanted(0x100, PRIMARY)]);
    }

    #[test]
    fn a_first_start_and_a_restart_change_nothing() {
        let marks = Marks::default();
        assert_eq!(plan(&[], marks, PRIMARY), None);
        assert_eq!(plan(&[rule(1, PRIMARY), rule(2, 2)], marks, PRIMARY), None);
        let others = Rule {
            protocol: 4,
            ..rule(1, 2)
        };
        assert_eq!(plan(&[others], marks, PRIMARY), None);
    }
}
