//! DELs that came before their ADD. A runtime may kill the plugin of an ADD and send the DEL while the ADD's request is
//! still in the socket. This ADD would wire a sandbox that is never deleted.

use std::{collections::BTreeMap, time::Duration};

use planner::{Mono, Sandbox};

/// How long an ADD can lag behind its DEL. It is short, because some runtimes add a deleted sandbox again.
const LAG: Duration = Duration::from_secs(5);
/// Enough for a storm of DELs for sandboxes that a rebooted node no longer knows.
const MOST: usize = 4096;

/// Sandboxes whose DEL found nothing, and when.
#[derive(Debug, Default)]
pub struct EarlyDels {
    deleted: BTreeMap<Sandbox, Mono>,
}

impl EarlyDels {
    /// A DEL found nothing to delete.
    pub fn record(&mut self, sandbox: Sandbox, now: Mono) {
        self.deleted.retain(|_, at| now.since(*at) < LAG);
        if self.deleted.len() < MOST {
            self.deleted.insert(sandbox, now);
        }
    }

    /// Whether an ADD that arrives now was already deleted.
    pub fn contains(&mut self, sandbox: &Sandbox, now: Mono) -> bool {
        self.deleted
            .get(sandbox)
            .is_some_and(|at| now.since(*at) < LAG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: usize) -> Sandbox {
        Sandbox {
            network: "n".into(),
            container_id: id.to_string(),
            ifname: "eth0".into(),
        }
    }

    #[test]
    fn a_del_counts_for_a_while_and_only_for_its_sandbox() {
        let mut overtaken = EarlyDels::default();
        overtaken.record(sandbox(1), Mono::ZERO);
        assert!(overtaken.contains(&sandbox(1), Mono::ZERO + LAG / 2));
        assert!(!overtaken.contains(&sandbox(2), Mono::ZERO));
        assert!(!overtaken.contains(&sandbox(1), Mono::ZERO + LAG));
    }

    #[test]
    fn a_storm_of_dels_is_bounded_and_expires() {
        let mut overtaken = EarlyDels::default();
        for id in 0..2 * MOST {
            overtaken.record(sandbox(id), Mono::ZERO);
        }
        assert_eq!(overtaken.deleted.len(), MOST);
        overtaken.record(sandbox(0), Mono::ZERO + LAG);
        assert_eq!(overtaken.deleted.len(), 1);
    }
}
