//! Follows the security groups of the primary ENI, which other ENIs inherit.
//!
//! The metadata service is asked regularly, EC2 only when its answer has changed: EC2's list shows the groups of all ENIs, and
//! the planner compares them.

use std::{sync::Arc, time::Duration};

use planner::{Mac, SecurityGroupId};
use proto::error_chain::chain;
use tokio::sync::Notify;

use crate::node::metadata::Metadata;

/// As often as the AWS VPC CNI does it.
const PERIOD: Duration = Duration::from_secs(30);

/// Notifies `ask` of every change, forever. EC2 is asked at every start anyway, so the first answer is no news.
pub async fn follow(imds: Metadata, mac: Mac, ask: Arc<Notify>) {
    let (mut known, mut failing) = (None, false);
    loop {
        let read = imds.security_groups(mac).await;
        if let (Err(error), false) = (&read, failing) {
            let error = chain(error);
            tracing::warn!(
                error,
                "could not read the security groups of the primary ENI"
            );
        }
        failing = read.is_err();
        if let Ok(groups) = read
            && changed(&mut known, groups)
        {
            tracing::info!("the security groups of the primary ENI have changed");
            ask.notify_one();
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Whether the groups differ from the last ones, in whatever order.
fn changed(known: &mut Option<Vec<SecurityGroupId>>, mut groups: Vec<SecurityGroupId>) -> bool {
    groups.sort();
    let before = known.replace(groups);
    before.is_some() && before != *known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_order_of_the_groups_is_no_change() {
        let groups = |ids: &[&str]| ids.iter().map(|id| (*id).into()).collect::<Vec<_>>();
        let mut known = None;
        assert!(
            !changed(&mut known, groups(&["sg-1", "sg-2"])),
            "the first answer"
        );
        assert!(!changed(&mut known, groups(&["sg-2", "sg-1"])));
        assert!(changed(&mut known, groups(&["sg-1"])));
        assert!(!changed(&mut known, groups(&["sg-1"])));
    }
}
