//! Counts what happens. Owns which counter an event belongs to.

use crate::{Class, Refusal, gate::Action, snapshot::Counters};

impl Counters {
    pub(crate) const fn count(&mut self, action: Action) {
        match action {
            Action::Create => self.creates += 1,
            Action::Attach => self.attaches += 1,
            Action::Modify | Action::Regroup => self.modifies += 1,
            Action::Assign => self.assigns += 1,
            Action::Unassign => self.unassigns += 1,
            Action::Detach => self.detaches += 1,
            Action::Delete => self.deletes += 1,
            Action::Describe => self.describes += 1,
            Action::Subnets => self.subnet_lists += 1,
            Action::Configure | Action::Deconfigure => {}
        }
    }

    pub(crate) const fn refused(&mut self, refusal: &Refusal) {
        *match refusal {
            Refusal::PodLimit { .. } => &mut self.refused_pod_limit,
            Refusal::Empty { .. } | Refusal::Fixed | Refusal::Wiring { .. } => {
                &mut self.refused_empty
            }
            Refusal::Exhausted { .. } => &mut self.refused_exhausted,
            Refusal::NoSubnet(_) => &mut self.refused_no_subnet,
            Refusal::Throttled { .. } => &mut self.refused_throttled,
            Refusal::Denied { .. } => &mut self.refused_denied,
            Refusal::Refused { .. } => &mut self.refused_by_ec2,
            Refusal::Unreachable { .. } => &mut self.refused_unreachable,
            Refusal::EniLimit { .. } => &mut self.refused_eni_limit,
            Refusal::Stopping => &mut self.refused_stopping,
        } += 1;
    }

    pub(crate) const fn failure(&mut self, class: &Class) {
        *match class {
            Class::Throttled { .. } => &mut self.failures_throttled,
            Class::Exhausted | Class::Fragmented => &mut self.failures_exhausted,
            Class::Denied { .. } => &mut self.failures_denied,
            Class::Refused(_) => &mut self.failures_refused,
            Class::Ambiguous => &mut self.failures_ambiguous,
            Class::Limit | Class::NotFound | Class::InUse | Class::Transient | Class::Host => {
                &mut self.failures_other
            }
        } += 1;
    }
}
