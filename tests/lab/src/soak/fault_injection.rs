//! Injected faults: of EC2 in many ways, and of the daemons.

use std::time::Duration;

use vpc_sim::{Action, Fault, FaultKind, Sim, random::Rng};

use super::shared_state::{Purpose, SharedState, Site, now};

/// The calls that the daemon makes.
const CALLS: [Action; 8] = [
    Action::AssignPrivateIpAddresses,
    Action::AttachNetworkInterface,
    Action::CreateNetworkInterface,
    Action::DeleteNetworkInterface,
    Action::DescribeNetworkInterfaces,
    Action::DetachNetworkInterface,
    Action::ModifyNetworkInterfaceAttribute,
    Action::UnassignPrivateIpAddresses,
];

/// Injects faults until the soak is over.
pub(super) fn ec2_faults(sim: &Sim, shared: &SharedState, seed: u64) {
    let mut rng = Purpose::Ec2Faults.stream(seed);
    while !shared.over.wait(rng.seconds(1, 6)) {
        let name = begin(sim, &mut rng);
        shared.count(|tally| *tally.faults.entry(name).or_default() += 1);
        let _over = shared.over.wait(rng.seconds(4, 15));
        sim.faults().clear();
        sim.freeze_lists(false);
    }
}

fn begin(sim: &Sim, rng: &mut Rng) -> &'static str {
    let call = *rng.pick(&CALLS);
    let error = |code: &str| FaultKind::Error {
        code: code.to_owned(),
    };
    let push = |action, times, kind| {
        sim.faults().push(Fault {
            action,
            times,
            kind,
        })
    };
    match rng.below(8) {
        0 => {
            for action in CALLS {
                push(action, 50, error("RequestLimitExceeded"));
            }
            "everything throttled"
        }
        1 => {
            push(call, 3, error("InternalError"));
            "internal errors"
        }
        2 => {
            push(call, 5, error("Unavailable"));
            "service unavailable"
        }
        3 => {
            push(call, 2, FaultKind::LoseReply);
            "replies lost"
        }
        4 => {
            push(call, 3, FaultKind::Delay(rng.seconds(1, 6)));
            "slow calls"
        }
        5 => {
            push(call, 1, FaultKind::Hang);
            "a call that hangs"
        }
        6 => {
            let full = error("InsufficientFreeAddressesInSubnet");
            push(Action::AssignPrivateIpAddresses, 3, full.clone());
            push(Action::CreateNetworkInterface, 3, full);
            "subnet exhausted"
        }
        _ => {
            sim.freeze_lists(true);
            "stale lists"
        }
    }
}

/// Ends and starts the daemons of `sites`, one at a time, for this long.
pub(super) fn restart(sim: &Sim, sites: &[Site], shared: &SharedState, seed: u64, most: Duration) {
    let mut rng = Purpose::Restarts.stream(seed);
    let begun = now();
    while !shared.over.wait(rng.seconds(10, 50)) && begun.elapsed() < most {
        let site = rng.pick(sites);
        let mut node = site.node();
        let kill = rng.percent(60);
        let ended = if kill {
            shared.count(|tally| tally.kills += 1);
            node.kill_daemon().map(|()| true)
        } else {
            shared.count(|tally| tally.stops += 1);
            node.stop_daemon()
        };
        if !matches!(ended, Ok(true)) {
            shared.violation(format!(
                "the daemon of node {} failed at its end: {ended:?}",
                site.number
            ));
        }
        // Down for a while: plugins wait, or leave tombstones.
        let _over = shared.over.wait(rng.millis(0, 2500));
        if let Err(error) = node.start_daemon(&sim.ec2_endpoint()) {
            shared.violation(format!(
                "the daemon of node {} did not start: {error}",
                site.number
            ));
            return;
        }
    }
}
