//! How many addresses the pool needs, and how many it can give back: upstream's formulas as pure functions.
//!
//! Source: `WARM_ENI_TARGET`, `WARM_IP_TARGET`, `MINIMUM_IP_TARGET`, `WARM_PREFIX_TARGET` of the AWS VPC CNI, reference
//! pages §4.3 to §4.5. There are two intended differences. An address in cooldown is not available: upstream counts it as
//! available and then fails the ADD (#1700, #2896). And waiting pods are part of the demand.

use crate::{
    Config, InstanceType, demand::Target, limits, limits::PREFIX_SIZE, pool::block::Counts,
    unit::Unit,
};

/// The targets in force. They follow from the configuration and the instance type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub warm_enis: u32,
    /// 0 means undefined, as upstream.
    pub warm_addresses: u32,
    /// 0 means undefined.
    pub minimum: u32,
    pub warm_prefixes: u32,
    /// Slots per ENI for pods.
    pub slots: u32,
    pub unit: Unit,
    /// The target that follows from the demand, updated at every event. `None` if the operator set a target.
    pub own: Option<Target>,
    /// Upstream's `maxPods`: the pool never holds more addresses.
    pub pod_limit: u32,
}

/// What the pool has. The unit is addresses unless stated otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stock {
    /// Grantable now. Addresses in cooldown are not.
    pub free: u32,
    /// Reserved or assigned.
    pub used: u32,
    pub cooling: u32,
    /// Usable prefixes.
    pub prefixes: u32,
    /// Blocks with neither pod nor cooldown on them.
    pub free_prefixes: u32,
}

impl Stock {
    #[must_use]
    pub(crate) const fn total(&self) -> u32 {
        self.free + self.used + self.cooling
    }

    #[must_use]
    const fn minus(&self, other: &Self) -> Self {
        Self {
            free: self.free.saturating_sub(other.free),
            used: self.used.saturating_sub(other.used),
            cooling: self.cooling.saturating_sub(other.cooling),
            prefixes: self.prefixes.saturating_sub(other.prefixes),
            free_prefixes: self.free_prefixes.saturating_sub(other.free_prefixes),
        }
    }
}

impl From<&Counts> for Stock {
    fn from(counts: &Counts) -> Self {
        Self {
            free: counts.free,
            used: counts.reserved + counts.assigned,
            cooling: counts.cooling,
            prefixes: counts.prefixes,
            free_prefixes: counts.free_prefixes,
        }
    }
}

/// Addresses that are coming, and pods that wait for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    pub incoming: u32,
    pub waiting: u32,
    /// Whether warm targets count. False on a cordoned node, where only waiting pods count.
    pub warm: bool,
}

/// Addresses to request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    pub addresses: u32,
    /// The unit of growth is a whole ENI: fill each ENI that is used (`WARM_ENI_TARGET`).
    pub fill: bool,
    /// This many of them justify an Assign, but no new ENI.
    pub slack: u32,
}

impl Policy {
    #[must_use]
    pub(crate) fn new(config: &Config, instance: &InstanceType, primary_serves: bool) -> Self {
        let unit = Unit::new(config, instance);
        Self {
            warm_enis: config.warm_eni_target.unwrap_or(1),
            warm_addresses: config.warm_ip_target.unwrap_or(0),
            minimum: config.minimum_ip_target.unwrap_or(0),
            warm_prefixes: config.warm_prefix_target.unwrap_or(1),
            own: (unit != Unit::Ipv6Prefix && config.sizes_itself()).then(Target::default),
            slots: u32::from(instance.slots_per_eni()),
            unit,
            pod_limit: limits::pod_limit(instance, config, primary_serves).addresses,
        }
    }

    /// Pod addresses of one ENI.
    #[must_use]
    pub(crate) const fn eni(&self) -> u32 {
        match self.unit {
            Unit::Ipv6Prefix => self.pod_limit,
            unit => self.slots * unit.size(),
        }
    }

    /// Whether the pool grows by IPv4 prefixes.
    pub(crate) const fn prefixes(&self) -> bool {
        matches!(self.unit, Unit::Prefix)
    }

    /// An IP target is set: `WARM_ENI_TARGET` and `WARM_PREFIX_TARGET` are ignored.
    #[must_use]
    pub(crate) const fn by_addresses(&self) -> bool {
        self.warm_addresses != 0 || self.minimum != 0
    }

    /// Addresses to request now. In prefix mode, a multiple of sixteen.
    #[must_use]
    pub(crate) fn short(&self, stock: &Stock, flow: &Flow) -> Need {
        if self.unit == Unit::Ipv6Prefix {
            return self.short_of_ipv6(stock, flow);
        }
        let total = stock.total() + flow.incoming;
        let left = self.pod_limit.saturating_sub(total);
        let avail = i64::from(stock.free) + i64::from(flow.incoming) - i64::from(flow.waiting);
        let fill = flow.warm && !self.by_addresses() && !self.prefixes() && self.own.is_none();
        let wish = if flow.warm {
            self.wish(stock, flow, avail, total)
        } else {
            -avail
        };
        let short = u32::try_from(wish.max(0)).unwrap_or(u32::MAX).min(left);
        let unit = self.unit.size();
        let addresses = short.div_ceil(unit) * unit;
        let slack = self.own.map_or(0, |own| own.fill.saturating_sub(own.low));
        let rising = flow.warm && self.own.is_some_and(|own| own.rising);
        Need {
            addresses,
            fill: fill || rising,
            slack: if flow.warm { slack } else { 0 },
        }
    }

    /// One prefix is enough for all pods of a node.
    const fn short_of_ipv6(&self, stock: &Stock, flow: &Flow) -> Need {
        let there = stock.prefixes > 0 || flow.incoming > 0;
        let wanted = flow.warm || flow.waiting > 0;
        Need {
            addresses: if wanted && !there {
                self.unit.size()
            } else {
                0
            },
            fill: false,
            slack: 0,
        }
    }

    fn wish(&self, stock: &Stock, flow: &Flow, avail: i64, total: u32) -> i64 {
        let prefix = i64::from(PREFIX_SIZE);
        if let Some(own) = self.own {
            return if avail < own.low.into() {
                i64::from(own.fill) - avail
            } else {
                0
            };
        }
        if self.by_addresses() {
            let floor = i64::from(self.minimum) - i64::from(total);
            return (i64::from(self.warm_addresses) - avail).max(floor);
        }
        let (target, unit) = if self.prefixes() {
            (self.warm_prefixes, prefix)
        } else {
            (self.warm_enis, self.slots.into())
        };
        let low = i64::from(target) * unit - avail;
        if target == 0 {
            // 0 means "grow only when no address is free" (upstream #587), and then by one unit.
            return if avail <= 0 { 1 - avail } else { 0 };
        }
        if self.prefixes() && low > 0 {
            let coming = i64::from(stock.free_prefixes) + i64::from(flow.incoming / PREFIX_SIZE);
            return low.max((i64::from(target) - coming) * prefix);
        }
        low
    }

    /// Blocks that can be given back one by one: addresses, or wholly free prefixes in prefix mode. Never so many that the
    /// pool would be short afterwards.
    #[must_use]
    pub(crate) fn over(&self, stock: &Stock) -> u32 {
        if self.unit == Unit::Ipv6Prefix {
            return stock.free_prefixes.min(stock.prefixes.saturating_sub(1));
        }
        if let Some(own) = self.own {
            let unit = self.unit.size();
            let over = if stock.free > own.high {
                (stock.free - own.keep) / unit
            } else {
                0
            };
            return if self.prefixes() {
                over.min(stock.free_prefixes)
            } else {
                over
            };
        }
        let busy = stock.used + stock.cooling;
        if self.prefixes() {
            let keep = if self.by_addresses() {
                (busy + self.warm_addresses)
                    .div_ceil(PREFIX_SIZE)
                    .max(self.minimum.div_ceil(PREFIX_SIZE))
            } else {
                stock.prefixes - stock.free_prefixes.min(stock.prefixes) + self.warm_prefixes
            };
            let spare = stock.free_prefixes.min(stock.prefixes.saturating_sub(keep));
            // With a target of 0 the last free address stays. If it were given back, it would be requested again at once.
            let last = if self.by_addresses() {
                u32::MAX
            } else {
                stock.free.saturating_sub(1) / PREFIX_SIZE
            };
            return self.until_short(stock, spare.min(last));
        }
        if !self.by_addresses() {
            return 0;
        }
        stock
            .free
            .saturating_sub(self.warm_addresses)
            .min(stock.total().saturating_sub(self.minimum))
    }

    /// The most prefixes, up to `most`, without which the pool is not short. The ones that stay may have fewer addresses for
    /// pods than their size, because the host keeps some of them.
    fn until_short(&self, stock: &Stock, most: u32) -> u32 {
        let quiet = Flow {
            warm: true,
            ..Flow::default()
        };
        let enough = |prefixes: &u32| {
            let given = Stock {
                free: prefixes * PREFIX_SIZE,
                prefixes: *prefixes,
                free_prefixes: *prefixes,
                ..Stock::default()
            };
            self.short(&stock.minus(&given), &quiet).addresses == 0
        };
        (1..=most).rev().find(enough).unwrap_or(0)
    }

    /// Whether the pool does not need an idle ENI: the others must be enough for every target.
    #[must_use]
    pub(crate) fn spares(&self, stock: &Stock, eni: &Stock) -> bool {
        let rest = stock.minus(eni);
        let quiet = Flow {
            warm: true,
            ..Flow::default()
        };
        if let Some(own) = self.own {
            return rest.free >= own.keep;
        }
        let by_prefix = self.prefixes() && !self.by_addresses();
        self.short(&rest, &quiet).addresses == 0
            && (!by_prefix || rest.free_prefixes >= self.warm_prefixes)
    }
}

#[cfg(test)]
mod tests;
