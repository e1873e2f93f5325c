//! What pods asked for, or get beside their address: rates, and the way to the other address family. It is restored like
//! everything else.

use std::collections::BTreeSet;

use nettypes::{Asked, Bandwidth, RateLimit};

use super::*;
use crate::constants::is_egress;
use crate::nft::SourcePorts;
use crate::testing::snapshot_ipv6;

fn discipline(netns: &Netns) -> String {
    run_in(netns, &["sh", "-ec", "tc qdisc show dev eni11"])
}

#[test]
fn a_pods_bucket_comes_back_and_other_disciplines_are_no_concern() {
    let mut kept = Kept::new();
    let shape = RateLimit {
        rate: 80_000_000,
        burst: 0,
    };
    let link = PodLink {
        host_name: "eni11".to_owned(),
        asked: Asked {
            bandwidth: Bandwidth {
                ingress: Some(shape),
                egress: None,
            },
            ..Asked::default()
        },
        ..pod_link(12, 0)
    };
    let netns = netns();
    let mut pod = socket_in(&netns);
    let reconciler = &mut kept.reconciler;
    reconciler.add_pod(&mut pod, netns.as_fd(), &link).unwrap();
    assert_eq!(kept.mark_dirty(), DirtySet::default());
    kept.show = discipline;
    kept.right = discipline(&kept.lab.host);
    assert!(kept.right.contains("rate 80Mbit"), "{}", kept.right);
    for meddle in [
        "tc qdisc del dev eni11 root",
        "tc qdisc change dev eni11 root handle 6b00: tbf rate 1gbit burst 1m limit 1m",
        "tc qdisc replace dev eni11 root pfifo limit 3",
    ] {
        assert_eq!(kept.after(meddle), [Kind::Qdisc], "{meddle}");
    }
    // Other pods did not ask, and their links are others' to shape.
    let other = pod_link(21, 1).host_name;
    let theirs = format!("tc qdisc add dev {other} root tbf rate 1gbit burst 1m limit 1m");
    kept.lab.show(&theirs);
    assert_eq!(kept.mark_dirty(), DirtySet::default());
    assert_eq!(kept.repair(&DirtySet::all()), []);
    // A policy engine's program on the same link.
    kept.lab.show("tc qdisc add dev eni11 clsact");
    assert_eq!(kept.repair(&DirtySet::all()), []);
}

/// Both families of a host, with the tables of both.
fn both(netns: &Netns) -> String {
    format!("{}{}", snapshot(netns), snapshot_ipv6(netns))
}

fn crossing(pods: Family) -> Kept {
    let mut lab = Lab::new();
    lab.show("ip addr add 2600:1f14:0:1::10/64 dev eth0 nodad; ip -6 route add default via fe80::99 dev eth0 || true");
    let egress = Egress {
        other_family: Some(SourcePorts::Random),
        ..config().egress
    };
    let config = HostConfig {
        pods,
        egress,
        block_metadata: true,
        ..config()
    };
    let mut reconciler =
        lab.on_host(|_| Reconciler::take_over(Socket::open().unwrap(), config).unwrap());
    let (address, egress): (std::net::IpAddr, std::net::IpAddr) = match pods {
        Family::V4 => (pod_link(11, 0).address, "fd00::ac:7".parse().unwrap()),
        Family::V6 => (
            "2600:1f14:0:1:5::5".parse().unwrap(),
            "169.254.172.7".parse().unwrap(),
        ),
    };
    assert!(is_egress(egress) && !is_egress(address));
    let link = PodLink {
        address,
        egress: Some(egress),
        ..pod_link(11, 0)
    };
    let netns = netns();
    let mut pod = socket_in(&netns);
    reconciler.add_pod(&mut pod, netns.as_fd(), &link).unwrap();
    let own = [reconciler.socket().port()];
    let monitor = lab.host.run(|| HostMonitor::open(pods, true, &own));
    let monitor = monitor.unwrap().unwrap();
    let right = both(&lab.host);
    Kept {
        lab,
        reconciler,
        monitor,
        right,
        show: both,
        _pods: vec![netns],
    }
}

#[test]
fn the_way_to_the_other_family_comes_back() {
    for pods in [Family::V4, Family::V6] {
        let mut kept = crossing(pods);
        assert_eq!(kept.mark_dirty(), DirtySet::default(), "{pods:?}");
        assert_eq!(kept.repair(&DirtySet::all()), [], "{pods:?}");
        let (flag, table) = match pods {
            Family::V4 => ("-6", "ip6"),
            Family::V6 => ("-4", "ip"),
        };
        let host_end = pod_link(11, 0).host_name;
        for (meddle, kinds) in [
            (format!("ip {flag} rule del pref 512"), vec![Kind::Rule]),
            (
                format!("ip {flag} route flush table 27392"),
                vec![Kind::Route],
            ),
            (
                format!("nft delete table {table} hawser"),
                vec![Kind::Nftables],
            ),
            (
                format!("nft flush chain {table} hawser no_inbound"),
                vec![Kind::Nftables],
            ),
            (
                format!("ip neigh flush dev {host_end} nud permanent"),
                vec![Kind::Neighbour],
            ),
            (
                format!("ip link set {host_end} down"),
                vec![Kind::Link, Kind::Neighbour, Kind::Route],
            ),
        ] {
            assert_eq!(kept.after(&meddle), kinds, "{pods:?}: {meddle}");
        }
    }
}

#[test]
fn the_rules_for_the_other_family_are_these() {
    let kept = crossing(Family::V6);
    let table = kept
        .lab
        .show("nft list table ip hawser | grep -v 'table\\|type\\|chain\\|}'");
    let wanted = [
        "ip daddr 169.254.169.254 iifgroup 27392/25 drop",
        "ip saddr 169.254.172.0/22 masquerade fully-random",
        "ip daddr 169.254.172.0/22 ct state ! established,related drop",
        "ip daddr 169.254.172.0/22 ct state ! established,related drop",
    ];
    let found: Vec<_> = table
        .iter()
        .map(|line| line.trim())
        .filter(|l| !l.is_empty())
        .collect();
    assert_eq!(found, wanted);
    let kept = crossing(Family::V4);
    let table = kept.lab.show("nft list table ip6 hawser").join("\n");
    for rule in [
        "ip6 saddr fd00::ac:0/118 masquerade fully-random",
        "ip6 daddr fd00::ac:0/118 ct state ! established,related drop",
        "ip6 daddr fd00:ec2::254 iifgroup",
        "fib saddr . iif oif missing drop",
    ] {
        assert!(table.contains(rule), "{rule}\n{table}");
    }
}

/// Without the feature, a later start removes what it had made for it.
#[test]
fn what_was_made_for_the_other_family_goes_with_the_setting() {
    for pods in [Family::V4, Family::V6] {
        let mut kept = crossing(pods);
        let config = HostConfig { pods, ..config() };
        drop(kept.reconciler);
        kept.lab
            .on_host(|_| Reconciler::take_over(Socket::open().unwrap(), config).map(drop))
            .unwrap();
        let left = kept
            .lab
            .show("nft list ruleset; ip rule; ip -6 rule")
            .join("\n");
        assert!(!left.contains("masquerade"), "{pods:?}: {left}");
        let rules = left.matches("512:").count();
        assert_eq!(rules, 1, "{pods:?}: {left}");
    }
}

#[test]
fn every_address_of_the_other_family_that_is_in_use_is_found() {
    for (pods, flag, theirs, gateway) in [
        (Family::V4, "-6", "fd00::ac:9", "fd00::ac:1"),
        (Family::V6, "-4", "169.254.172.9", "169.254.172.1"),
    ] {
        let mut kept = crossing(pods);
        let own: BTreeSet<_> = kept.reconciler.egress_in_use().unwrap();
        assert_eq!(own.len(), 1, "{own:?}");
        // As `egress-cni` does it.
        kept.lab.show(&format!(
            "ip link add veth0 type veth peer name peer0; ip link set veth0 up; \
             ip {flag} addr add {gateway} dev veth0; ip {flag} route add {theirs} dev veth0"
        ));
        let added = [theirs, gateway].map(|address| address.parse().unwrap());
        let all = own.into_iter().chain(added).collect();
        assert_eq!(kept.reconciler.egress_in_use().unwrap(), all, "{pods:?}");
    }
}
