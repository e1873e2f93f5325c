//! Recent events in ring buffers: the pool's decisions, and the stages of requests. Only for introspection.
//!
//! Written on the hot path, so an entry consists of numbers and constants: nothing is allocated, and a lock is held
//! only for a copy. Contains no address, no name and no full container id.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use planner::{Command, Mono};

/// The number of entries of each kind: for some hundred pods.
const DECISIONS: usize = 256;
const STAGES: usize = 4096;

/// The kept characters of a container id: enough to find a sandbox, too few to forge a DEL.
pub const SHORT: usize = 12;

/// The part of a container id that is shown.
#[must_use]
pub fn short(container: &str) -> &str {
    container.get(..SHORT).unwrap_or(container)
}

/// A decision of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    pub at: Mono,
    pub what: String,
    pub why: String,
}

/// One stage of a request, or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// When it ended.
    pub at: Mono,
    pub verb: &'static str,
    /// The stage, or the request's result.
    pub what: &'static str,
    pub took: Duration,
    sandbox: [u8; SHORT],
}

impl Stage {
    /// The beginning of the container's id.
    #[must_use]
    pub fn sandbox(&self) -> &str {
        let end = self.sandbox.iter().position(|&b| b == 0).unwrap_or(SHORT);
        std::str::from_utf8(&self.sandbox[..end]).unwrap_or_default()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    decisions: Mutex<VecDeque<Decided>>,
    stages: Mutex<VecDeque<Stage>>,
}

impl History {
    /// Records commands that cost or change something; grants and refusals belong to requests.
    pub fn decided(&self, at: Mono, why: impl Fn() -> String, commands: &[Command]) {
        for what in commands.iter().filter_map(describe) {
            push(
                &self.decisions,
                DECISIONS,
                Decided {
                    at,
                    what,
                    why: why(),
                },
            );
        }
    }

    pub fn stage(
        &self,
        at: Mono,
        container: &str,
        verb: &'static str,
        what: &'static str,
        took: Duration,
    ) {
        let mut sandbox = [0; SHORT];
        for (kept, byte) in sandbox.iter_mut().zip(container.bytes()) {
            *kept = byte;
        }
        push(
            &self.stages,
            STAGES,
            Stage {
                at,
                verb,
                what,
                took,
                sandbox,
            },
        );
    }

    /// Oldest first.
    #[must_use]
    pub fn decisions(&self) -> Vec<Decided> {
        let kept = self.decisions.lock();
        let kept = kept.unwrap_or_else(PoisonError::into_inner);
        kept.iter().cloned().collect()
    }

    /// The stages of requests of this container, oldest first. The id may be shortened.
    #[must_use]
    pub fn stages(&self, container: &str) -> Vec<Stage> {
        let container = short(container);
        let kept = self.stages.lock();
        let kept = kept.unwrap_or_else(PoisonError::into_inner);
        let same = |stage: &&Stage| stage.sandbox().starts_with(container);
        kept.iter().filter(same).copied().collect()
    }
}

fn push<T>(ring: &Mutex<VecDeque<T>>, most: usize, entry: T) {
    let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(entry);
}

/// A command as text, if it is of interest.
fn describe(command: &Command) -> Option<String> {
    let amount = |amount: &planner::Amount| match *amount {
        planner::Amount::Addresses(n) => many(n.into(), "address", "addresses"),
        planner::Amount::Prefixes(n) => many(n.into(), "prefix", "prefixes"),
        planner::Amount::Ipv6Prefixes(n) => many(n.into(), "IPv6 prefix", "IPv6 prefixes"),
    };
    Some(match command {
        Command::CreateEni { spec, .. } => format!(
            "create an ENI in {} with {}",
            spec.subnet,
            amount(&spec.amount)
        ),
        Command::AttachEni { eni, device, .. } => format!("attach {eni} as device {device}"),
        Command::DeleteOnTermination { eni, .. } => format!("delete {eni} with the instance"),
        Command::ConfigureEni(what) => format!("set up {} on the host", what.eni),
        Command::Assign {
            eni, amount: of, ..
        } => format!("assign {} to {eni}", amount(of)),
        Command::Unassign {
            eni,
            addresses,
            prefixes,
            ..
        } => {
            let parts = [
                (addresses.len(), "address", "addresses"),
                (prefixes.len(), "prefix", "prefixes"),
            ];
            let parts = parts.iter().filter(|(n, ..)| *n > 0);
            let parts: Vec<_> = parts.map(|(n, one, more)| many(*n, one, more)).collect();
            format!("return {} of {eni}", parts.join(" and "))
        }
        Command::DeconfigureEni { eni, .. } => format!("remove {eni} from the host"),
        Command::DetachEni { eni, .. } => format!("detach {eni}"),
        Command::DeleteEni { eni, .. } => format!("delete {eni}"),
        Command::Describe { .. } => "list the attached ENIs".to_owned(),
        Command::DescribeSubnets { .. } => "list the subnets".to_owned(),
        Command::SetGroups { eni, .. } => format!("change the security groups of {eni}"),
        Command::Grant { .. } | Command::GrantAgain { .. } | Command::Refuse { .. } => {
            return None;
        }
    })
}

fn many(n: usize, one: &str, more: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Mono = Mono::from_epoch(Duration::from_secs(5));

    #[test]
    fn a_sandbox_is_found_by_its_whole_id_and_by_its_beginning() {
        let history = History::default();
        let (one, other) = ("0123456789abcdef", "fedcba9876543210");
        history.stage(AT, one, "add", "wire", Duration::from_millis(1));
        history.stage(AT, other, "add", "wire", Duration::from_millis(2));
        for name in [one, "0123456789ab", "01"] {
            let found = history.stages(name);
            assert_eq!(found.len(), 1, "{name}");
            assert_eq!(found[0].sandbox(), "0123456789ab");
        }
        assert!(history.stages("none").is_empty());
    }

    #[test]
    fn the_ring_buffers_drop_the_oldest_entries() {
        let history = History::default();
        for n in 0..=DECISIONS {
            let eni = format!("eni-{n}").as_str().into();
            let command = Command::DeleteEni {
                op: planner::Op(1),
                eni,
            };
            history.decided(AT, || "idle".into(), &[command]);
        }
        let kept = history.decisions();
        assert_eq!(kept.len(), DECISIONS);
        assert_eq!(kept[0].what, "delete eni-1");
        assert_eq!(kept[0].why, "idle");
    }
}
