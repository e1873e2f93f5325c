//! The way of pods to the other address family: its objects, and what happens if a pod has no place for them.

use super::*;
use crate::netlink::Family;
use crate::testing::snapshot_ipv6;

/// A pod of this family with an address of the other one.
fn crossing(family: Family) -> PodLink {
    let (address, egress) = match family {
        Family::V4 => ("10.0.0.5", "fd00::ac:5"),
        Family::V6 => ("2001:db8::5", "169.254.172.5"),
    };
    PodLink {
        address: address.parse().unwrap(),
        egress: Some(egress.parse().unwrap()),
        ..pod_link(5)
    }
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A host that forwards both families.
fn lab() -> Lab {
    let lab = Lab::new();
    let forward = [
        "sysctl",
        "-qw",
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
    ];
    run_in(&lab.host_ns, &forward);
    lab
}

#[test]
fn a_pod_has_one_address_and_one_route_for_the_other_family() {
    let mut lab = lab();
    let link = crossing(Family::V6);
    let wired = lab.add(&link).unwrap();
    assert_eq!(wired.egress, link.egress);
    assert_eq!(lab.check_at(&link, wired.host_index), []);
    let routes = lines(&run_in(&lab.pod_ns, &["ip", "-4", "route"]));
    assert_eq!(
        routes,
        ["default via 169.254.1.1 dev eth0 proto 107 onlink"]
    );
    let addresses = run_in(&lab.pod_ns, &["ip", "-o", "-4", "addr", "show", "eth0"]);
    assert!(addresses.contains("169.254.172.5/32"), "{addresses}");
    let on_host = lines(&run_in(
        &lab.host_ns,
        &["ip", "-4", "route", "show", "table", "all"],
    ));
    let route = format!(
        "169.254.172.5 dev {} table 27392 proto 107 scope link",
        link.host_name
    );
    assert!(on_host.contains(&route), "{on_host:?}");

    let mut lab = self::lab();
    let link = crossing(Family::V4);
    let wired = lab.add(&link).unwrap();
    assert_eq!(wired.egress, link.egress);
    assert_eq!(lab.check_at(&link, wired.host_index), []);
    let routes = lines(&run_in(&lab.pod_ns, &["ip", "-6", "route"]));
    assert_eq!(
        routes
            .iter()
            .filter(|r| r.starts_with("default via fe80::1 dev eth0"))
            .count(),
        1,
        "{routes:?}"
    );
    let addresses = run_in(&lab.pod_ns, &["ip", "-o", "-6", "addr", "show", "eth0"]);
    assert!(
        addresses.contains("fd00::ac:5/128") && !addresses.contains("tentative"),
        "{addresses}"
    );
    assert!(!addresses.contains("fe80"), "{addresses}");
}

#[test]
fn a_pod_is_found_again_with_both_addresses_and_goes_with_both() {
    for family in FAMILIES {
        let mut lab = lab();
        let before = (snapshot(&lab.host_ns), snapshot_ipv6(&lab.host_ns));
        let link = crossing(family);
        let wired = lab.add(&link).unwrap();
        let found = list(&mut lab.host).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].address, found[0].egress),
            (Some(link.address), link.egress)
        );
        let pod = PodRef {
            egress: link.egress,
            ..reference(&link, &wired)
        };
        for _ in 0..2 {
            unroute(&mut lab.host, &pod).unwrap();
        }
        let found = list(&mut lab.host).unwrap();
        assert_eq!((found[0].address, found[0].egress), (None, None));
        unlink(&mut lab.host, wired.host_index).unwrap();
        assert_eq!(
            (snapshot(&lab.host_ns), snapshot_ipv6(&lab.host_ns)),
            before
        );
    }
}

/// The pod has what it had before, and the address goes to another pod.
#[test]
fn a_pod_without_a_place_for_the_other_family_does_without() {
    let off = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1";
    let theirs = "ip link add x type veth peer name y; ip addr add 192.0.2.2/24 dev x; ip link set x up; ip link set y up; \
                  ip route add default via 192.0.2.1";
    for (family, meddle) in FAMILIES.into_iter().zip([off, theirs]) {
        let mut lab = lab();
        run_in(&lab.pod_ns, &["sh", "-ec", meddle]);
        let link = crossing(family);
        let wired = lab.add(&link).unwrap();
        assert_eq!((wired.egress, wired.secondary), (None, false), "{meddle}");
        let without = PodLink {
            egress: None,
            ..link.clone()
        };
        assert_eq!(lab.check_at(&without, wired.host_index), []);
        let egress = link.egress.unwrap().to_string();
        let in_pod = run_in(
            &lab.pod_ns,
            &[
                "sh",
                "-ec",
                "ip addr; ip neigh show nud permanent; ip route; ip -6 route",
            ],
        );
        assert!(!in_pod.contains(&egress), "{in_pod}");
        assert_eq!(list(&mut lab.host).unwrap()[0].egress, None);
    }
}

#[test]
fn a_further_attachment_has_no_way_of_its_own() {
    for family in FAMILIES {
        let mut lab = lab();
        let first = crossing(family);
        let one = lab.add(&first).unwrap();
        let second = PodLink {
            address: match family {
                Family::V4 => "10.0.0.6".parse().unwrap(),
                Family::V6 => "2001:db8::6".parse().unwrap(),
            },
            egress: match family {
                Family::V4 => Some("fd00::ac:6".parse().unwrap()),
                Family::V6 => Some("169.254.172.6".parse().unwrap()),
            },
            pod_name: "net1".to_owned(),
            secondary: true,
            ..pod_link(6)
        };
        let two = lab.add(&second).unwrap();
        assert_eq!((two.secondary, two.egress), (true, None));
        assert_eq!(lab.check_at(&first, one.host_index), []);
    }
}

#[test]
fn what_is_missing_of_the_way_is_named() {
    for family in FAMILIES {
        let mut lab = lab();
        let link = crossing(family);
        let wired = lab.add(&link).unwrap();
        let address = link.egress.unwrap();
        let flag = if address.is_ipv6() { "-6" } else { "-4" };
        run_in(
            &lab.host_ns,
            &["ip", flag, "route", "flush", "table", "27392"],
        );
        let missing = [Drift::HostRouteMissing { address }];
        assert_eq!(lab.check_at(&link, wired.host_index), missing);
        run_in(&lab.pod_ns, &["ip", flag, "route", "del", "default"]);
        let [host] = missing;
        let missing = [host, Drift::EgressMissing { address }];
        assert_eq!(lab.check_at(&link, wired.host_index), missing);
    }
}

#[test]
fn an_address_that_another_pod_has_is_refused_by_name() {
    for family in FAMILIES {
        let mut lab = lab();
        let link = crossing(family);
        lab.add(&link).unwrap();
        let (other_ns, mut other) = pod();
        let rival = PodLink {
            address: match family {
                Family::V4 => "10.0.0.6".parse().unwrap(),
                Family::V6 => "2001:db8::6".parse().unwrap(),
            },
            egress: link.egress,
            ..pod_link(6)
        };
        let before = snapshot(&lab.host_ns);
        let error = add(&mut lab.host, &mut other, other_ns.as_fd(), &rival, None).unwrap_err();
        let taken = link.egress.unwrap();
        assert!(
            matches!(error, AddError::AddressInUse { address } if address == taken),
            "{error}"
        );
        assert_eq!(snapshot(&lab.host_ns), before);
    }
}
