//! What pods had to wait for, whatever became of them. Holds no pod and no text: one obstacle stands before all who wait
//! at the same time, so it is enough to know when each was seen last.

use crate::Mono;

/// What stands between a pod and its address. Of several that a pod met, the later in this order tells more: an ENI that
/// had to be created had to be attached and brought up too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// Addresses rest, and no growth is under way.
    Cooling,
    /// Growth is not under way yet.
    Growth,
    /// Addresses are asked for on an ENI that is there.
    Assign,
    /// The host brings an ENI up.
    Configure,
    /// An ENI is being attached.
    Attach,
    /// An ENI is being created.
    Create,
    /// EC2's first list of what is attached.
    Inventory,
    /// EC2 does not answer, or the host cannot set an ENI up.
    Unreachable,
    EniLimit,
    SubnetExhausted,
    Throttled,
    Denied,
    PodLimit,
}

impl Obstacle {
    pub const ALL: [Self; 13] = [
        Self::Cooling,
        Self::Growth,
        Self::Assign,
        Self::Configure,
        Self::Attach,
        Self::Create,
        Self::Inventory,
        Self::Unreachable,
        Self::EniLimit,
        Self::SubnetExhausted,
        Self::Throttled,
        Self::Denied,
        Self::PodLimit,
    ];

    /// Its name for metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cooling => "cooling",
            Self::Growth => "growth",
            Self::Assign => "assign",
            Self::Configure => "configure",
            Self::Attach => "attach",
            Self::Create => "create",
            Self::Inventory => "inventory",
            Self::Unreachable => "unreachable",
            Self::EniLimit => "eni_limit",
            Self::SubnetExhausted => "subnet_exhausted",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::PodLimit => "pod_limit",
        }
    }
}

/// When each obstacle stood before somebody last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Obstacles([Option<Mono>; Obstacle::ALL.len()]);

impl Obstacles {
    pub(crate) fn note(&mut self, obstacle: Obstacle, now: Mono) {
        self.0[obstacle as usize] = Some(now);
    }

    /// The most telling one that was met by whoever has waited since then; `None` for who is served at once.
    pub(crate) fn met(&self, since: Mono, now: Mono) -> Option<Obstacle> {
        let met = |at: Option<Mono>| at.is_some_and(|at| at >= since);
        let all = Obstacle::ALL.into_iter().zip(self.0).rev();
        all.filter(|_| since < now)
            .find(|(_, at)| met(*at))
            .map(|(obstacle, _)| obstacle)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(s: u64) -> Mono {
        Mono::from_epoch(Duration::from_secs(s))
    }

    #[test]
    fn obstacles_are_counted_in_the_order_of_what_they_tell() {
        assert!(Obstacle::ALL.is_sorted());
        for (n, obstacle) in Obstacle::ALL.into_iter().enumerate() {
            assert_eq!(obstacle as usize, n);
        }
    }

    #[test]
    fn a_pod_has_met_what_stood_there_while_it_waited() {
        let mut seen = Obstacles::default();
        seen.note(Obstacle::Throttled, at(1));
        seen.note(Obstacle::Create, at(3));
        seen.note(Obstacle::Configure, at(5));
        assert_eq!(seen.met(at(1), at(6)), Some(Obstacle::Throttled));
        assert_eq!(seen.met(at(2), at(6)), Some(Obstacle::Create));
        assert_eq!(seen.met(at(4), at(6)), Some(Obstacle::Configure));
        assert_eq!(seen.met(at(6), at(6)), None);
    }
}
