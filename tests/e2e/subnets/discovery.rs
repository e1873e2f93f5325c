//! Subnet discovery: where pods are, what an excluded subnet means, and what it costs.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use lab::{
    crash::clock_offset::ClockOffset,
    node::{Pod, count},
    traffic::ping::ping,
    wait::eventually,
};
use vpc_sim::{Action, Fault};

use super::vpc::{PATIENCE, Vpc, shows};
use crate::suite::{Outcome, trials};

trials!(
    a_fragmented_subnet_gives_no_prefix_and_the_next_one_does,
    a_denied_list_leaves_the_node_its_own_subnet,
    a_tag_that_changes_while_the_daemon_runs_closes_enis_until_their_pods_leave,
    denied_route_tables_do_not_stop_growth,
    changed_groups_of_the_primary_eni_are_inherited,
    a_tag_excludes_the_primary_eni_of_a_restarted_node_and_its_pods_stay,
    forty_pods_are_spread_over_the_subnets_that_have_room,
    an_idle_node_lists_subnets_at_most_hourly,
    the_cluster_of_a_subnet_counts,
    without_discovery_nothing_is_asked_about_subnets,
);

const SETTINGS: [(&str, &str); 2] = [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "0")];

fn forty_pods_are_spread_over_the_subnets_that_have_room() -> Outcome {
    let vpc = Vpc::start(&[
        ("100.64.1.0/27", 'a'),
        ("100.64.2.0/24", 'a'),
        ("100.64.3.0/24", 'b'),
    ])?;
    for subnet in 1..=3 {
        vpc.role(subnet, "1")?;
    }
    let mut node = vpc.lab.bare_node("m5.2xlarge", &SETTINGS)?;
    {
        // Room for the primary ENI's addresses and a few more in the first, none in the third.
        let mut world = vpc.lab.sim.world();
        world.crowd(&vpc.subnets[0], 20);
        world.crowd(&vpc.subnets[2], 0);
    }
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    let pods: Vec<Pod> = (0..40)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect::<Result<_, _>>()?;
    let mut by_subnet = BTreeMap::<_, usize>::new();
    for pod in &pods {
        *by_subnet.entry(vpc.subnet_of(pod.address())).or_default() += 1;
    }
    let used: Vec<_> = by_subnet.keys().copied().collect();
    assert_eq!(used, [Some(0), Some(1)], "{by_subnet:?}\n{}", node.log());
    assert_eq!(vpc.calls("DescribeSubnets"), 1, "one list is enough");
    Ok(())
}

fn a_fragmented_subnet_gives_no_prefix_and_the_next_one_does() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a'), ("100.64.2.0/25", 'a')])?;
    for (subnet, role) in [(0, "0"), (1, "1"), (2, "1")] {
        vpc.role(subnet, role)?;
    }
    for block in 0..16 {
        let address = Ipv4Addr::new(100, 64, 1, 16 * block + 9);
        let mut world = vpc.lab.sim.world();
        assert!(world.occupy(&vpc.subnets[1], address.into()));
    }
    let prefixes = [("ENABLE_PREFIX_DELEGATION", "true")];
    let node = vpc
        .lab
        .node("m5.large", &[&SETTINGS[..], &prefixes].concat())?;
    for n in 0..18 {
        let pod = node.add_pod(&format!("pod{n}"))?;
        assert_eq!(vpc.subnet_of(pod.address()), Some(2), "{}", node.log());
    }
    let enis = vpc.enis(&node);
    assert_eq!(enis.get(&1), None, "{enis:?}\n{}", node.log());
    let lists = vpc.calls("DescribeSubnets");
    assert!(lists <= 2, "{lists} lists\n{}", node.log());
    Ok(())
}

fn an_idle_node_lists_subnets_at_most_hourly() -> Outcome {
    for (discovery, lists) in [("true", 1..=2), ("false", 0..=0)] {
        let vpc = Vpc::start(&[("100.64.1.0/24", 'a')])?;
        vpc.role(1, "1")?;
        let mut ahead = ClockOffset::new(vpc.lab.dir())?;
        let settings = [("ENABLE_SUBNET_DISCOVERY", discovery)];
        let settings = [&SETTINGS[..], &settings, &ahead.settings()].concat();
        let node = vpc.lab.node("t3.small", &settings)?;
        let pods: Vec<Pod> = (0..4)
            .map(|n| node.add_pod(&format!("pod{n}")))
            .collect::<Result<_, _>>()?;
        let calls = vpc.calls_of_two_idle_hours(&node, &mut ahead)?;
        assert!(lists.contains(&calls.len()), "{calls:?}\n{}", node.log());
        let only = |action: &String| action == "DescribeSubnets";
        assert!(calls.iter().all(only), "{calls:?}");
        drop(pods);
    }
    Ok(())
}

fn the_cluster_of_a_subnet_counts() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a'), ("100.64.2.0/24", 'a')])?;
    vpc.role(0, "0")?;
    for (subnet, cluster) in [(1, "other"), (2, "ours")] {
        vpc.role(subnet, "1")?;
        vpc.tag(
            subnet,
            &format!("cni.networking.k8s.aws/cluster/{cluster}"),
            "shared",
        )?;
    }
    let settings = [&SETTINGS[..], &[("CLUSTER_NAME", "ours")]].concat();
    let node = vpc.lab.node("m5.large", &settings)?;
    let pod = node.add_pod("pod")?;
    assert_eq!(vpc.subnet_of(pod.address()), Some(2), "{}", node.log());
    Ok(())
}

fn a_tag_excludes_the_primary_eni_of_a_restarted_node_and_its_pods_stay() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a')])?;
    vpc.role(1, "1")?;
    let mut node = vpc.lab.node("m5.large", &SETTINGS)?;
    let before = node.add_pod("before")?;
    assert_eq!(vpc.subnet_of(before.address()), Some(0));
    vpc.role(0, "0")?;
    node.stop_daemon()?;
    std::fs::remove_file(node.state_file())?;
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    shows(
        &vpc,
        &node,
        "serves no more pods: a tag excludes its subnet",
    )?;
    assert_eq!(node.metric("hawser_closed_enis{reason=\"excluded\"}")?, 1);
    let after = node.add_pod("after")?;
    assert_eq!(vpc.subnet_of(after.address()), Some(1), "{}", node.log());
    let reached = ping(&after.netns, None, before.address(), PATIENCE)?;
    assert!(
        reached.is_some(),
        "a pod of the closed ENI lost its network\n{}",
        node.log()
    );
    let kept = vpc.subnet_of(before.address());
    assert_eq!(kept, Some(0), "it has kept its address");
    Ok(())
}

fn a_denied_list_leaves_the_node_its_own_subnet() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a')])?;
    vpc.role(1, "1")?;
    let denied = Fault::error(Action::DescribeSubnets, u32::MAX, "UnauthorizedOperation");
    vpc.lab.sim.faults().push(denied);
    let node = vpc.lab.node("t3.small", &SETTINGS)?;
    for n in 0..6 {
        let pod = node.add_pod(&format!("pod{n}"))?;
        assert_eq!(vpc.subnet_of(pod.address()), Some(0));
    }
    shows(
        &vpc,
        &node,
        "EC2 does not list subnets, the last answer stays in force",
    )?;
    assert_eq!(vpc.calls("DescribeSubnets"), 1, "{}", node.log());
    Ok(())
}

fn denied_route_tables_do_not_stop_growth() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a'), ("100.64.2.0/24", 'a')])?;
    vpc.role(0, "0")?;
    vpc.role(1, "1")?;
    vpc.role(2, "1")?;
    let denied = Fault::error(
        Action::DescribeRouteTables,
        u32::MAX,
        "UnauthorizedOperation",
    );
    vpc.lab.sim.faults().push(denied);
    let node = vpc.lab.node("t3.small", &SETTINGS)?;
    for n in 0..6 {
        let pod = node.add_pod(&format!("pod{n}"))?;
        assert_ne!(vpc.subnet_of(pod.address()), Some(0), "{}", node.log());
    }
    assert!(vpc.calls("DescribeRouteTables") > 0);
    let what = "without ec2:DescribeRouteTables new ENIs may go to subnets with other routes";
    assert!(node.log().contains(what), "{}", node.log());
    assert_eq!(count(&node, "assigned")?, 6);
    Ok(())
}

/// EC2's list is read once an hour.
fn a_tag_that_changes_while_the_daemon_runs_closes_enis_until_their_pods_leave() -> Outcome {
    const TWO_HOURS: Duration = Duration::from_secs(7200);
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a'), ("100.64.2.0/24", 'a')])?;
    vpc.role(0, "0")?;
    vpc.role(1, "1")?;
    let mut ahead = ClockOffset::new(vpc.lab.dir())?;
    let node = vpc
        .lab
        .node("m5.large", &[&SETTINGS[..], &ahead.settings()].concat())?;
    let before = node.add_pod("before")?;
    assert_eq!(vpc.subnet_of(before.address()), Some(1), "{}", node.log());
    vpc.role(1, "0")?;
    vpc.role(2, "1")?;
    let lists = vpc.calls("DescribeSubnets");
    ahead.pass(&node, TWO_HOURS)?;
    // The primary ENI was excluded from the start.
    let excluded = || {
        let closed = node.metric("hawser_closed_enis{reason=\"excluded\"}");
        closed.is_ok_and(|closed| closed == 2)
    };
    assert!(eventually(PATIENCE, excluded), "{}", node.log());
    assert_eq!(vpc.calls("DescribeSubnets"), lists + 1);
    let after = node.add_pod("after")?;
    assert_eq!(vpc.subnet_of(after.address()), Some(2), "{}", node.log());
    assert!(ping(&after.netns, None, before.address(), PATIENCE)?.is_some());
    node.delete_pod(before)?;
    ahead.pass(&node, TWO_HOURS)?;
    let left = || !vpc.enis(&node).contains_key(&1);
    assert!(
        eventually(PATIENCE, left),
        "{:?}\n{}",
        vpc.enis(&node),
        node.log()
    );
    Ok(())
}

fn without_discovery_nothing_is_asked_about_subnets() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a')])?;
    vpc.role(1, "1")?;
    let settings = [&SETTINGS[..], &[("ENABLE_SUBNET_DISCOVERY", "false")]].concat();
    let node = vpc.lab.node("t3.small", &settings)?;
    for n in 0..6 {
        node.add_pod(&format!("pod{n}"))?;
    }
    let there = || vpc.enis(&node) == BTreeMap::from([(0, 3)]);
    assert!(
        eventually(PATIENCE, there),
        "{:?}\n{}",
        vpc.enis(&node),
        node.log()
    );
    assert_eq!(
        vpc.calls("DescribeSubnets") + vpc.calls("DescribeRouteTables"),
        0
    );
    Ok(())
}

fn changed_groups_of_the_primary_eni_are_inherited() -> Outcome {
    let vpc = Vpc::start(&[])?;
    let node = vpc.lab.node("t3.small", &SETTINGS)?;
    for n in 0..4 {
        node.add_pod(&format!("pod{n}"))?;
    }
    let group = vpc.group()?;
    vpc.lab
        .set_groups(&node.instance.eni, std::slice::from_ref(&group))?;
    let alike = || {
        let world = vpc.lab.sim.world();
        let mut ours = world.interfaces().filter(|eni| {
            eni.attachment
                .as_ref()
                .is_some_and(|at| at.instance == node.instance.id)
        });
        ours.all(|eni| eni.groups == [group.clone()])
    };
    assert!(eventually(3 * PATIENCE, alike), "{}", node.log());
    Ok(())
}
