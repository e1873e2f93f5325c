//! Explains in words what the planner would do now, and why. For people only.

use std::time::Duration;

use crate::machine::Planner;
use crate::{
    Mono, Refusal,
    limits::PREFIX_SIZE,
    policy::{Flow, Stock},
    snapshot::{CallView, Decision, Verdict},
    unit::Unit,
};

impl Planner {
    /// The decision that follows from the current state.
    pub(crate) fn decision(&self, now: Mono) -> Decision {
        let (verdict, why) = self.verdict(now);
        Decision {
            verdict,
            why,
            policy: self.policy_text(),
        }
    }

    fn verdict(&self, now: Mono) -> (Verdict, String) {
        let (stock, flow) = (self.stock(), self.flow());
        let short = self.policy.short(&stock, &flow).addresses;
        let over = self.policy.over(&stock);
        if self.stopping {
            let why = "the daemon is shutting down: nothing is requested or returned";
            return (Verdict::Wait, why.to_owned());
        }
        if !self.config.provisioning {
            let why = "DISABLE_NETWORK_RESOURCE_PROVISIONING is set: the pool stays as it is";
            return (Verdict::Rest, why.to_owned());
        }
        if !self.inventoried {
            let why = "EC2 has not listed the attached ENIs yet: until then nothing is requested or returned";
            return (Verdict::Wait, why.to_owned());
        }
        let state = self.state_text(&stock, &flow);
        if short > 0 {
            return match self.shortage(Duration::ZERO, now) {
                Refusal::Empty { .. } => (
                    Verdict::Grow,
                    format!("{short} addresses are missing: {state}"),
                ),
                refusal => (
                    Verdict::Wait,
                    format!("{short} addresses are missing ({state}), but {refusal}"),
                ),
            };
        }
        if flow.waiting > 0 || flow.incoming > 0 {
            return (Verdict::Wait, state);
        }
        if over > 0 && flow.warm {
            let unit = match self.policy.unit {
                Unit::Address => "addresses",
                Unit::Prefix | Unit::Ipv6Prefix => "prefixes",
            };
            let why = format!(
                "{over} {unit} are surplus and will be returned if the surplus lasts: {state}"
            );
            return (Verdict::GiveBack, why);
        }
        if stock.total() >= self.policy.pod_limit {
            return (
                Verdict::Rest,
                format!("the instance can hold no more: {}", self.limit.derivation),
            );
        }
        (Verdict::Rest, state)
    }

    fn state_text(&self, stock: &Stock, flow: &Flow) -> String {
        let mut text = format!("{} free", stock.free);
        let parts = [
            (flow.incoming, "under way"),
            (flow.waiting, "pods waiting"),
            (stock.cooling, "cooling"),
        ];
        for (n, what) in parts {
            if n > 0 {
                text.push_str(&format!(", {n} {what}"));
            }
        }
        if flow.warm {
            text.push_str(&format!("; {}", self.wanted_text(stock)));
        } else {
            text.push_str("; the node is cordoned, so none are kept warm");
        }
        text
    }

    /// What the targets amount to at present.
    fn wanted_text(&self, stock: &Stock) -> String {
        let policy = &self.policy;
        if let Some(own) = policy.own {
            return format!("at least {} wanted free by the demand so far", own.low);
        }
        if policy.unit == Unit::Ipv6Prefix {
            return "one prefix wanted".to_owned();
        }
        if policy.by_addresses() {
            let floor = policy.minimum.saturating_sub(stock.used);
            return format!("{} wanted free", policy.warm_addresses.max(floor));
        }
        let (target, unit, what) = if policy.prefixes() {
            (policy.warm_prefixes, PREFIX_SIZE, "prefixes")
        } else {
            (policy.warm_enis, policy.slots, "ENIs")
        };
        format!("{target} {what} of {unit} addresses wanted free")
    }

    fn policy_text(&self) -> String {
        let policy = &self.policy;
        if policy.unit == Unit::Ipv6Prefix {
            return "one IPv6 prefix serves the node".to_owned();
        }
        if policy.own.is_some() {
            return "no target is set, the pool sizes itself".to_owned();
        }
        if policy.by_addresses() {
            return format!(
                "WARM_IP_TARGET={}, MINIMUM_IP_TARGET={}",
                policy.warm_addresses, policy.minimum
            );
        }
        if policy.prefixes() {
            return format!("WARM_PREFIX_TARGET={}", policy.warm_prefixes);
        }
        format!("WARM_ENI_TARGET={}", policy.warm_enis)
    }

    /// The calls to EC2 and the host that have no answer yet.
    pub(crate) fn calls(&self) -> Vec<CallView> {
        let views = self.ops.values().map(|pending| CallView {
            action: pending.action.api(),
            eni: pending.key.and_then(|key| self.pool.get(key)?.id.clone()),
            since: pending.sent,
        });
        views.collect()
    }
}
