//! EC2's request throttling: one token bucket per API for the whole account ("Request throttling for the Amazon EC2 API").

use std::{collections::BTreeMap, time::Duration};

use crate::action::Action;

/// The burst, and the refill per second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Capacity {
    burst: f64,
    refill: f64,
}

/// `narrow`: the read is filtered or paged, for which EC2 has higher limits.
fn capacity(action: Action, narrow: bool) -> Capacity {
    let (burst, refill) = match action {
        Action::DescribeInstances
        | Action::DescribeNetworkInterfaces
        | Action::DescribeSecurityGroups
            if !narrow =>
        {
            (50.0, 10.0)
        }
        Action::DescribeInstanceTypes
        | Action::DescribeInstances
        | Action::DescribeNetworkInterfaces
        | Action::DescribeRouteTables
        | Action::DescribeSecurityGroups
        | Action::DescribeSubnets
        | Action::DescribeTags
        | Action::DescribeVpcs => (100.0, 20.0),
        Action::CreateNetworkInterface
        | Action::DeleteNetworkInterface
        | Action::ModifyNetworkInterfaceAttribute
        | Action::AssignPrivateIpAddresses
        | Action::UnassignPrivateIpAddresses
        | Action::AssignIpv6Addresses => (100.0, 5.0),
        Action::AttachNetworkInterface
        | Action::DetachNetworkInterface
        | Action::UnassignIpv6Addresses => (50.0, 5.0),
        Action::CreateTags | Action::DeleteTags => (100.0, 10.0),
    };
    Capacity { burst, refill }
}

/// An account's buckets in one region. They start full.
#[derive(Clone, Debug, Default)]
pub struct Buckets(BTreeMap<(Action, bool), (f64, Duration)>);

impl Buckets {
    /// Takes a token; false if the call must be refused.
    pub fn admit(&mut self, action: Action, narrow: bool, now: Duration) -> bool {
        let Capacity { burst, refill } = capacity(action, narrow);
        let (level, at) = self.0.entry((action, narrow)).or_insert((burst, now));
        *level = (now
            .saturating_sub(*at)
            .as_secs_f64()
            .mul_add(refill, *level))
        .min(burst);
        *at = now;
        let admitted = *level >= 1.0;
        if admitted {
            *level -= 1.0;
        }
        admitted
    }
}
