//! The compiled-in table of instance types: parsing, look-up and near matches. Computes no limits.

use std::sync::LazyLock;

use thiserror::Error;

use super::{Hypervisor, InstanceType};

const TSV: &str = include_str!("../../data/instance-limits.tsv");

/// Sorted by name, so that look-up is a binary search.
static TABLE: LazyLock<Vec<InstanceType>> = LazyLock::new(|| {
    let mut types: Vec<_> = rows()
        .map(|row| {
            parse(row)
                .unwrap_or_else(|| panic!("the table is compiled in and tested; bad row: {row}"))
        })
        .collect();
    types.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    types
});

/// The instance type is not in the table.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unknown instance type {name}; similar types are {}", near.join(", "))]
pub struct UnknownType {
    pub name: String,
    pub near: Vec<&'static str>,
}

/// Every known instance type, by name.
#[must_use]
pub fn all() -> &'static [InstanceType] {
    &TABLE
}

#[must_use]
pub fn lookup(name: &str) -> Option<&'static InstanceType> {
    let at = TABLE.binary_search_by(|t| t.name.as_ref().cmp(name)).ok()?;
    TABLE.get(at)
}

/// # Errors
/// [`UnknownType`] with near matches: the name is mistyped, or the table is too old.
pub fn require(name: &str) -> Result<&'static InstanceType, UnknownType> {
    lookup(name).ok_or_else(|| UnknownType {
        name: name.to_owned(),
        near: nearest(name, 3),
    })
}

/// Up to `count` known names that are most similar to `name`: the same family first, then by edit distance.
#[must_use]
pub fn nearest(name: &str, count: usize) -> Vec<&'static str> {
    let family = name.split('.').next().unwrap_or_default();
    let mut ranked: Vec<_> = TABLE
        .iter()
        .map(|t| {
            (
                t.name.split('.').next() != Some(family),
                distance(name, &t.name),
                t.name.as_ref(),
            )
        })
        .collect();
    ranked.sort_unstable();
    ranked
        .into_iter()
        .take(count)
        .map(|(_, _, name)| name)
        .collect()
}

fn rows() -> impl Iterator<Item = &'static str> {
    TSV.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .skip(1)
}

fn parse(row: &'static str) -> Option<InstanceType> {
    let mut columns = row.split('\t');
    let mut next = || columns.next();
    Some(InstanceType {
        name: next()?.into(),
        max_enis: next()?.parse().ok()?,
        ipv4_per_eni: next()?.parse().ok()?,
        default_card: next()?.parse().ok()?,
        cards: next()?
            .split(',')
            .map(|n| n.parse().ok())
            .collect::<Option<_>>()?,
        hypervisor: match next()? {
            "nitro" => Hypervisor::Nitro,
            "xen" => Hypervisor::Xen,
            "unknown" => Hypervisor::Unknown,
            _ => return None,
        },
        bare_metal: next()?.parse().ok()?,
        trunking: published(next()?)?,
        branch_enis: published(next()?)?,
        vcpus: published(next()?)?,
    })
}

/// `-` means "not published". The outer `Option` is `None` if the column cannot be parsed.
fn published<T: std::str::FromStr>(column: &str) -> Option<Option<T>> {
    if column == "-" {
        Some(None)
    } else {
        column.parse().ok().map(Some)
    }
}

/// Levenshtein distance over bytes: instance types are ASCII.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_parses_once() {
        assert_eq!(all().len(), 1392);
        assert_eq!(
            rows()
                .filter(|row| parse(row).is_none())
                .collect::<Vec<_>>(),
            Vec::<&str>::new()
        );
        assert!(
            all().windows(2).all(|w| w[0].name < w[1].name),
            "a name occurs twice"
        );
    }

    #[test]
    fn every_row_is_plausible() {
        for t in all() {
            assert!(t.max_enis >= 1 && t.ipv4_per_eni >= 2, "{t:?}");
            assert_eq!(
                t.cards.get(usize::from(t.default_card)),
                Some(&t.max_enis),
                "{t:?}"
            );
        }
    }

    #[test]
    fn a_row_with_cards() {
        let p4d = lookup("p4d.24xlarge").unwrap();
        assert_eq!(
            (p4d.cards.as_slice(), p4d.trunking, p4d.branch_enis),
            (&[15, 15, 15, 15][..], Some(true), Some(62))
        );
        assert_eq!(lookup("c5a.metal").unwrap().trunking, None);
        for name in ["i8ge.48xlarge", "i8ge.metal-48xl"] {
            assert_eq!(lookup(name).unwrap().cards, [12, 12], "{name}");
        }
        for name in ["i7ie.48xlarge", "i7ie.metal-48xl"] {
            assert_eq!(lookup(name).unwrap().cards, [8, 7], "{name}");
        }
    }

    #[test]
    fn vcpus_are_known_but_of_two_types() {
        let without = all().iter().filter(|t| t.vcpus.is_none());
        let names: Vec<_> = without.map(|t| t.name.as_ref()).collect();
        assert_eq!(names, ["bmn-sf1.metal", "c7i.32xlarge"]);
        assert_eq!(lookup("m5.8xlarge").unwrap().vcpus, Some(32));
        assert_eq!(lookup("hpc7a.12xlarge").unwrap().vcpus, Some(24));
    }

    #[test]
    fn unknown_names_its_neighbours() {
        let error = require("m5.lagre").unwrap_err();
        assert_eq!(error.near.first(), Some(&"m5.large"));
        assert!(
            error
                .to_string()
                .starts_with("unknown instance type m5.lagre; similar types are m5.large, ")
        );
        assert_eq!(nearest("m55.large", 3).len(), 3);
    }
}
