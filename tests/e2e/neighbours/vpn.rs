//! VPN clients on the node: Tailscale and WireGuard's wg-quick, with the rules, routes and chains that they add.

use std::{io, net::UdpSocket, time::Duration};

use lab::{
    node::inspect::inspect,
    traffic::node_pair::{Endpoint, LIMIT, NodePair},
    wait::eventually,
};

use crate::suite::{Outcome, trials};

trials!(
    pods_keep_their_ways_beside_tailscale,
    pods_keep_their_ways_beside_wireguard,
    a_wireguard_that_is_added_later_is_told_and_no_pod_starts_without_a_network,
);

/// `tailscale up --exit-node … --accept-routes`, where another node offers the VPC's block. `netfilter` mode `on`.
const TAILSCALE: &str = "ip link add tailscale0 up type veth peer name other; ip addr add 100.101.102.103/32 dev tailscale0; \
    ip rule add pref 5210 fwmark 0x80000/0xff0000 lookup main; \
    ip rule add pref 5230 fwmark 0x80000/0xff0000 lookup default; \
    ip rule add pref 5250 fwmark 0x80000/0xff0000 type unreachable; \
    ip rule add pref 5270 lookup 52; \
    ip route add 100.100.100.100 dev tailscale0 table 52; ip route add 10.0.0.0/16 dev tailscale0 table 52; \
    ip route add default dev tailscale0 table 52; ip route add throw 127.0.0.0/8 table 52; \
    iptables -N ts-forward; iptables -I FORWARD -j ts-forward; \
    iptables -A ts-forward -i tailscale0 -j MARK --set-mark 0x40000/0xff0000; \
    iptables -A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT; \
    iptables -A ts-forward -s 100.64.0.0/10 -o tailscale0 -j DROP; \
    iptables -A ts-forward -o tailscale0 -j ACCEPT; \
    iptables -t nat -N ts-postrouting; iptables -t nat -I POSTROUTING -j ts-postrouting; \
    iptables -t nat -A ts-postrouting -m mark --mark 0x40000/0xff0000 -j MASQUERADE";

/// `wg-quick up` with `AllowedIPs = 0.0.0.0/0`, without its rules.
const WIREGUARD: &str = "ip link add wg0 up type veth peer name other; ip addr add 10.200.0.2/32 dev wg0; \
    ip route add 0.0.0.0/0 dev wg0 table 51820; echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark; \
    nft 'table ip wg-quick-wg0 { \
      chain preraw { type filter hook prerouting priority -300; \
        iifname != \"wg0\" ip daddr 10.200.0.2 fib saddr type != local drop; }; \
      chain premangle { type filter hook prerouting priority -150; meta l4proto udp meta mark set ct mark; }; \
      chain postmangle { type filter hook postrouting priority -150; \
        meta l4proto udp mark 51820 ct mark set mark; }; }'";

/// Pods on both ENIs, the other node, its pods, the internet and their own node reach each other as before.
fn keeps_its_ways(mut pair: NodePair, what: &str) -> Outcome {
    use Endpoint::{A, B, BPrimary, BSecondary, Internet};
    for pod in Endpoint::ON_A {
        for far in [B, BPrimary, BSecondary] {
            let (there, here) = (pair.at(far), pair.at(pod));
            pair.expect(what, pod, there, (far, pod));
            pair.expect(what, far, here, (pod, far));
        }
        let (internet, here, node) = (pair.at(Internet), pair.at(pod), pair.at(A));
        pair.expect(what, pod, internet, (Internet, A));
        pair.expect(what, A, here, (pod, A));
        pair.expect(what, pod, node, (A, pod));
        let datagram = datagram(&pair, pod);
        pair.note(&format!("{what}: a datagram of {pod:?}"), datagram);
    }
    Ok(pair.verdict()?)
}

/// One to the other node and back: some VPN clients treat UDP differently.
fn datagram(pair: &NodePair, pod: Endpoint) -> io::Result<()> {
    let bound = |who| -> io::Result<UdpSocket> {
        let address = pair.address(who);
        let socket = pair
            .netns(who)
            .run(move || UdpSocket::bind((address, 7000)))??;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(socket)
    };
    let (here, there) = (bound(pod)?, bound(Endpoint::B)?);
    here.send_to(b"x", there.local_addr()?)?;
    let (_, from) = there.recv_from(&mut [0; 8])?;
    there.send_to(b"y", from)?;
    here.recv_from(&mut [0; 8])?;
    Ok(())
}

fn pods_keep_their_ways_beside_tailscale() -> Outcome {
    let pair = NodePair::start(&[])?;
    pair.a.shell(TAILSCALE)?;
    keeps_its_ways(pair, "Tailscale")
}

/// The kernel gives rules without a priority the lowest ones: on a node where the VPN comes up before Hawser.
fn pods_keep_their_ways_beside_wireguard() -> Outcome {
    let pair = NodePair::start(&[])?;
    pair.a.shell(WIREGUARD)?;
    pair.a.shell(
        "ip rule add pref 32765 not fwmark 51820 table 51820; \
         ip rule add pref 32764 table main suppress_prefixlength 0",
    )?;
    keeps_its_ways(pair, "wg-quick")
}

/// Rules that are added without a priority when Hawser's are there come before them, and decide for every packet.
fn a_wireguard_that_is_added_later_is_told_and_no_pod_starts_without_a_network() -> Outcome {
    let pair = NodePair::start(&[("WARM_IP_TARGET", "2")])?;
    let claimed = || {
        let snapshot = inspect(&pair.a.socket()).ok()?;
        let all = snapshot.enis.iter().flat_map(|eni| &eni.addresses);
        let (by_rule, free): (Vec<_>, Vec<_>) = all.partition(|a| a.foreign_rule > 0);
        Some((
            by_rule.len(),
            free.iter().filter(|a| a.state == "free").count(),
        ))
    };
    assert!(eventually(LIMIT, || claimed().is_some_and(|(_, free)| free > 0)));
    pair.a.shell(WIREGUARD)?;
    pair.a.shell(
        "ip rule add not fwmark 51820 table 51820; ip rule add table main suppress_prefixlength 0",
    )?;
    let all = || claimed().is_some_and(|(by_rule, free)| by_rule > 0 && free == 0);
    assert!(eventually(LIMIT, all), "{}", pair.a.log());
    assert!(
        pair.a
            .log()
            .contains("an ip rule of another program decides the way")
    );
    let (_netns, path) = pair.a.sandbox("late")?;
    let refused = pair
        .a
        .invocation("ADD", "late", Some(&path))
        .conf("deadlineSeconds", serde_json::json!(2))
        .run(pair.a.netns())?;
    assert!(!refused.succeeded(), "{refused:?}");
    assert!(
        refused.error_text().contains("kept from pods by the host"),
        "{refused:?}"
    );

    pair.a.shell(
        "ip rule del not fwmark 51820 table 51820; ip rule del table main suppress_prefixlength 0",
    )?;
    assert!(eventually(LIMIT, || claimed().is_some_and(|(by_rule, _)| by_rule == 0)));
    let pod = pair.a.add_pod("next")?;
    let far = pair.address(Endpoint::B);
    assert!(lab::traffic::ping::ping(&pod.netns, None, far, Duration::from_secs(10))?.is_some());
    Ok(())
}
