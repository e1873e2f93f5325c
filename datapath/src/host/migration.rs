//! Changing the marks of packets under traffic: from the marks of an earlier version, or from other bits.
//!
//! An earlier version counted up: the mark of an ENI was its index, and the primary ENI had no mark; or it was the index plus
//! one. Now marks count down from the largest number of their seven bits. No instance has so many ENIs that the two meet, so
//! both sets of rules can stand side by side: first the rules for the new marks are added, then nftables set these marks, then
//! the old rules are removed. At every moment each packet's mark leads to its ENI's table.
//!
//! The rules in the kernel tell how far a process came that died in the middle.

use std::collections::BTreeMap;

use nettypes::EniIndex;

use super::rules;
use crate::constants::{PROTOCOL, RULE_ENI};
use crate::marks::Marks;
use crate::netlink::Family;
use crate::netlink::rule::Rule;

/// The steps of a change of marks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Migration {
    /// Adds the rules for the new marks. To be applied before nftables set them.
    pub(super) begin: rules::Diff,
    /// Removes the old rules. To be applied after nftables have set the new marks.
    pub(super) end: rules::Diff,
}

/// Plans the change from the rules that are `present` to `marks`. `None` if there is nothing to change. `primary` is the
/// primary ENI's table.
pub(super) fn plan(present: &[Rule], marks: Marks, primary: u32) -> Option<Migration> {
    let is_of_an_eni =
        |r: &&Rule| r.protocol == PROTOCOL && r.priority == RULE_ENI && r.mark.is_some();
    let ours: Vec<&Rule> = present.iter().filter(is_of_an_eni).collect();
    let mut old: Vec<&Rule> = ours
        .iter()
        .copied()
        .filter(|r| !is_current(r, marks))
        .collect();
    if old.is_empty() {
        return None;
    }
    let mut tables: BTreeMap<EniIndex, u32> =
        old.iter().filter_map(|r| eni(r, &old, primary)).collect();
    tables.insert(EniIndex::PRIMARY, primary);
    let new = tables.iter().filter_map(|(index, table)| {
        let mask = marks.eni_mask();
        Some(Rule::mark(
            Family::V4,
            RULE_ENI,
            marks.of(*index)?,
            mask,
            *table,
        ))
    });
    let missing = new.filter(|n| !ours.iter().any(|r| r.same(n))).collect();
    // The primary's is removed last: it says how the others are counted.
    old.sort_by_key(|r| r.table == primary);
    Some(Migration {
        begin: rules::Diff {
            missing,
            wrong: Vec::new(),
        },
        end: rules::Diff {
            missing: Vec::new(),
            wrong: old.into_iter().cloned().collect(),
        },
    })
}

/// Whether a rule is for one of `marks`, and not for one of an earlier version, which had these seven bits only.
fn is_current(rule: &Rule, marks: Marks) -> bool {
    rule.mark.is_some_and(|(value, mask)| {
        mask == marks.eni_mask() && !counts_up(value >> marks.shift(), marks.largest())
    })
}

/// Whether a number of a field with this largest number was counted up from 0.
const fn counts_up(number: u32, largest: u32) -> bool {
    largest == 0x7f && number <= largest / 2
}

/// The ENI and the table of one of the `old` rules.
fn eni(rule: &Rule, old: &[&Rule], primary: u32) -> Option<(EniIndex, u32)> {
    let (value, mask) = rule.mark?;
    let field = |bits: u32| bits.checked_shr(mask.trailing_zeros());
    let (number, largest) = (field(value & mask)?, field(mask)?);
    let index = if counts_up(number, largest) {
        let same_bits = |r: &&&Rule| r.mark.is_some_and(|(_, other)| other == mask);
        let from_one = old.iter().filter(same_bits).any(|r| r.table == primary);
        number.checked_sub(u32::from(from_one))?
    } else {
        largest - number
    };
    Some((EniIndex::new(u16::try_from(index).ok()?)?, rule.table))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: u32 = 1;

    fn rule(mark: u32, table: u32) -> Rule {
        Rule::mark(Family::V4, RULE_ENI, mark, 0x7f, table)
    }

    fn sorted(mut rules: Vec<Rule>) -> Vec<Rule> {
        rules.sort_by_key(|r| r.table);
        rules
    }

    /// Applies the steps rule by rule, and after each plans again, as a process that was started then would: it comes to the
    /// same end.
    fn run(old: &[Rule], marks: Marks) -> Vec<Rule> {
        let first = plan(old, marks, PRIMARY).unwrap();
        let mut rules = old.to_vec();
        for added in &first.begin.missing {
            let again = plan(&rules, marks, PRIMARY).unwrap();
            assert_eq!(again.end, first.end);
            rules.push(added.clone());
        }
        for removed in &first.end.wrong {
            let again = plan(&rules, marks, PRIMARY).unwrap();
            assert_eq!(again.begin.missing, []);
            rules.retain(|r| r != removed);
        }
        assert_eq!(plan(&rules, marks, PRIMARY), None);
        sorted(rules)
    }

    #[test]
    fn marks_that_count_up_become_marks_that_count_down() {
        let wanted = [rule(0x7f, PRIMARY), rule(0x7e, 2), rule(0x7d, 3)];
        let from_zero = [rule(1, 2), rule(2, 3)];
        assert_eq!(run(&from_zero, Marks::default()), wanted);
        let from_one = [rule(1, PRIMARY), rule(2, 2), rule(3, 3)];
        assert_eq!(run(&from_one, Marks::default()), wanted);
    }

    #[test]
    fn at_no_moment_does_a_mark_lead_to_two_tables() {
        let old = [rule(1, 2), rule(2, 3), rule(3, 4)];
        let plan = plan(&old, Marks::default(), PRIMARY).unwrap();
        let new: Vec<_> = plan.begin.missing.iter().map(|r| r.mark).collect();
        assert!(old.iter().all(|r| !new.contains(&r.mark)));
        assert_eq!(plan.end.wrong, old);
    }

    #[test]
    fn other_bits_are_taken_over() {
        let wanted = |mark, mask, table| Rule::mark(Family::V4, RULE_ENI, mark, mask, table);
        let old = [rule(0x7f, PRIMARY), rule(0x7e, 2)];
        for (mask, marks) in [(0x7f00, [0x7f00, 0x7e00]), (0xf00, [0xf00, 0xe00])] {
            let [first, second] = marks;
            assert_eq!(
                run(&old, Marks::new(0x80, mask).unwrap()),
                [wanted(first, mask, PRIMARY), wanted(second, mask, 2)]
            );
        }
        let narrow = [wanted(0xf00, 0xf00, PRIMARY), wanted(0xe00, 0xf00, 2)];
        assert_eq!(run(&narrow, Marks::default()), old);
    }

    #[test]
    fn a_first_start_and_a_restart_change_nothing() {
        let marks = Marks::default();
        assert_eq!(plan(&[], marks, PRIMARY), None);
        let current = [rule(0x7f, PRIMARY), rule(0x7e, 2)];
        assert_eq!(plan(&current, marks, PRIMARY), None);
        let others = Rule {
            protocol: 4,
            ..rule(1, 2)
        };
        assert_eq!(plan(&[others], marks, PRIMARY), None);
    }
}
