//! What others remove from the node's network is restored under traffic, and correct objects are not touched.

use std::{
    collections::BTreeSet,
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use datapath::netlink::{Event, Monitor, Socket, Topic, link::Link};
use lab::{
    Lab,
    node::{Node, Pod, count, inspect::inspect},
    wait::eventually,
};
use vpc_sim::{Action, SimConfig, world::request::DetachNetworkInterface};

use crate::{
    suite::{Outcome, trials},
    support::repair::{DamagedNode, LIMIT, one_by_one},
};

trials!(
    fault_43_removed_objects_are_restored,
    fault_43_everything_at_once_is_restored,
    fault_43_objects_of_others_stay,
    a_restart_changes_nothing,
    a_pulled_eni_makes_the_pool_look_at_ec2,
    a_pod_that_ends_is_noticed_at_once,
    removing_many_links_delays_no_add,
);

/// Each way to damage a node, and the kind of object that is repaired.
const DAMAGE: [(&str, &str); 11] = [
    ("rule", "ip rule flush protocol 107"),
    (
        "route",
        "for t in 2 27392; do ip route flush table $t; done",
    ),
    ("nftables", "nft delete table ip hawser"),
    ("nftables", "nft flush ruleset"),
    ("nftables", "nft delete table ip hawser_ports"),
    ("nftables", "nft flush map ip hawser_ports by_port"),
    ("nftables", "nft flush chain ip hawser_ports prerouting"),
    (
        "setting",
        "for d in /proc/sys/net/ipv4/conf/eni*; do echo 0 > $d/rp_filter; echo 0 > $d/route_localnet; done; \
         echo 0 > /proc/sys/net/ipv4/ip_forward",
    ),
    (
        "neighbour",
        "for l in $(ip -o link | sed -n 's/^[0-9]*: \\(eni[^@]*\\)@.*/\\1/p'); do ip neigh flush dev $l nud permanent; done",
    ),
    (
        "link",
        "for l in $(ip -o link | sed -n 's/^[0-9]*: \\(eni[^@]*\\)@.*/\\1/p'); do ip link set $l group 0; done",
    ),
    ("address", "ip addr flush dev eth1"),
];

fn fault_43_removed_objects_are_restored() -> Outcome {
    let damaged = DamagedNode::ipv4()?;
    assert_ne!(
        damaged.owner(&damaged.pods[0]),
        damaged.owner(&damaged.pods[3])
    );
    one_by_one(&damaged, &DAMAGE)
}

fn fault_43_everything_at_once_is_restored() -> Outcome {
    let damaged = DamagedNode::ipv4()?;
    let right = damaged.describe()?;
    let all: Vec<&str> = DAMAGE
        .iter()
        .map(|(_, how)| *how)
        .filter(|how| !how.starts_with("nft delete") && !how.contains("hawser_ports"))
        .collect();
    let took = damaged.damage(&all.join("; "), &right)?;
    stdout::errln!("all of it: whole after {took:?}");
    Ok(())
}

/// A program that keeps undoing the repairs must not make the daemon busy, nor lose its own objects.
fn fault_43_objects_of_others_stay() -> Outcome {
    let damaged = DamagedNode::ipv4()?;
    let theirs = "ip rule add pref 512 to 203.0.113.77 lookup main; ip route add 192.0.2.0/24 dev eth1 table 2; \
                  nft add table ip theirs; ip rule add pref 600 from all to 203.0.113.78 lookup main protocol static";
    damaged.node.shell(theirs)?;
    let right = damaged.describe()?;
    damaged.damage(
        "ip rule flush protocol 107; ip route flush table 27392; nft delete table ip hawser",
        &right,
    )?;
    let tables = damaged.node.shell("nft list tables ip")?;
    assert!(tables.contains("table ip theirs"), "{tables}");
    Ok(())
}

/// The same comparison as for a repair: a restart finds nothing to do. (`restart` shows that it loses no packets.)
fn a_restart_changes_nothing() -> Outcome {
    let mut damaged = DamagedNode::ipv4()?;
    let right = damaged.describe()?;
    assert!(damaged.node.stop_daemon()?);
    damaged.node.start_daemon(&damaged.lab.sim.ec2_endpoint())?;
    let known = eventually(LIMIT, || {
        count(&damaged.node, "assigned").is_ok_and(|n| n == 4)
    });
    assert!(known, "{}", damaged.node.log());
    assert_eq!(damaged.describe()?, right);
    let metrics = damaged.node.metrics()?;
    assert!(!metrics.contains("hawser_repairs_total{"), "{metrics}");
    Ok(())
}

/// An operator detaches a secondary ENI in the console.
fn a_pulled_eni_makes_the_pool_look_at_ec2() -> Outcome {
    let damaged = DamagedNode::ipv4()?;
    damaged.lab.sim.clear_calls();
    let (pulled, attachment) = {
        let world = damaged.lab.sim.world();
        let owner = world.owner_of(damaged.pods[3].address());
        let owner = owner.ok_or("nobody owns the fourth pod's address")?;
        let attachment = owner.attachment.as_ref().ok_or("its ENI is not attached")?;
        (owner.id.to_string(), attachment.id.clone())
    };
    let pull = DetachNetworkInterface {
        attachment,
        force: true,
    };
    let now = damaged.lab.sim.now();
    damaged
        .lab
        .sim
        .world()
        .detach_network_interface(&pull, now)
        .map_err(|e| format!("{e:?}"))?;
    damaged.lab.sim.settle()?;
    let asked = || {
        let calls = damaged.lab.sim.calls();
        calls
            .iter()
            .any(|call| call.action == Action::DescribeNetworkInterfaces.name())
    };
    assert!(eventually(LIMIT, asked), "{}", damaged.node.log());
    let noticed = || {
        inspect(&damaged.node.socket()).is_ok_and(|s| {
            s.enis
                .iter()
                .all(|eni| eni.id != pulled || eni.state != "ready")
        })
    };
    assert!(eventually(LIMIT, noticed), "{}", damaged.node.log());
    Ok(())
}

fn a_pod_that_ends_is_noticed_at_once() -> Outcome {
    let mut damaged = DamagedNode::ipv4()?;
    let gone = damaged.pods.remove(1);
    datapath::netns::Netns::unbind(&gone.path)?;
    drop(gone);
    // Detected immediately, and released after its DEL had time to arrive: the log distinguishes the two.
    let noticed = || damaged.node.log().contains("a pod's link is gone");
    assert!(eventually(LIMIT, noticed), "{}", damaged.node.log());
    assert_eq!(
        count(&damaged.node, "assigned")?,
        4,
        "{}",
        damaged.node.log()
    );
    let released = || count(&damaged.node, "assigned").is_ok_and(|n| n == 3);
    assert!(
        eventually(Duration::from_secs(60), released),
        "{}",
        damaged.node.log()
    );
    Ok(())
}

/// Whether a link that is not in `old` appeared after the first of them disappeared and before the last.
fn new_in_between(events: &[Event], old: &BTreeSet<u32>) -> bool {
    let is_new = |event: &Event| matches!(event, Event::Link(link) if !old.contains(&link.index));
    let went = |event: &Event| matches!(event, Event::LinkGone(link) if old.contains(&link.index));
    let (first, last) = (events.iter().position(went), events.iter().rposition(went));
    let between = first
        .zip(last)
        .and_then(|(first, last)| events.get(first..last));
    between.is_some_and(|events| events.iter().any(is_new))
}

fn links(node: &Node) -> io::Result<Vec<Link>> {
    node.netns()
        .run(|| Socket::open()?.links())?
        .map_err(io::Error::other)
}

/// The links of 140 pods, more than are removed at once, are being removed, and ADDs in the meantime are wired in
/// between.
fn removing_many_links_delays_no_add() -> Outcome {
    const MOST: usize = 80;
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node(
        "m5.4xlarge",
        &[("WARM_IP_TARGET", "230"), ("IP_COOLDOWN_PERIOD", "0")],
    )?;
    let grown = eventually(Duration::from_secs(60), || {
        count(&node, "free").is_ok_and(|n| n >= 230)
    });
    assert!(grown, "{}", node.log());
    let pods = (0..140).map(|n| node.add_pod(&format!("pod{n}")));
    let pods = pods.collect::<io::Result<Vec<_>>>()?;
    let quiet = node.add_pod("before")?.added.took;
    let mut monitor = Monitor::open_in(node.netns(), &[Topic::Links])?;
    monitor.expect_floods();
    let old: BTreeSet<u32> = links(&node)?.iter().map(|link| link.index).collect();
    let left = old.len() - pods.len();
    let gone = || {
        links(&node).is_ok_and(|all| all.iter().filter(|l| old.contains(&l.index)).count() == left)
    };
    let over = AtomicBool::new(false);
    let added = std::thread::scope(|scope| {
        let adds = scope.spawn(|| {
            let adds = (0..MOST).take_while(|_| !over.load(Relaxed));
            let adds = adds.map(|n| node.add_pod(&format!("new{n}")));
            adds.collect::<io::Result<Vec<_>>>()
        });
        let del = |pod: &Pod| {
            let del = node.invocation("DEL", &pod.id, Some(&pod.path));
            let node = &node;
            scope.spawn(move || del.run(node.netns()))
        };
        let dels: Vec<_> = pods.iter().map(del).collect();
        for del in dels {
            assert!(del.join().expect("no panic")?.succeeded());
        }
        let all_gone = eventually(LIMIT, gone);
        over.store(true, Relaxed);
        assert!(all_gone, "{}", node.log());
        adds.join().expect("no panic")
    })?;
    let mut took: Vec<_> = added.iter().map(|pod| pod.added.took).collect();
    took.sort_unstable();
    stdout::errln!("ADD alone {quiet:?}; beside 140 removals {took:?}");
    let mut events = Vec::new();
    loop {
        match monitor.pending()? {
            more if more.is_empty() => break,
            more => events.extend(more),
        }
    }
    assert!(
        new_in_between(&events, &old),
        "no link came while the old ones went"
    );
    let failures = node.metric("hawser_link_removal_failures_total")?;
    assert_eq!(failures, 0);
    Ok(())
}
