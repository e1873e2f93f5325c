//! What the node's kernel and the daemon's store would contain: it outlives the daemon, and the oracle uses it.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use planner::{EniId, Mono, Pod, Restored, Sandbox};

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub address: IpAddr,
    pub eni: EniId,
    /// Its namespace ended while no daemon ran: the next one finds a record without a link.
    pub gone: bool,
}

/// Records, reservations and cooldowns.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Wired and recorded.
    pub live: BTreeMap<Sandbox, Held>,
    /// Granted and not yet recorded: lost in a crash.
    pub granted: BTreeMap<Sandbox, Held>,
    /// Until when an address must not be assigned.
    pub resting: BTreeMap<IpAddr, Duration>,
}

impl Ledger {
    /// The sandbox with `address`, recorded or not.
    #[must_use]
    pub fn holder(&self, address: IpAddr) -> Option<&Sandbox> {
        let all = self.live.iter().chain(&self.granted);
        all.into_iter()
            .find(|(_, held)| held.address == address)
            .map(|(sandbox, _)| sandbox)
    }

    /// Addresses in use.
    pub fn held(&self) -> impl Iterator<Item = (&Sandbox, &Held)> {
        self.live.iter().chain(&self.granted)
    }

    /// The sandbox is gone and its address is in cooldown. False if it had none.
    pub fn release(&mut self, sandbox: &Sandbox, until: Duration) -> bool {
        let freed = self.live.remove(sandbox);
        if let Some(held) = &freed {
            self.resting.insert(held.address, until);
        }
        freed.is_some()
    }

    /// The state of a starting daemon after its recovery: records with a link are live, the others start a new
    /// cooldown.
    pub fn recover(&mut self, now: Duration, cooldown: Duration) -> Restored {
        self.granted.clear();
        let gone: Vec<Sandbox> = self
            .live
            .iter()
            .filter(|(_, held)| held.gone)
            .map(|(sandbox, _)| sandbox.clone())
            .collect();
        for sandbox in gone {
            self.release(&sandbox, now + cooldown);
        }
        self.resting.retain(|_, until| *until > now);
        let assigned = self
            .live
            .iter()
            .map(|(sandbox, held)| {
                (
                    sandbox.clone(),
                    Pod::default(),
                    held.address,
                    held.eni.clone(),
                )
            })
            .collect();
        let cooling = self
            .resting
            .iter()
            .map(|(address, until)| (*address, Mono::from_epoch(*until)))
            .collect();
        Restored {
            assigned,
            cooling,
            ..Restored::default()
        }
    }
}
