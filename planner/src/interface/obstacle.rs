//! What a pod had to wait for.

/// Why a pod has no address yet. If a pod met several, the one that comes later in this order says more: an ENI that had
/// to be created also had to be attached and brought up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// Addresses are cooling, and the pool is not growing.
    Cooling,
    /// The pool has not started to grow yet.
    Growth,
    /// Addresses are requested for an existing ENI.
    Assign,
    /// The host is bringing an ENI up.
    Configure,
    /// An ENI is being attached.
    Attach,
    /// An ENI is being created.
    Create,
    /// EC2's first list of what is attached has not come yet.
    Inventory,
    /// EC2 does not answer, or the host cannot configure an ENI.
    Unreachable,
    EniLimit,
    /// There is no subnet in which an ENI may be created.
    NoSubnet,
    SubnetExhausted,
    Throttled,
    /// EC2 answers that it does not do what growth needs.
    Refused,
    Denied,
    PodLimit,
}

impl Obstacle {
    pub const ALL: [Self; 15] = [
        Self::Cooling,
        Self::Growth,
        Self::Assign,
        Self::Configure,
        Self::Attach,
        Self::Create,
        Self::Inventory,
        Self::Unreachable,
        Self::EniLimit,
        Self::NoSubnet,
        Self::SubnetExhausted,
        Self::Throttled,
        Self::Refused,
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
            Self::NoSubnet => "no_subnet",
            Self::SubnetExhausted => "subnet_exhausted",
            Self::Throttled => "throttled",
            Self::Refused => "refused",
            Self::Denied => "denied",
            Self::PodLimit => "pod_limit",
        }
    }
}
