//! The same with IPv6 pods.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use nettypes::{Asked, HostPort, Transport};

use super::*;
use crate::testing::{run_in, snapshot_ipv6};

const POD: Ipv6Addr = Ipv6Addr::new(0x2600, 0x1f14, 0, 1, 2, 0, 0, 1);
const CONF: &str = "/proc/sys/net/ipv6/conf";

fn link() -> PodLink {
    PodLink {
        address: POD.into(),
        ..pod_link(11, 0)
    }
}

fn kept() -> Kept {
    let mut lab = Lab::new();
    lab.show("ip addr add 2600:1f14:0:1::10/64 dev eth0 nodad");
    let config = HostConfig {
        pods: Family::V6,
        block_metadata: true,
        ..config()
    };
    let mut reconciler =
        lab.on_host(|_| Reconciler::take_over(Socket::open().unwrap(), config).unwrap());
    let netns = netns();
    let mut pod = socket_in(&netns);
    reconciler
        .add_pod(&mut pod, netns.as_fd(), &link())
        .unwrap();
    let monitor = listen(&lab, &mut reconciler, Family::V6);
    let right = snapshot_ipv6(&lab.host);
    Kept {
        lab,
        reconciler,
        monitor,
        right,
        show: snapshot_ipv6,
        _pods: vec![netns],
    }
}

#[test]
fn our_own_changes_cause_no_doubt() {
    let mut kept = kept();
    assert_eq!(kept.mark_dirty(), DirtySet::default());
    assert_eq!(kept.repair(&DirtySet::all()), []);
    assert_eq!(kept.mark_dirty(), DirtySet::default());
    let another = PodLink {
        host_name: "eni12".to_owned(),
        address: Ipv6Addr::from(u128::from(POD) + 1).into(),
        ..link()
    };
    let netns = netns();
    let mut pod = socket_in(&netns);
    let reconciler = &mut kept.reconciler;
    reconciler
        .add_pod(&mut pod, netns.as_fd(), &another)
        .unwrap();
    assert_eq!(kept.mark_dirty(), DirtySet::default());
}

#[test]
fn rules_routes_neighbours_and_nftables_come_back() {
    let mut kept = kept();
    let host_end = link().host_name;
    for (meddle, kinds) in [
        ("ip -6 rule del pref 512".to_owned(), vec![Kind::Rule]),
        (
            "ip -6 route flush table 27392".to_owned(),
            vec![Kind::Route],
        ),
        (
            format!("ip neigh flush dev {host_end} nud permanent"),
            vec![Kind::Neighbour],
        ),
        (
            format!("ip link set {host_end} down"),
            vec![Kind::Link, Kind::Neighbour, Kind::Route],
        ),
        (
            "nft delete table ip6 hawser".to_owned(),
            vec![Kind::Nftables],
        ),
        ("nft flush ruleset".to_owned(), vec![Kind::Nftables]),
        (
            "nft insert rule ip6 hawser check_source accept".to_owned(),
            vec![Kind::Nftables],
        ),
    ] {
        assert_eq!(kept.after(&meddle), kinds, "{meddle}");
    }
}

#[test]
fn settings_with_notifications_are_restored() {
    let mut kept = kept();
    let pod = link().host_name;
    for setting in [
        "all/forwarding",
        "default/forwarding",
        &format!("{pod}/forwarding"),
    ] {
        let meddle = format!("echo 0 > {CONF}/{setting}");
        assert_eq!(kept.after(&meddle), [Kind::Setting], "{setting}");
    }
}

/// When IPv6 is disabled on a link, everything on it is removed.
#[test]
fn ipv6_that_is_switched_off_on_a_pods_link_is_switched_on() {
    let mut kept = kept();
    let meddle = format!("echo 1 > {CONF}/{}/disable_ipv6", link().host_name);
    let kinds = [Kind::Setting, Kind::Neighbour, Kind::Route];
    assert_eq!(kept.after(&meddle), kinds);
}

/// The node's own address and default route are not restored by us, but by the program that configured them.
#[test]
fn ipv6_that_is_switched_off_is_switched_on() {
    for links in ["all", "eth0"] {
        let mut kept = kept();
        kept.lab
            .show(&format!("echo 1 > {CONF}/{links}/disable_ipv6"));
        let dirty = kept.mark_dirty();
        assert!(dirty.node, "{links}: {dirty:?}");
        assert!(kept.repair(&dirty).contains(&Kind::Setting), "{links}");
        kept.lab
            .show("ip addr add 2600:1f14:0:1::10/64 dev eth0 nodad");
        // It is the source address of pods' routes again as soon as its link is ready, which the kernel notices and tells
        // a moment later. It adds an address's own routes in a work queue.
        let whole = |_| {
            let dirty = kept.mark_dirty();
            kept.repair(&dirty);
            std::thread::sleep(Duration::from_millis(10));
            snapshot_ipv6(&kept.lab.host) == kept.right
        };
        let whole = (0..500).any(whole);
        assert!(whole, "{links}: {}", snapshot_ipv6(&kept.lab.host));
    }
}

/// The kernel does not report changes of these. They are seen with another change, or in the next round.
#[test]
fn settings_without_notifications_are_restored() {
    let mut kept = kept();
    let pod = link().host_name;
    for meddle in [
        format!("echo 1 > {CONF}/eth0/accept_ra"),
        format!("echo 1 > {CONF}/default/disable_ipv6"),
        format!("echo 0 > {CONF}/{pod}/addr_gen_mode"),
    ] {
        kept.lab.show(&meddle);
        assert_eq!(kept.repair(&DirtySet::all()), [Kind::Setting], "{meddle}");
        assert_eq!(snapshot_ipv6(&kept.lab.host), kept.right, "{meddle}");
    }
}

/// If the node was configured to ignore advertisements, its route was set in another way.
#[test]
fn advertisements_that_are_not_wanted_are_not_switched_on() {
    let mut kept = kept();
    kept.lab.show(&format!("echo 0 > {CONF}/eth0/accept_ra"));
    assert_eq!(kept.repair(&DirtySet::all()), []);
    assert_eq!(kept.lab.show(&format!("cat {CONF}/eth0/accept_ra")), ["0"]);
}

#[test]
fn objects_of_others_stay() {
    let mut kept = kept();
    kept.lab.show(
        "ip -6 rule add pref 512 to 2001:db8::77 lookup main; ip -6 rule add pref 600 lookup main proto static; \
         ip -6 route add 2001:db8:1::/48 dev eth0 table 27392; nft add table ip6 theirs",
    );
    kept.right = snapshot_ipv6(&kept.lab.host);
    let meddle = "ip -6 rule del pref 512 table 27392; nft delete table ip6 hawser; echo 0 > \
                  /proc/sys/net/ipv6/conf/all/forwarding";
    assert_eq!(
        kept.after(meddle),
        [Kind::Setting, Kind::Rule, Kind::Nftables]
    );
}

/// Probes and other packets of the node to a pod have the primary's address, whatever other addresses there are (public
/// case 29).
#[test]
fn routes_to_pods_carry_the_primary_address_as_source() {
    let mut kept = kept();
    let source = |kept: &Kept| {
        let shown = kept.lab.show(&format!("ip -6 -o route get {POD}"));
        let mut words = shown[0].split(' ').skip_while(|word| *word != "src");
        words.nth(1).map(str::to_owned)
    };
    let primary = Some("2600:1f14:0:1::10".to_owned());
    assert_eq!(source(&kept), primary);
    // A service address that is nearer to the pod's, and a VIP on the primary itself.
    kept.lab.show("ip addr add 2600:1f14:0:1:2::ff/128 dev lo; ip addr add 2600:1f14:0:1::5/128 dev eth0 nodad");
    let dirty = kept.mark_dirty();
    kept.repair(&dirty);
    assert_eq!(source(&kept), primary);
    kept.lab.show("ip addr del 2600:1f14:0:1::10/64 dev eth0");
    let dirty = kept.mark_dirty();
    assert!(dirty.pods, "{dirty:?}");
    kept.repair(&dirty);
    assert_eq!(source(&kept).as_deref(), Some("2600:1f14:0:1::5"));
    kept.lab.show("ip addr add 2600:1f14:0:1::10/64 dev eth0 nodad; ip addr del 2600:1f14:0:1::5/128 dev eth0");
    let dirty = kept.mark_dirty();
    kept.repair(&dirty);
    assert_eq!(source(&kept), primary);
    kept.lab.show("ip addr del 2600:1f14:0:1:2::ff/128 dev lo");
    let dirty = kept.mark_dirty();
    kept.repair(&dirty);
    assert_eq!(snapshot_ipv6(&kept.lab.host), kept.right);
}

#[test]
fn an_sctp_port_leads_to_its_pod_and_its_answer_back() {
    let mut kept = kept();
    let router = &kept.lab.wires[0];
    run_in(
        router,
        &[
            "ip",
            "addr",
            "add",
            "2600:1f14:0:1::1/64",
            "dev",
            "wire",
            "nodad",
        ],
    );
    let asking = PodLink {
        host_name: "eni12".to_owned(),
        address: Ipv6Addr::from(u128::from(POD) + 1).into(),
        asked: Asked {
            ports: vec![HostPort {
                transport: Transport::Sctp,
                port: 9000,
                address: None,
                pod_port: 80,
            }],
            ..Asked::default()
        },
        ..link()
    };
    let netns = netns();
    let mut pod = socket_in(&netns);
    let reconciler = &mut kept.reconciler;
    let wire = || reconciler.add_pod(&mut pod, netns.as_fd(), &asking);
    kept.lab.host.run(wire).unwrap().unwrap();
    let [client, server] = [&kept.lab.wires[0], &netns].map(|netns| sctp::raw(netns, Family::V6));
    let init = sctp::packet(1, [5000, 9000], 0);
    client.send_to(&init, "[2600:1f14:0:1::10]:0").unwrap();
    let router: IpAddr = "2600:1f14:0:1::1".parse().unwrap();
    assert_eq!(sctp::hear(&server, 1), ([5000, 80], router));
    let answer = sctp::packet(2, [80, 5000], 7);
    server.send_to(&answer, (router, 0)).unwrap();
    let own: IpAddr = "2600:1f14:0:1::10".parse().unwrap();
    assert_eq!(sctp::hear(&client, 2), ([9000, 5000], own));
}
