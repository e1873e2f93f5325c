//! Two sandboxes of one pod: the younger has the pod's name, and neither is mistaken for the other.

use std::collections::HashMap;

use super::super::repair::rename;
use super::*;
use crate::netlink::Kind;
use crate::netlink::link::Link;

/// A second sandbox of the pod of `pod_link(5)`, with its own address.
fn younger() -> PodLink {
    PodLink {
        host_name: pod_link(5).host_name,
        ..pod_link(6)
    }
}

struct Two {
    lab: Lab,
    old: Wiring,
    young: Wiring,
    young_ns: Netns,
    young_pod: Socket,
}

impl Two {
    fn new() -> Self {
        let mut lab = Lab::new();
        let old = lab.add(&pod_link(5)).unwrap();
        let (young_ns, mut young_pod) = pod();
        let young = add(
            &mut lab.host,
            &mut young_pod,
            young_ns.as_fd(),
            &younger(),
            None,
        );
        Self {
            lab,
            old,
            young: young.unwrap(),
            young_ns,
            young_pod,
        }
    }

    fn link(&mut self, index: u32) -> Link {
        let found = self.lab.host.link_by_index(index).unwrap();
        found.expect("it is there")
    }

    fn expect_both_whole(&mut self) {
        assert_eq!(self.lab.check_at(&pod_link(5), self.old.host_index), []);
        let young = self.young.host_index;
        let found = check(&mut self.lab.host, &mut self.young_pod, &younger(), young);
        assert_eq!(found.unwrap(), []);
    }
}

#[test]
fn the_younger_of_two_sandboxes_has_the_pods_name_and_both_work() {
    let mut two = Two::new();
    let name = pod_link(5).host_name;
    assert_eq!(two.young.host_name, name);
    assert!(two.young.contested && !two.old.contested);
    assert_eq!(two.link(two.young.host_index).name, name);
    let old = two.link(two.old.host_index);
    assert_eq!(old.name, own_name("eni", &pod_link(5).owner));
    assert!(old.up);
    two.expect_both_whole();
    // A repeated ADD replaces its own link, never the other one.
    let again = add(
        &mut two.lab.host,
        &mut two.young_pod,
        two.young_ns.as_fd(),
        &younger(),
        None,
    );
    two.young = again.unwrap();
    assert_eq!(two.young.host_name, name);
    two.expect_both_whole();
}

/// The link of a pod whose DEL was answered exists for some milliseconds more.
#[test]
fn a_pod_that_comes_back_at_once_has_its_name() {
    let mut lab = Lab::new();
    let link = pod_link(5);
    for n in 0..20 {
        let (netns, mut inside) = pod();
        let next = PodLink {
            owner: format!("hawser lab/sandbox-{n}/eth0"),
            host_mac: Mac::local([1, 0, 0, 0, 0, n]),
            ..link.clone()
        };
        let wired = add(&mut lab.host, &mut inside, netns.as_fd(), &next, None).unwrap();
        assert_eq!(wired.host_name, link.host_name);
        unroute(&mut lab.host, &reference(&link, &wired)).unwrap();
        let dying = Change {
            group: Some(GROUP_DYING),
            ..Change::default()
        };
        let index = wired.host_index;
        lab.host.apply(&link::set(index, &dying)).unwrap();
    }
}

/// The same in the order of a kernel before 6.2, which renames only links that are down.
#[test]
fn a_link_in_use_is_renamed_within_one_datagram_and_is_whole_again() {
    let mut lab = Lab::new();
    let link = pod_link(5);
    let wired = lab.add(&link).unwrap();
    let end = lab.host.link_by_index(wired.host_index).unwrap().unwrap();
    let pod = WiredPod {
        host_name: "eni-renamed".to_owned(),
        ..WiredPod::of(&link, wired.host_index)
    };
    let before = snapshot(&lab.host_ns);
    rename::within_one_datagram(&mut lab.host, &pod, &end, None).unwrap();
    assert_eq!(lab.check_at(&link, wired.host_index), []);
    let after = snapshot(&lab.host_ns);
    assert_eq!(after.replace("eni-renamed", &link.host_name), before);
}

/// Two links that have each other's name. No link loses its own name for an outdated reason.
#[test]
fn names_that_were_exchanged_are_exchanged_back() {
    let mut lab = Lab::new();
    let one = pod_link(5);
    let first = lab.add(&one).unwrap();
    let (other_ns, mut other) = pod();
    let two = pod_link(6);
    let second = add(&mut lab.host, &mut other, other_ns.as_fd(), &two, None).unwrap();
    let exchange = format!(
        "ip link set {0} name x0; ip link set {1} name {0}; ip link set x0 name {1}",
        one.host_name, two.host_name
    );
    run_in(&lab.host_ns, &["sh", "-ec", &exchange]);
    let pods = [
        WiredPod::of(&one, first.host_index),
        WiredPod::of(&two, second.host_index),
    ];
    let repaired = repair(&mut lab.host, pods.iter(), None);
    assert!(repaired.failure.is_none() && repaired.contested.is_empty());
    let names: HashMap<u32, String> = list(&mut lab.host)
        .unwrap()
        .into_iter()
        .map(|link| (link.ifindex, link.name))
        .collect();
    assert_eq!(names[&first.host_index], one.host_name);
    assert_eq!(names[&second.host_index], two.host_name);
}

/// The number of requests is that of a link without an owner and a name that is free.
#[test]
fn an_owner_costs_no_request() {
    let mut lab = Lab::new();
    let before = lab.host.changed();
    lab.add(&pod_link(5)).unwrap();
    let changed: Vec<_> = lab.host.changed().since(before).iter().collect();
    // The pair and setting it up; its two settings; the neighbour; the route.
    assert_eq!(
        changed,
        [
            (Kind::Link, 2),
            (Kind::Setting, 2),
            (Kind::Neighbour, 1),
            (Kind::Route, 1)
        ]
    );
}
