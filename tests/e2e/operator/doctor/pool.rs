//! Findings that the daemon itself reports.

use std::time::Duration;

use lab::{node::count, wait::eventually};
use vpc_sim::{Action, Fault, SimConfig, world::ManagedInterface};

use super::doctor_node::DoctorNode;
use crate::suite::{Outcome, trials};

trials!(
    a_full_node_is_found,
    addresses_that_ec2_does_not_confirm_are_found,
    foreign_interfaces_that_take_slots_are_found,
    pods_that_wait_for_long_are_found,
    the_last_refusal_of_each_action_is_found_until_the_action_succeeds
);

const LIMIT: Duration = Duration::from_secs(30);

fn a_full_node_is_found() -> Outcome {
    let examined = DoctorNode::start("t3.nano", SimConfig::default())?;
    for n in 0..2 {
        examined.node.add_pod(&format!("pod{n}"))?;
    }
    examined.finds("pool", "the node is full")
}

fn addresses_that_ec2_does_not_confirm_are_found() -> Outcome {
    let mut examined = DoctorNode::start("t3.small", SimConfig::default())?;
    let pod = examined.node.add_pod("robbed")?;
    examined.lab.take_away(pod.ipv4())?;
    // A start always reads EC2's list.
    examined.node.kill_daemon()?;
    examined
        .node
        .start_daemon(&examined.lab.sim.ec2_endpoint())?;
    let found = || {
        examined
            .finds("pool", "EC2 does not confirm addresses")
            .is_ok()
    };
    assert!(
        eventually(Duration::from_secs(60), found),
        "{:#?}\n{}",
        examined.told()?.findings(),
        examined.node.log()
    );
    Ok(())
}

/// Has two free addresses, which are there before a test lets EC2 refuse.
fn warm_node() -> Result<DoctorNode, libtest_mimic::Failed> {
    let examined = DoctorNode::start("t3.small", SimConfig::default())?;
    let warm = || count(&examined.node, "free").is_ok_and(|free| free >= 2);
    assert!(eventually(LIMIT, warm), "{}", examined.node.log());
    Ok(examined)
}

fn pods_that_wait_for_long_are_found() -> Outcome {
    let examined = warm_node()?;
    for action in [
        Action::AssignPrivateIpAddresses,
        Action::CreateNetworkInterface,
    ] {
        let always = Fault::error(action, u32::MAX, "UnauthorizedOperation");
        examined.lab.sim.faults().push(always);
    }
    for n in 0..2 {
        examined.node.add_pod(&format!("pod{n}"))?;
    }
    let (_netns, path) = examined.node.sandbox("late")?;
    let add = examined.node.invocation("ADD", "late", Some(&path));
    std::thread::scope(|scope| -> Outcome {
        let adding = scope.spawn(|| add.run(examined.node.netns()));
        // An obstacle at once; the wait becomes a finding after twenty seconds, and lasts sixty.
        let late = || examined.finds("pool", "have waited for an address").is_ok();
        let found = eventually(Duration::from_secs(50), late);
        let told = examined.told()?;
        examined.lab.sim.faults().clear();
        drop(adding.join());
        assert!(found, "{:#?}", told.findings());
        told.finds("pool", "IAM denies ec2:")
    })
}

fn the_last_refusal_of_each_action_is_found_until_the_action_succeeds() -> Outcome {
    let examined = warm_node()?;
    for (action, code) in [
        (Action::AssignPrivateIpAddresses, "OptInRequired"),
        (
            Action::CreateNetworkInterface,
            "NetworkInterfaceLimitExceeded",
        ),
    ] {
        let always = Fault::error(action, u32::MAX, code);
        examined.lab.sim.faults().push(always);
    }
    for n in 0..2 {
        examined.node.add_pod(&format!("pod{n}"))?;
    }
    let refused = || {
        [
            "EC2 refuses AssignPrivateIpAddresses",
            "EC2 refuses CreateNetworkInterface",
        ]
        .iter()
        .all(|what| examined.finds("pool", what).is_ok())
    };
    assert!(
        eventually(LIMIT, refused),
        "{:#?}",
        examined.told()?.findings()
    );
    let shown = examined
        .node
        .ask(&examined.lab.sim.ec2_endpoint(), &["inspect"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for words in ["refused   EC2 refuses", "OptInRequired", "Service Quotas"] {
        assert!(shown.contains(words), "{shown}");
    }
    examined.lab.sim.faults().clear();
    for n in 2..6 {
        examined.node.add_pod(&format!("pod{n}"))?;
    }
    let over = || {
        examined
            .finds("pool", "EC2 refuses CreateNetworkInterface")
            .is_err()
    };
    assert!(
        eventually(LIMIT, over),
        "{:#?}",
        examined.told()?.findings()
    );
    Ok(())
}

fn foreign_interfaces_that_take_slots_are_found() -> Outcome {
    let examined = DoctorNode::start("t3.nano", SimConfig::default())?;
    let managed = ManagedInterface {
        instance: examined.node.instance.id.clone(),
        card: 0,
        device: 1,
    };
    let now = examined.lab.sim.now();
    examined.lab.sim.world().attach_managed(&managed, now)?;
    // A daemon learns of it from the list at its start.
    let mut examined = examined;
    examined.node.stop_daemon()?;
    examined
        .node
        .start_daemon(&examined.lab.sim.ec2_endpoint())?;
    let found = || examined.finds("pool", "use ENI slots").is_ok();
    assert!(
        eventually(Duration::from_secs(20), found),
        "{:#?}",
        examined.told()?.findings()
    );
    Ok(())
}
