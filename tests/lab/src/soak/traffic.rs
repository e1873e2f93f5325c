//! Continuous packets between live pods: whatever happens to daemons and to EC2, they must arrive (I10).

use std::{io, time::Duration};

use super::ground::{Ground, Live, Purpose};
use crate::traffic::ping::{ping, ping_once};

/// A packet that is not answered within this time is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// A pod that has answered no packet for this time is cut off.
const CUT_OFF: Duration = Duration::from_secs(10);

pub(super) fn probe(ground: &Ground, seed: u64) {
    let mut rng = Purpose::Packets.stream(seed);
    while !ground.over.wait(Duration::from_millis(20)) {
        let live = ground.live();
        if live.is_empty() {
            continue;
        }
        let (source, target) = (rng.pick(&live), rng.pick(&live));
        if source.address == target.address {
            continue;
        }
        if let Err(error) = exchange(ground, source, target) {
            ground.violation(format!("the lab failed: {error}"));
        }
    }
}

fn exchange(ground: &Ground, source: &Live, target: &Live) -> io::Result<()> {
    let stay = || !source.is_leaving() && !target.is_leaving();
    let answered = ping_once(&source.netns, target.address, PATIENCE)?.is_some();
    if !stay() {
        return Ok(());
    }
    ground.count(|tally| tally.packets += 1);
    if answered {
        return Ok(());
    }
    let back = ping(&source.netns, None, target.address, CUT_OFF)?;
    if !stay() {
        return Ok(());
    }
    ground.count(|tally| tally.lost += 1);
    if back.is_none() {
        ground.violation(format!(
            "{} ({}) does not reach {} ({})",
            source.id, source.address, target.id, target.address
        ));
    }
    Ok(())
}
