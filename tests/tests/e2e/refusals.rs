//! Each way in which EC2 can keep a pod waiting, provoked, and what the pod's event will say about it.

use std::{net::IpAddr, thread, time::Duration};

use datapath::{
    constants::PODS_TABLE,
    netlink::{
        self, Socket,
        route::{self, Route},
    },
};
use e2e::{
    lab::{Lab, count, eventually},
    node::Node,
    plugin,
};
use serde_json::json;
use vpc_sim::{Action, Fault, FaultKind, SimConfig};

use crate::{Outcome, trials};

trials!(
    an_exhausted_subnet_is_named,
    a_denied_action_is_named,
    throttling_is_named,
    an_unreachable_ec2_is_named,
    a_waiting_add_is_served_by_the_first_address,
    a_lost_create_reply_makes_no_second_eni,
    del_calls_off_an_add_that_waits,
    an_address_that_the_kernel_still_routes_is_not_granted_again_at_once,
);

/// A node on which every address is taken and the next ADD needs EC2.
fn full_node(lab: &Lab) -> std::io::Result<Node> {
    let node = lab.node("t3.small", &[("WARM_ENI_TARGET", "0")])?;
    for n in 0..3 {
        node.add_pod(&format!("pod{n}"))?;
    }
    Ok(node)
}

/// An ADD that gives up after three seconds.
fn impatient_add(node: &Node) -> std::io::Result<plugin::Outcome> {
    let (_netns, path) = node.sandbox("waits")?;
    node.invocation("ADD", "waits", Some(&path))
        .conf("deadlineSeconds", json!(3))
        .run(node.netns())
}

fn assert_refused(refused: &plugin::Outcome, words: &[&str]) {
    assert_eq!(refused.error_code(), Some(11), "{refused:?}");
    for word in words {
        assert!(
            refused.error_text().contains(word),
            "\"{word}\" is not in: {}",
            refused.error_text()
        );
    }
}

fn refused_after(code: &str, words: &[&str]) -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = full_node(&lab)?;
    lab.sim
        .faults()
        .push(Fault::error(Action::CreateNetworkInterface, 1000, code));
    assert_refused(&impatient_add(&node)?, words);
    assert_eq!(count(&node, "assigned")?, 3);
    Ok(())
}

fn an_exhausted_subnet_is_named() -> Outcome {
    refused_after(
        "InsufficientFreeAddressesInSubnet",
        &["subnet-", "no free address"],
    )
}

fn a_denied_action_is_named() -> Outcome {
    refused_after(
        "UnauthorizedOperation",
        &["ec2:CreateNetworkInterface", "IAM"],
    )
}

fn throttling_is_named() -> Outcome {
    refused_after("RequestLimitExceeded", &["throttles"])
}

fn an_unreachable_ec2_is_named() -> Outcome {
    refused_after("InternalError", &["EC2"])
}

fn a_waiting_add_is_served_by_the_first_address() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = full_node(&lab)?;
    let slow = FaultKind::Delay(Duration::from_secs(1));
    lab.sim.faults().push(Fault {
        action: Action::CreateNetworkInterface,
        times: 1,
        kind: slow,
    });
    let (_netns, path) = node.sandbox("waits")?;
    let added = node
        .invocation("ADD", "waits", Some(&path))
        .run(node.netns())?;
    assert!(added.succeeded(), "{added:?}\n{}", node.log());
    assert!(
        added.took >= Duration::from_secs(1),
        "it cannot have been served before EC2 answered"
    );
    Ok(())
}

fn a_lost_create_reply_makes_no_second_eni() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = full_node(&lab)?;
    lab.sim.faults().push(Fault {
        action: Action::CreateNetworkInterface,
        times: 1,
        kind: FaultKind::LoseReply,
    });
    let (_netns, path) = node.sandbox("waits")?;
    let added = node
        .invocation("ADD", "waits", Some(&path))
        .run(node.netns())?;
    assert!(added.succeeded(), "{added:?}\n{}", node.log());
    let owned = lab.sim.world().interfaces().count();
    assert_eq!(owned, 2, "the primary ENI and one more\n{}", node.log());
    Ok(())
}

fn del_calls_off_an_add_that_waits() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = full_node(&lab)?;
    lab.sim.faults().push(Fault {
        action: Action::CreateNetworkInterface,
        times: 1,
        kind: FaultKind::Hang,
    });
    let (_netns, path) = node.sandbox("waits")?;
    thread::scope(|scope| {
        let add = scope.spawn(|| {
            node.invocation("ADD", "waits", Some(&path))
                .run(node.netns())
        });
        assert!(
            eventually(Duration::from_secs(5), || node
                .waiting()
                .is_ok_and(|n| n == 1)),
            "{}",
            node.log()
        );
        let deleted = node
            .invocation("DEL", "waits", Some(&path))
            .run(node.netns())?;
        assert!(
            deleted.succeeded() && deleted.took < Duration::from_secs(2),
            "{deleted:?}"
        );
        let refused = add.join().expect("no panic")?;
        assert_eq!(refused.error_code(), Some(3), "{refused:?}");
        Ok(())
    })
}

fn an_address_that_the_kernel_still_routes_is_not_granted_again_at_once() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[("MAX_ENI", "1"), ("IP_COOLDOWN_PERIOD", "1")])?;
    let probe = node.add_pod("probe")?;
    let disputed = probe.address();
    node.delete_pod(probe)?;
    assert!(
        eventually(Duration::from_secs(5), || count(&node, "free")
            .is_ok_and(|n| n == 3)),
        "{}",
        node.log()
    );
    let stray = |add: bool| node.netns().run(move || route_to(disputed, add));
    stray(true)??;
    // Of the three ADDs that take all addresses, one meets the disputed one.
    let adds: Vec<_> = (0..3).map(|n| node.add_pod(&format!("pod{n}"))).collect();
    let refused = adds
        .iter()
        .filter_map(|add| add.as_ref().err())
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    assert!(
        matches!(&*refused, [why] if why.contains("still routes")),
        "{refused:?}"
    );
    assert_eq!(
        (count(&node, "assigned")?, count(&node, "free")?),
        (2, 0),
        "the disputed address must rest"
    );
    stray(false)??;
    assert!(
        eventually(Duration::from_secs(5), || count(&node, "free")
            .is_ok_and(|n| n == 1)),
        "{}",
        node.log()
    );
    let last = node.add_pod("last")?;
    assert_eq!(last.address(), disputed);
    Ok(())
}

/// A route in the pods table to `address` over the loopback, as somebody else might have left it.
fn route_to(address: IpAddr, add: bool) -> Result<(), netlink::Error> {
    let stray = Route::link(ipnet::IpNet::from(address), 1, PODS_TABLE);
    Socket::open()?.apply(&if add {
        route::add(&stray)
    } else {
        route::del(&stray)
    })
}
