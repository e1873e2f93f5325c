//! The bandwidth of a pod.

/// The limit of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// Bits per second, at least [`RateLimit::RATE_MIN`].
    pub rate: u64,
    /// The bits that may be sent at once after a pause, not 0. Runtimes pass 2³²−1 or a multiple of the rate if the pod does
    /// not say it.
    pub burst: u64,
}

impl RateLimit {
    /// The smallest rate in bits per second.
    pub const RATE_MIN: u64 = 1000;
}

/// The limits of a pod's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bandwidth {
    /// Towards the pod; `None` for no limit.
    pub ingress: Option<RateLimit>,
    /// From the pod; `None` for no limit.
    pub egress: Option<RateLimit>,
}

impl Bandwidth {
    /// Whether nothing is limited.
    #[must_use]
    pub const fn is_unlimited(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }
}
