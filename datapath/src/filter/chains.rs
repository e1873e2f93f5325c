//! Chains of rules whose conditions have been decided for one packet, and the result of evaluating them. Pure.

use std::collections::BTreeMap;

use super::Why;

/// Whether a condition holds for the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    Yes,
    No,
    /// It depends on something that is not known.
    Perhaps,
}

impl Fit {
    pub const fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    /// Both hold.
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Perhaps,
        }
    }

    pub const fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Perhaps => Self::Perhaps,
        }
    }
}

/// What a rule does with a packet that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
    /// Continue with the next rule: counters, logs, marks.
    Continue,
    /// The result is not known here.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub fit: Fit,
    pub action: Action,
}

/// The rules of a table, by chain.
pub type Chains = BTreeMap<String, Vec<Rule>>;

/// The maximum depth of jumps. The kernel's own limit is 16.
const DEPTH: usize = 20;

/// Where the packet is after a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Accepted,
    Dropped,
    /// At the end of the chain, or by a return.
    Through,
}

struct Walk<'a> {
    chains: &'a Chains,
    /// A rule that may apply would accept the packet, or skip the rules that drop it.
    spared: bool,
}

/// What certainly drops the packet in the base chain `name`.
pub fn walk(chains: &Chains, name: &str, drops_by_policy: bool) -> Option<Why> {
    let mut walk = Walk {
        chains,
        spared: false,
    };
    let end = walk.chain(name, DEPTH);
    match end {
        _ if walk.spared => None,
        End::Dropped => Some(Why::Rule),
        End::Through if drops_by_policy => Some(Why::Policy),
        End::Through | End::Accepted => None,
    }
}

impl Walk<'_> {
    fn chain(&mut self, name: &str, depth: usize) -> End {
        let rules = self.chains.get(name).map_or(&[][..], Vec::as_slice);
        for rule in rules.iter().filter(|rule| rule.fit != Fit::No) {
            let certain = rule.fit == Fit::Yes;
            let end = match &rule.action {
                Action::Continue => continue,
                Action::Return if certain => return End::Through,
                // It may skip the rest of this chain.
                Action::Return | Action::Unknown => {
                    self.spared = true;
                    continue;
                }
                Action::Accept => End::Accepted,
                Action::Drop => End::Dropped,
                Action::Jump(to) | Action::Goto(to) if depth > 0 => self.chain(to, depth - 1),
                Action::Jump(_) | Action::Goto(_) => return End::Through,
            };
            let goes = matches!(rule.action, Action::Goto(_));
            match end {
                End::Accepted if certain => return End::Accepted,
                End::Accepted => self.spared = true,
                End::Dropped if certain => return End::Dropped,
                End::Through if certain && goes => return End::Through,
                End::Dropped | End::Through => {}
            }
        }
        End::Through
    }
}
