//! How long EC2 takes. Only values: the caller waits.

use std::time::Duration;

use crate::{action::Action, random::Rng};

/// A range from which a delay is drawn uniformly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub min: Duration,
    pub max: Duration,
}

impl Span {
    #[must_use]
    pub const fn millis(min: u64, max: u64) -> Self {
        Self {
            min: Duration::from_millis(min),
            max: Duration::from_millis(max),
        }
    }

    fn draw(self, rng: &mut Rng, scale: f64) -> Duration {
        (self.min + self.max.saturating_sub(self.min).mul_f64(rng.unit())).mul_f64(scale)
    }
}

/// Delays per kind of call, and of what happens after the answer to the call. The defaults are inferred from incident
/// traces of the AWS VPC CNI; AWS publishes no numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    /// Every delay is multiplied by this; with 0, everything happens immediately.
    pub scale: f64,
    pub describe: Span,
    pub create: Span,
    pub attach: Span,
    pub assign: Span,
    /// Detach, delete, unassign, modify and tags: only the call.
    pub other: Span,
    /// From the answer to Attach until `attached`.
    pub attaches: Span,
    /// From the answer to Detach until the interface is `available`.
    pub detaches: Span,
    /// From the answer to Assign until the fabric delivers the address.
    pub usable: Span,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            scale: 1.0,
            describe: Span::millis(60, 250),
            create: Span::millis(400, 1500),
            attach: Span::millis(300, 1200),
            assign: Span::millis(200, 800),
            other: Span::millis(300, 300),
            attaches: Span::millis(1000, 6000),
            detaches: Span::millis(2000, 20_000),
            usable: Span::millis(0, 3000),
        }
    }
}

impl Latency {
    /// Everything happens immediately.
    #[must_use]
    pub fn none() -> Self {
        Self {
            scale: 0.0,
            ..Self::default()
        }
    }

    /// The duration of the call itself.
    pub(crate) fn call(&self, action: Action, rng: &mut Rng) -> Duration {
        let span = match action {
            Action::DescribeInstanceTypes
            | Action::DescribeInstances
            | Action::DescribeNetworkInterfaces
            | Action::DescribeRouteTables
            | Action::DescribeSecurityGroups
            | Action::DescribeSubnets
            | Action::DescribeTags
            | Action::DescribeVpcs => self.describe,
            Action::CreateNetworkInterface => self.create,
            Action::AttachNetworkInterface => self.attach,
            Action::AssignPrivateIpAddresses | Action::AssignIpv6Addresses => self.assign,
            Action::CreateTags
            | Action::DeleteNetworkInterface
            | Action::DeleteTags
            | Action::DetachNetworkInterface
            | Action::ModifyNetworkInterfaceAttribute
            | Action::UnassignIpv6Addresses
            | Action::UnassignPrivateIpAddresses => self.other,
        };
        span.draw(rng, self.scale)
    }

    pub(crate) fn settle(&self, span: Span, rng: &mut Rng) -> Duration {
        span.draw(rng, self.scale)
    }
}
