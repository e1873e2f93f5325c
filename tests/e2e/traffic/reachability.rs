//! Endpoint reaches whom: on one node, across nodes, through the right ENI and no other.

use std::{net::IpAddr, time::Duration};

use datapath::{
    constants,
    netlink::{
        self, Family, Socket,
        addr::{self, Address},
    },
};
use lab::{
    Lab,
    node::{Node, Pod},
    traffic::ping::{ping, ping_once, unanswered},
};
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    pods_reach_each_other_on_one_node_and_across_nodes_and_enis,
    node_and_pods_reach_each_other,
    a_pod_on_a_secondary_eni_is_lost_without_its_rule,
    another_pods_source_address_is_dropped,
    a_new_pod_answers_the_first_packet,
    rules_do_not_grow_with_pods,
    every_pods_traffic_leaves_by_the_eni_that_owns_its_address,
);

const LIMIT: Duration = Duration::from_secs(2);

fn pods(node: &Node, count: usize) -> std::io::Result<Vec<Pod>> {
    (0..count)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect()
}

/// The number of ENIs with the pods' addresses, as seen by EC2.
fn enis_of(lab: &Lab, pods: &[Pod]) -> usize {
    let world = lab.sim.world();
    let owners: std::collections::BTreeSet<_> = pods
        .iter()
        .filter_map(|pod| world.owner_of(pod.address()).map(|eni| eni.id.clone()))
        .collect();
    owners.len()
}

fn pods_reach_each_other_on_one_node_and_across_nodes_and_enis() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    // t3.small: 3 ENIs with 4 addresses, so 5 pods need two ENIs.
    let (a, b) = (lab.node("t3.small", &[])?, lab.node("t3.small", &[])?);
    let (on_a, on_b) = (pods(&a, 5)?, pods(&b, 5)?);
    let spread = (enis_of(&lab, &on_a), enis_of(&lab, &on_b));
    assert!(
        spread.0 >= 2 && spread.1 >= 2,
        "pods must be on primary and secondary ENIs: {spread:?}"
    );
    assert_eq!(unanswered(&on_a, &on_a)?, [], "on one node");
    assert_eq!(unanswered(&on_a, &on_b)?, [], "from a to b");
    assert_eq!(unanswered(&on_b, &on_a)?, [], "from b to a");
    Ok(())
}

fn node_and_pods_reach_each_other() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (a, b) = (lab.node("t3.small", &[])?, lab.node("t3.small", &[])?);
    for pod in pods(&a, 5)? {
        for node in [&a, &b] {
            let there = ping(node.netns(), None, pod.address(), LIMIT)?;
            assert!(
                there.is_some(),
                "{} does not reach pod {}",
                node.instance.id,
                pod.address()
            );
            let back = ping(&pod.netns, None, node.instance.address, LIMIT)?;
            assert!(
                back.is_some(),
                "pod {} does not reach {}",
                pod.address(),
                node.instance.id
            );
        }
    }
    Ok(())
}

/// Proves that the fabric is strict: without source routing, a pod's packets leave through the primary ENI and are
/// lost.
fn a_pod_on_a_secondary_eni_is_lost_without_its_rule() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (mut a, b) = (lab.node("t3.small", &[])?, lab.node("t3.small", &[])?);
    let (on_a, on_b) = (pods(&a, 5)?, pods(&b, 1)?);
    let (first, last) = (&on_a[0], &on_a[4]);
    let target = on_b[0].address();
    assert!(ping(&last.netns, None, target, LIMIT)?.is_some());
    // Otherwise it would restore the rule.
    a.kill_daemon()?;
    let removed = a
        .netns()
        .run(|| remove_source_rules(&mut Socket::open()?))??;
    assert!(removed > 0, "there was no source rule to remove");
    assert!(
        ping(&last.netns, None, target, Duration::from_millis(500))?.is_none(),
        "the fabric let it through"
    );
    assert!(
        ping(&first.netns, None, target, LIMIT)?.is_some(),
        "the primary ENI's pods need no rule"
    );
    Ok(())
}

fn remove_source_rules(socket: &mut Socket) -> Result<usize, netlink::Error> {
    let rules = socket.rules(Family::V4)?;
    let by_mark: Vec<_> = rules
        .into_iter()
        .filter(|rule| rule.priority == constants::RULE_ENI)
        .collect();
    for rule in &by_mark {
        socket.apply(&netlink::rule::del(rule))?;
    }
    Ok(by_mark.len())
}

fn another_pods_source_address_is_dropped() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (a, b) = (lab.node("t3.small", &[])?, lab.node("t3.small", &[])?);
    let (on_a, on_b) = (pods(&a, 2)?, pods(&b, 1)?);
    let (victim, thief, target) = (on_a[0].address(), &on_a[1], on_b[0].address());
    let stranger = IpAddr::from([10, 0, 99, 99]);
    thief.netns.run(|| -> Result<(), netlink::Error> {
        let mut socket = Socket::open()?;
        let index = socket.link_by_name("eth0")?.map_or(0, |link| link.index);
        for address in [victim, stranger] {
            socket.apply(&addr::add(&Address::host(index, address)))?;
        }
        Ok(())
    })??;
    assert!(
        ping(&thief.netns, Some(thief.address()), target, LIMIT)?.is_some(),
        "its own address must work"
    );
    for stolen in [victim, stranger] {
        let answer = ping(
            &thief.netns,
            Some(stolen),
            target,
            Duration::from_millis(500),
        )?;
        assert!(
            answer.is_none(),
            "a packet from {stolen} left pod {}",
            thief.address()
        );
    }
    Ok(())
}

/// The success of an ADD means that the pod is reachable at once, without a retransmission.
fn a_new_pod_answers_the_first_packet() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("m5.xlarge", &[])?;
    for n in 0..50 {
        let pod = node.add_pod(&format!("pod{n}"))?;
        let answer = ping_once(node.netns(), pod.address(), Duration::from_millis(400))?;
        assert!(answer.is_some(), "pod {n} missed its first packet");
    }
    Ok(())
}

fn rules_do_not_grow_with_pods() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    // All four ENIs exist from the start, so that only the number of pods changes.
    let node = lab.node(
        "m5.xlarge",
        &[("MINIMUM_IP_TARGET", "56"), ("WARM_IP_TARGET", "1")],
    )?;
    let grown = lab::wait::eventually(Duration::from_secs(20), || {
        lab::node::count(&node, "free").is_ok_and(|n| n == 56)
    });
    assert!(
        grown,
        "the pool did not grow to 56 addresses\n{}",
        node.log()
    );
    let count = || {
        node.netns()
            .run(|| Socket::open()?.rules(Family::V4).map(|rules| rules.len()))
    };
    let first = node.add_pod("first")?;
    let with_one = count()??;
    let more = pods(&node, 39)?;
    let with_forty = count()??;
    assert_eq!(with_one, with_forty, "ip rules with 1 and with 40 pods");
    assert!(more.iter().all(|pod| pod.address() != first.address()));
    Ok(())
}

fn every_pods_traffic_leaves_by_the_eni_that_owns_its_address() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (node, other) = (lab.node("m5.xlarge", &[])?, lab.node("t3.small", &[])?);
    let (forty, target) = (pods(&node, 40)?, pods(&other, 1)?);
    assert!(
        enis_of(&lab, &forty) >= 3,
        "40 pods of 14 an ENI need three ENIs"
    );
    assert_eq!(unanswered(&forty, &target)?, []);
    assert_eq!(unanswered(&target, &forty)?, []);
    Ok(())
}
