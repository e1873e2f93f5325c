//! What other programs left or add, with their real commands.

use std::net::IpAddr;

use super::*;
use crate::netlink::rule::Rule;

/// The chains of aws-node 1.23 and of versions before it, as `iptables-nft` and `nft` add them.
const CHAINS: &str = "iptables-nft -t nat -N AWS-SNAT-CHAIN-0; iptables-nft -t nat -N AWS-CONNMARK-CHAIN-0; \
    iptables-nft -t nat -A POSTROUTING -m comment --comment 'AWS SNAT CHAIN' -j AWS-SNAT-CHAIN-0; \
    iptables-nft -t nat -A AWS-SNAT-CHAIN-0 -d 10.0.0.0/16 -m comment --comment 'AWS SNAT CHAIN' -j RETURN; \
    iptables-nft -t nat -A AWS-SNAT-CHAIN-0 ! -o vlan+ -m comment --comment 'AWS, SNAT' -m addrtype ! --dst-type LOCAL \
      -j SNAT --to-source 10.0.0.10 --random-fully; \
    iptables-nft -t nat -A PREROUTING -i eni+ -m comment --comment 'AWS, outbound connections' -j AWS-CONNMARK-CHAIN-0; \
    iptables-nft -t nat -A PREROUTING -m comment --comment 'AWS, CONNMARK' -j CONNMARK --restore-mark --mask 0x80; \
    iptables-nft -t mangle -A PREROUTING -i eth0 -m comment --comment 'AWS, primary ENI' -m addrtype --dst-type LOCAL \
      --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80; \
    iptables-nft -t mangle -A PREROUTING -i eni+ -m comment --comment 'AWS, primary ENI' -j CONNMARK --restore-mark \
      --nfmask 0x80 --ctmask 0x80; \
    ip6tables-nft -I FORWARD -d fd00::ac:0/118 -m conntrack --ctstate NEW -m comment \
      --comment 'Block Node Local Pod access via IPv6' -j REJECT; \
    nft 'table ip aws-cni { chain snat-mark { ip daddr 10.0.0.0/16 return; ct mark set ct mark or 0x80; }; \
      chain nat-prerouting { type nat hook prerouting priority -90; iifname \"eni*\" jump snat-mark; }; }'";
/// Chains of kube-proxy and portmap, which stay.
const OTHERS: &str = "iptables-nft -t nat -N KUBE-SERVICES; \
    iptables-nft -t nat -A PREROUTING -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES; \
    iptables-nft -t mangle -A PREROUTING -i eth0 -j ACCEPT; iptables-nft -t nat -N CNI-HOSTPORT-DNAT; \
    iptables-nft -t nat -A POSTROUTING -d 192.0.2.1 -j ACCEPT; ip6tables-nft -A FORWARD -d 2001:db8::1 -j ACCEPT";
const RULES: &str = "ip rule add to 10.0.0.31 pref 512 lookup main; ip rule add from 10.0.0.31 pref 1536 lookup 3; \
    ip rule add fwmark 0x80/0x80 pref 1024 lookup main";

/// What `egress-cni` makes for two pods, of which one has ended.
const EGRESS: &str = "ip link add pod type veth peer name inside; ip link set pod up; ip -6 route add fd00::ac:5 dev pod; \
    for n in 5 6; do c=CNI-E6-e0f4d3ba1b5c0d83fb0$n; ip6tables-nft -t nat -N $c; \
      ip6tables-nft -t nat -A $c -d ff00::/8 -m comment --comment 'name: \"aws-cni\" id: \"c'$n'\"' -j ACCEPT; \
      ip6tables-nft -t nat -A $c -m comment --comment 'name: \"aws-cni\" id: \"c'$n'\"' -j SNAT --to-source 2001:db8::1 \
        --random-fully; \
      ip6tables-nft -t nat -A POSTROUTING -s fd00::ac:$n -m comment --comment 'name: \"aws-cni\" id: \"c'$n'\"' -j $c; done";

fn shown(lab: &Lab) -> Vec<String> {
    lab.show("ip rule | grep -v 'proto 107'; nft list table ip nat; nft list table ip mangle; ip6tables-nft-save -t filter | grep FORWARD; nft list tables | grep -v hawser")
}

fn started(lab: &mut Lab) -> (Reconciler, Vec<Removed>) {
    lab.on_host(|_| {
        let mut reconciler = Reconciler::take_over(Socket::open().unwrap(), config()).unwrap();
        let removed = reconciler.remove_leftovers(&[]).unwrap();
        (reconciler, removed)
    })
}

#[test]
fn what_aws_node_left_is_removed_and_nothing_else() {
    let mut lab = Lab::new();
    lab.show(OTHERS);
    lab.on_host(|socket| prepare(socket, &config()).map(drop).unwrap());
    let before = shown(&lab);
    lab.show(CHAINS);
    lab.show(RULES);
    let (_, removed) = started(&mut lab);
    assert_eq!(shown(&lab), before);
    let mut removed: Vec<_> = removed.into_iter().map(|removed| removed.what).collect();
    removed.retain(|what| !what.starts_with("nft rule"));
    assert_eq!(
        removed,
        [
            "ip rule 512: from all to 10.0.0.31 lookup main",
            "ip rule 1024: from all fwmark 0x80/0x80 lookup main",
            "ip rule 1536: from 10.0.0.31 lookup 3",
            "nft chain ip nat AWS-CONNMARK-CHAIN-0",
            "nft chain ip nat AWS-SNAT-CHAIN-0",
            "nft table ip aws-cni",
        ]
    );
    assert_eq!(started(&mut lab).1, []);
}

#[test]
fn while_a_pod_of_aws_node_lives_it_keeps_its_rules_and_chains() {
    let mut lab = Lab::new();
    lab.show(CHAINS);
    lab.show(RULES);
    lab.show(
        "ip link add eni0123456789a up type veth peer name p; ip link set p up; \
         ip route add 10.0.0.31 dev eni0123456789a scope link",
    );
    let before = shown(&lab);
    let (mut reconciler, removed) = started(&mut lab);
    assert_eq!(removed, []);
    assert_eq!(shown(&lab), before);
    // And its address goes to no other pod.
    let claims = reconciler.claims().unwrap();
    assert_eq!(
        claims.steered,
        [("10.0.0.31/32".parse().unwrap(), 512)].into()
    );
}

#[test]
fn a_rule_that_comes_and_goes_is_noticed() {
    let mut lab = Lab::new();
    let (mut reconciler, _) = started(&mut lab);
    let own = [reconciler.socket().port()];
    let monitor = lab.host.run(|| HostMonitor::open(Family::V4, false, &own));
    let mut monitor = monitor.unwrap().unwrap();
    let mut steered = |command: &str| {
        lab.show(command);
        let dirty = reconciler.mark_dirty(&monitor.pending().unwrap(), DirtySet::default());
        let repaired = lab.host.run(|| reconciler.repair(&dirty)).unwrap();
        repaired
            .claims
            .map(|claims| claims.steered.into_keys().collect::<Vec<_>>())
    };
    let pod: ipnet::IpNet = "10.0.0.31/32".parse().unwrap();
    let none = Some(Vec::new());
    assert_eq!(
        steered("ip rule add from 10.0.0.31 pref 100 lookup 77"),
        none
    );
    // Its table is watched from now on.
    assert_eq!(
        steered("ip route add default dev eth0 table 77"),
        Some(vec![pod])
    );
    assert_eq!(steered("ip route flush table 77"), none);
    assert_eq!(
        steered("ip rule add to 10.0.0.31 pref 100 prohibit"),
        Some(vec![pod])
    );
    assert_eq!(steered("ip rule del pref 100; ip rule del pref 100"), none);
    assert_eq!(steered("ip route add default dev eth0 table 77"), None);
}

/// What DHCP, keepalived and agents configure on any link is the node's; on a managed ENI it is a stray.
#[test]
fn addresses_that_become_local_are_claimed_and_strays_of_managed_enis_removed() {
    let mut lab = Lab::new();
    let mut reconciler = lab.on_host(|_| {
        let mut reconciler = Reconciler::take_over(Socket::open().unwrap(), config()).unwrap();
        reconciler.add_eni(eni()).unwrap();
        reconciler
    });
    let own = [reconciler.socket().port()];
    let monitor = lab.host.run(|| HostMonitor::open(Family::V4, false, &own));
    let mut monitor = monitor.unwrap().unwrap();
    let mut claimed = |command: &str| -> Vec<String> {
        lab.show(command);
        let dirty = reconciler.mark_dirty(&monitor.pending().unwrap(), DirtySet::default());
        let repaired = lab.host.run(|| reconciler.repair(&dirty)).unwrap();
        let claims = repaired.claims.unwrap_or_default();
        let own = claims.own.iter().map(|net| net.addr().to_string());
        own.filter(|ip| ip.starts_with("10.0.0.3")).collect()
    };
    assert_eq!(claimed("ip addr add 10.0.0.31/32 dev lo"), ["10.0.0.31"]);
    let both = ["10.0.0.31", "10.0.0.32"];
    assert_eq!(claimed("ip addr add 10.0.0.32/24 dev eth0"), both);
    assert_eq!(claimed("ip addr add 10.0.0.33/24 dev eth1"), both);
    assert_eq!(claimed("ip addr del 10.0.0.31/32 dev lo"), ["10.0.0.32"]);
    let none: [&str; 0] = [];
    assert_eq!(claimed("ip addr del 10.0.0.32/24 dev eth0"), none);
    let shown = lab.show("ip -4 -o addr show dev eth1");
    assert!(
        shown.len() == 1 && shown[0].contains("10.0.0.20/24"),
        "{shown:?}"
    );
}

#[test]
fn the_broadcast_address_of_a_network_of_the_node_is_its_own() {
    let mut lab = Lab::new();
    let (mut reconciler, _) = started(&mut lab);
    lab.show(
        "ip link add docker0 up type bridge; ip addr add 10.0.0.65/28 broadcast + dev docker0",
    );
    let own = reconciler.claims().unwrap().own;
    for address in ["10.0.0.65/32", "10.0.0.79/32"] {
        assert!(
            own.contains(&address.parse().unwrap()),
            "{address} in {own:?}"
        );
    }
}

#[test]
fn rules_are_shown_as_iproute2_shows_them() {
    let lab = Lab::new();
    let given = [
        "from all to 10.0.0.31 lookup main",
        "from 10.0.0.0/28 lookup 77",
        "not from 10.0.0.31 fwmark 0x1/0x7f iif eth0 lookup main",
    ];
    for (n, rule) in (700..).zip(&given) {
        lab.show(&format!(
            "ip rule add pref {n} {}",
            rule.replace("from all", "")
        ));
    }
    let rules = socket_in(&lab.host).rules(Family::V4).unwrap();
    let ours = rules
        .iter()
        .filter(|rule| (700..710).contains(&rule.priority));
    let shown: Vec<_> = ours.map(Rule::to_string).collect();
    assert_eq!(shown, lab.show("ip rule | grep '^7'"));
    assert!(
        given
            .iter()
            .zip(&shown)
            .all(|(rule, line)| line.ends_with(rule)),
        "{shown:?}"
    );
}

#[test]
fn the_other_end_of_a_pods_link_is_known_without_entering_the_pod() {
    let lab = Lab::new();
    let pod = netns();
    let end = |name, mac| End {
        name,
        mtu: None,
        mac: Some(mac),
        group: 0,
        up: false,
    };
    let told = lab
        .host
        .run(|| {
            let mut socket = Socket::open().unwrap();
            let pair = link::add_veth(
                &end("eni0", mac(8)),
                &end("eth0", mac(9)),
                Some(pod.as_fd()),
            );
            socket.apply(&pair).unwrap();
            let mut own = Socket::open_in(&pod).unwrap();
            let eth0 = own.link_by_name("eth0").unwrap().unwrap().index;
            for address in ["10.0.3.7", "2600:1f14::7"] {
                let address: IpAddr = address.parse().unwrap();
                own.apply(&addr::add(&Address::host(eth0, address)))
                    .unwrap();
            }
            keep_only_net_admin();
            let mut socket = Socket::open().unwrap();
            let near = socket.link_by_name("eni0").unwrap().unwrap();
            let far = socket.peer_of(&near).unwrap();
            let ours = socket.links_with_programs().unwrap();
            let inside = [Family::V4, Family::V6]
                .map(|family| socket.peer_addresses(&near, family).unwrap());
            (
                far.and_then(|far| far.mac),
                ours.contains(&near.index),
                inside,
            )
        })
        .unwrap();
    let inside = ["10.0.3.7", "2600:1f14::7"].map(|a| Some(vec![a.parse().unwrap()]));
    assert_eq!(told, (Some(mac(9)), false, inside));
}

#[test]
fn a_link_with_programs_is_told_from_one_without() {
    let mut lab = Lab::new();
    lab.show("ip link add eni0 type veth peer name p; tc qdisc add dev eni0 clsact");
    let told = lab.on_host(|socket| {
        let with = socket.link_by_name("eni0").unwrap().unwrap().index;
        (socket.links_with_programs().unwrap(), with)
    });
    assert_eq!(told.0, [told.1].into());
}

#[test]
fn chains_of_egress_cni_end_with_their_pods() {
    let mut lab = Lab::new();
    lab.on_host(|socket| prepare(socket, &config()).map(drop).unwrap());
    let (mut reconciler, _) = started(&mut lab);
    lab.show(EGRESS);
    let release = |lab: &mut Lab, reconciler: &mut Reconciler| {
        lab.on_host(|_| reconciler.release_egress_cni().unwrap())
    };
    let pod = |n| [IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0xac, n])];
    let chains = |lab: &Lab| lab.show("ip6tables-nft-save -t nat | grep -o '^:CNI-E6[^ ]*'");
    assert_eq!(release(&mut lab, &mut reconciler), pod(6));
    assert_eq!(chains(&lab), [":CNI-E6-e0f4d3ba1b5c0d83fb05"]);
    assert_eq!(release(&mut lab, &mut reconciler), Vec::<IpAddr>::new());
    lab.show("ip link del pod");
    assert_eq!(release(&mut lab, &mut reconciler), pod(5));
    assert_eq!(
        lab.show("ip6tables-nft-save -t nat | grep CNI || true"),
        [""; 0]
    );
}
