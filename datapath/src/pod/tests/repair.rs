//! Any change of a pod's host end is repaired, and nothing else.

use super::*;
use crate::netlink::{Kind, Tally};

/// Damages the host's side with `meddle` (`$L` is the host end), repairs it, and returns what was changed.
fn repaired(meddle: &str) -> Vec<Kind> {
    let mut lab = Lab::new();
    let link = pod_link(5);
    lab.add(&link).unwrap();
    let right = snapshot(&lab.host_ns);
    let command = format!("L={}; {meddle}", link.host_name);
    run_in(&lab.host_ns, &["sh", "-ec", &command]);
    assert_ne!(lab.check(&link), [], "after {meddle}");

    let changed = repair_one(&mut lab, &link);
    assert_eq!(lab.check(&link), [], "after {meddle}");
    assert_eq!(snapshot(&lab.host_ns), right, "after {meddle}");
    assert!(repair_one(&mut lab, &link).is_empty(), "after {meddle}");
    changed.iter().map(|(kind, _)| kind).collect()
}

fn repair_one(lab: &mut Lab, link: &PodLink) -> Tally {
    let before = lab.host.changed();
    let index = lab.host.link_by_name(&link.host_name).unwrap();
    repair_all(lab, &[WiredPod::of(link, index.unwrap().index)]);
    lab.host.changed().since(before)
}

fn repair_all(lab: &mut Lab, pods: &[WiredPod]) {
    let repaired = repair(&mut lab.host, pods.iter(), None);
    assert!(repaired.failure.is_none(), "{:?}", repaired.failure);
}

#[test]
fn a_lost_route_comes_back() {
    let kinds = repaired("ip route flush table 27392");
    assert_eq!(kinds, [Kind::Route]);
}

#[test]
fn a_removed_neighbour_is_restored() {
    let kinds = repaired("ip neigh flush dev $L nud permanent");
    assert_eq!(kinds, [Kind::Neighbour]);
}

#[test]
fn a_neighbour_that_was_changed_is_changed_back() {
    let kinds = repaired("ip neigh replace 10.0.0.5 lladdr 02:00:00:00:00:99 dev $L nud permanent");
    assert_eq!(kinds, [Kind::Neighbour]);
}

#[test]
fn a_link_that_was_set_down_is_whole_again() {
    let kinds = repaired("ip link set $L down");
    assert_eq!(kinds, [Kind::Link, Kind::Neighbour, Kind::Route]);
}

#[test]
fn a_link_that_was_changed_is_changed_back() {
    let kinds =
        repaired("ip link set $L group 7 mtu 1400 address 02:00:00:00:00:77 arp on alias other");
    assert_eq!(kinds, [Kind::Link, Kind::Neighbour]);
}

#[test]
fn settings_come_back() {
    let path = "cd /proc/sys/net/ipv4/conf/$L;";
    for setting in ["0 > rp_filter", "0 > forwarding", "1 > accept_redirects"] {
        assert_eq!(repaired(&format!("{path} echo {setting}")), [Kind::Setting]);
    }
}

#[test]
fn another_pods_route_is_not_taken() {
    let mut lab = Lab::new();
    let link = pod_link(5);
    let wired = lab.add(&link).unwrap();
    let (other_ns, mut other) = pod();
    let mut rival = pod_link(6);
    rival.address = [10, 0, 0, 6].into();
    add(&mut lab.host, &mut other, other_ns.as_fd(), &rival, None).unwrap();
    let meddle = format!(
        "ip route replace 10.0.0.5 dev {} table 27392 proto 107",
        rival.host_name
    );
    run_in(&lab.host_ns, &["sh", "-ec", &meddle]);
    let before = snapshot(&lab.host_ns);
    let pods = [WiredPod::of(&link, wired.host_index)];
    let error = repair(&mut lab.host, pods.iter(), None).failure.unwrap();
    assert!(error.is(Errno::EEXIST), "{error}");
    assert_eq!(snapshot(&lab.host_ns), before);
}

/// For a pod that was found without a record, MTU and MAC addresses are unknown.
#[test]
fn unknown_properties_are_not_changed() {
    let mut lab = Lab::new();
    let link = pod_link(5);
    let wired = lab.add(&link).unwrap();
    let pod = WiredPod {
        mtu: None,
        host_mac: None,
        pod_mac: None,
        owner: None,
        ..WiredPod::of(&link, wired.host_index)
    };
    let meddle = format!(
        "ip link set {0} mtu 1400 alias other; ip neigh flush dev {0} nud permanent; ip route flush table 27392",
        link.host_name
    );
    run_in(&lab.host_ns, &["sh", "-ec", &meddle]);
    let before = lab.host.changed();
    repair_all(&mut lab, &[pod]);
    let changed: Vec<_> = lab.host.changed().since(before).iter().collect();
    assert_eq!(changed, [(Kind::Route, 1)]);
}

#[test]
fn a_repair_skips_a_pod_whose_link_is_gone() {
    let mut lab = Lab::new();
    let link = pod_link(5);
    let before = snapshot(&lab.host_ns);
    repair_all(&mut lab, &[WiredPod::of(&link, 4711)]);
    assert_eq!(snapshot(&lab.host_ns), before);
}
