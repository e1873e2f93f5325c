//! Continuous packets between live pods: whatever happens to daemons and to EC2, they must arrive (I10).

use std::{io, time::Duration};

use super::shared_state::{LivePod, Purpose, SharedState};
use crate::traffic::ping::{ping, ping_once};

/// A packet that is not answered within this time is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// A pod that has answered no packet for this time is cut off.
const CUT_OFF: Duration = Duration::from_secs(10);

pub(super) fn probe(shared: &SharedState, seed: u64) {
    let mut rng = Purpose::Packets.stream(seed);
    while !shared.over.wait(Duration::from_millis(20)) {
        let live = shared.live();
        if live.is_empty() {
            continue;
        }
        let (source, target) = (rng.pick(&live), rng.pick(&live));
        if source.address == target.address {
            continue;
        }
        if let Err(error) = exchange(shared, source, target) {
            shared.violation(format!("the lab failed: {error}"));
        }
    }
}

fn exchange(shared: &SharedState, source: &LivePod, target: &LivePod) -> io::Result<()> {
    let stay = || !source.is_leaving() && !target.is_leaving();
    let answered = ping_once(&source.netns, target.address, PATIENCE)?.is_some();
    if !stay() {
        return Ok(());
    }
    shared.count(|tally| tally.packets += 1);
    if answered {
        return Ok(());
    }
    let back = ping(&source.netns, None, target.address, CUT_OFF)?;
    if !stay() {
        return Ok(());
    }
    shared.count(|tally| tally.lost += 1);
    if back.is_none() {
        shared.violation(format!(
            "{} ({}) does not reach {} ({})",
            source.id, source.address, target.id, target.address
        ));
    }
    Ok(())
}
