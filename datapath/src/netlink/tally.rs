//! Counts changes by kind of object. A repair makes the same steps as the first configuration, and this shows what it
//! had to do: correct objects are not touched and not counted.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;

/// A kind of kernel object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Link,
    Setting,
    Qdisc,
    Address,
    Neighbour,
    Route,
    Rule,
    Nftables,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Link,
        Self::Setting,
        Self::Qdisc,
        Self::Address,
        Self::Neighbour,
        Self::Route,
        Self::Rule,
        Self::Nftables,
    ];

    /// The label of a metric.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Setting => "setting",
            Self::Qdisc => "qdisc",
            Self::Address => "address",
            Self::Neighbour => "neighbour",
            Self::Route => "route",
            Self::Rule => "rule",
            Self::Nftables => "nftables",
        }
    }

    /// What `message` changes; `None` if it only reads.
    fn of(message: &RouteNetlinkMessage) -> Option<Self> {
        use RouteNetlinkMessage as M;
        match message {
            M::SetLink(link) => {
                let settings = |a: &LinkAttribute| matches!(a, LinkAttribute::AfSpecUnspec(_));
                Some(if link.attributes.iter().any(settings) {
                    Self::Setting
                } else {
                    Self::Link
                })
            }
            M::NewLink(_) | M::DelLink(_) => Some(Self::Link),
            M::NewQueueDiscipline(_) | M::DelQueueDiscipline(_) => Some(Self::Qdisc),
            M::NewAddress(_) | M::DelAddress(_) => Some(Self::Address),
            M::NewNeighbour(_) | M::DelNeighbour(_) => Some(Self::Neighbour),
            M::NewRoute(_) | M::DelRoute(_) => Some(Self::Route),
            M::NewRule(_) | M::DelRule(_) => Some(Self::Rule),
            _ => None,
        }
    }
}

/// The number of changes of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally([u64; Kind::ALL.len()]);

impl Tally {
    pub(super) fn note(&mut self, message: &RouteNetlinkMessage) {
        if let Some(kind) = Kind::of(message) {
            self.add(kind);
        }
    }

    pub(super) fn add(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    /// The changes that are in `self` and not in `earlier`.
    #[must_use]
    pub fn since(mut self, earlier: Self) -> Self {
        for (now, then) in self.0.iter_mut().zip(earlier.0) {
            *now = now.saturating_sub(then);
        }
        self
    }

    /// The changed kinds with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64)> + '_ {
        let all = Kind::ALL.iter().map(|kind| (*kind, self.0[*kind as usize]));
        all.filter(|(_, changes)| *changes > 0)
    }

    /// Whether nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}
