//! The subnets of a seed: how the pool's subnets are chosen, and what there is to choose from.
//!
//! Besides the subnet of the node there are always: two of unequal size, one that others have filled, one without a free
//! /28, one that a tag excludes, and one in another zone.

use std::time::Duration;

use ipnet::Ipv4Net;
use vpc_sim::random::Rng;

/// Which setting chooses the subnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// None: the subnet of the primary ENI.
    Primary,
    Discovery,
    Custom,
}

/// What others have taken of a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Nothing,
    Everything,
    /// One address of each /28.
    Blocks,
}

/// A subnet in addition to the node's.
#[derive(Clone, Copy, Debug)]
pub struct Extra {
    pub cidr: Ipv4Net,
    pub zone: char,
    pub role: Option<&'static str>,
    pub taken: Taken,
}

/// What an operator does.
#[derive(Clone, Debug)]
pub enum Change {
    /// Sets the tag of a subnet. 0 is the node's, the others are [`Places::extras`].
    Tag {
        subnet: usize,
        role: &'static str,
    },
    Class(ClassPlan),
}

/// An ENIConfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassPlan {
    /// Subnets, numbered as in [`Change::Tag`], and their weights.
    pub listed: Vec<(usize, u32)>,
    /// It has a security group of its own.
    pub group: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Places {
    pub mode: Mode,
    pub home_role: Option<&'static str>,
    pub extras: Vec<Extra>,
    pub class: ClassPlan,
    /// The daemon knows the ENIConfig from before, or must wait for the API server.
    pub known: bool,
    pub changes: Vec<(Duration, Change)>,
}

impl Places {
    /// Only the node's subnet.
    #[must_use]
    pub fn none() -> Self {
        Self {
            mode: Mode::Primary,
            home_role: None,
            extras: Vec::new(),
            class: ClassPlan {
                listed: Vec::new(),
                group: false,
            },
            known: true,
            changes: Vec::new(),
        }
    }

    pub(super) fn draw(rng: &mut Rng, chaos: Duration) -> Self {
        let mode = match rng.below(100) {
            0..60 => return Self::none(),
            60..82 => Mode::Discovery,
            _ => Mode::Custom,
        };
        let mut places = Self {
            mode,
            home_role: *rng.pick(&[None, None, None, Some("1"), Some("0")]),
            extras: extras(rng),
            class: class(rng),
            known: rng.percent(50),
            changes: Vec::new(),
        };
        if rng.percent(30) {
            for _ in 0..1 + rng.below(3) {
                let at =
                    Duration::from_millis(rng.below(u64::try_from(chaos.as_millis()).unwrap_or(1)));
                let change = match mode {
                    Mode::Custom => Change::Class(class(rng)),
                    _ => Change::Tag {
                        subnet: rng.index(3),
                        role: rng.pick::<&str>(&["0", "1", ""]),
                    },
                };
                places.changes.push((at, change));
            }
            places.changes.sort_by_key(|(at, _)| *at);
        }
        places
    }
}

fn extras(rng: &mut Rng) -> Vec<Extra> {
    let extra = |n: u8, length, zone, role, taken| Extra {
        cidr: Ipv4Net::new_assert([100, 64, n, 0].into(), length),
        zone,
        role,
        taken,
    };
    let large = *rng.pick(&[24, 25, 26]);
    vec![
        extra(1, large, 'a', Some("1"), Taken::Nothing),
        extra(2, 27, 'a', Some("shared"), Taken::Nothing),
        extra(3, 27, 'a', Some("1"), Taken::Everything),
        extra(4, 25, 'a', Some("1"), Taken::Blocks),
        extra(5, 25, 'a', Some("0"), Taken::Nothing),
        extra(6, 25, 'b', Some("1"), Taken::Nothing),
        extra(7, 25, 'a', None, Taken::Nothing),
    ]
}

/// One to three subnets, the largest always among them, so that pods can be served.
fn class(rng: &mut Rng) -> ClassPlan {
    let mut listed = vec![(1, u32::try_from(rng.below(2)).unwrap_or(0))];
    for _ in 0..rng.below(3) {
        let subnet = 2 + rng.index(5);
        if !listed.iter().any(|(known, _)| *known == subnet) {
            listed.push((subnet, u32::try_from(rng.below(3)).unwrap_or(0)));
        }
    }
    ClassPlan {
        listed,
        group: rng.percent(50),
    }
}
