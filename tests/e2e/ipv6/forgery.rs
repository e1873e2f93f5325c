//! What a malicious pod with all privileges in its own namespace can send, and its effect.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddrV6},
    os::fd::{AsRawFd, OwnedFd},
    process::Command,
    time::Duration,
};

use datapath::netlink::{
    self, Socket,
    addr::{self, Address},
    route::{self, Route},
};
use lab::{
    node::{Node, Pod},
    traffic::ping::ping,
};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, recvfrom,
        sendto, setsockopt, socket,
        sockopt::{Ipv6MulticastHops, ReceiveTimeout},
    },
    time::TimeVal,
};

use crate::{
    suite::{Outcome, trials},
    support::ipv6::{LIMIT, SIX, pods, start},
};

trials!(
    another_pods_source_address_is_dropped,
    a_pod_has_no_ipv4_to_send_from,
    router_messages_from_pods_are_dropped,
);

const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// An ICMPv6 type for experiments (RFC 4443): the kernel ignores it, raw sockets receive it.
const MARKER: u8 = 200;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Adds an address to the pod's link, like root in a pod.
fn take(pod: &Pod, address: IpAddr) -> Result<u32, netlink::Error> {
    let mut socket = Socket::open_in(&pod.netns)?;
    let index = socket.link_by_name("eth0")?.map_or(0, |link| link.index);
    socket.apply(&addr::add(&Address::host(index, address)))?;
    if address.is_ipv6() {
        socket.apply(&route::add(&Route::own(address, index)))?;
    }
    Ok(index)
}

fn another_pods_source_address_is_dropped() -> Outcome {
    let lab = start()?;
    let (a, b) = (lab.node("m5.large", &SIX)?, lab.node("m5.large", &SIX)?);
    let (on_a, on_b) = (pods(&a, 3)?, pods(&b, 1)?);
    let (victim, thief) = (on_a[0].address(), &on_a[1]);
    // On the same node; packets from the attacker to the victim itself stay in its own namespace from now on.
    let near = on_a[2].address();
    let stranger: IpAddr = "2600:1f14:abc:de00:ffff::1".parse()?;
    for forged in [victim, stranger] {
        take(thief, forged)?;
    }
    for target in [on_b[0].address(), near] {
        let honest = ping(&thief.netns, Some(thief.address()), target, LIMIT)?;
        assert!(honest.is_some(), "its own address must work");
    }
    for (target, forged) in [
        (on_b[0].address(), victim),
        (on_b[0].address(), stranger),
        (near, victim),
        (near, stranger),
        (
            a.instance.ipv6.expect("the lab's nodes have one").into(),
            stranger,
        ),
    ] {
        let answer = ping(
            &thief.netns,
            Some(forged),
            target,
            Duration::from_millis(300),
        )?;
        assert!(answer.is_none(), "{forged} reached {target}");
        let packets = arrivals(&a, &thief.netns, forged, target)?;
        assert_eq!(packets, 0, "{forged} to {target} was forwarded");
    }
    Ok(())
}

/// How many packets of one forged ping the node's connection tracking has seen, which comes after the check: a missing
/// reply proves nothing.
fn arrivals(
    node: &Node,
    netns: &datapath::netns::Netns,
    forged: IpAddr,
    target: IpAddr,
) -> io::Result<usize> {
    let count = |rule: &str| -> io::Result<String> {
        let output = node
            .netns()
            .run(|| Command::new("nft").args(rule.split(' ')).output())??;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    count("add table ip6 watch")?;
    count("add chain ip6 watch seen { type filter hook prerouting priority 0 ; }")?;
    count(&format!(
        "add rule ip6 watch seen ip6 saddr {forged} counter"
    ))?;
    ping(netns, Some(forged), target, Duration::from_millis(100))?;
    let listed = count("list table ip6 watch")?;
    count("delete table ip6 watch")?;
    assert!(
        listed.contains("counter packets"),
        "nothing was counted: {listed}"
    );
    Ok(usize::from(!listed.contains("counter packets 0 ")))
}

fn a_pod_has_no_ipv4_to_send_from() -> Outcome {
    let lab = start()?;
    let node = lab.node("m5.large", &SIX)?;
    let pod = node.add_pod("pod")?;
    let forged = IpAddr::from([10, 0, 3, 4]);
    let index = take(&pod, forged)?;
    let mut inside = Socket::open_in(&pod.netns)?;
    let node_address = IpAddr::V4(node.instance.address);
    let hop = Route::link(ipnet::IpNet::from(node_address), index, route::MAIN);
    inside.apply(&route::add(&hop))?;
    let answer = ping(
        &pod.netns,
        Some(forged),
        node_address,
        Duration::from_millis(300),
    )?;
    assert!(answer.is_none(), "IPv4 of a pod that has none got through");
    Ok(())
}

/// A raw ICMPv6 socket in the calling thread's namespace.
fn raw() -> io::Result<OwnedFd> {
    let (family, flags) = (AddressFamily::Inet6, SockFlag::SOCK_CLOEXEC);
    let fd = socket(family, SockType::Raw, flags, SockProtocol::IcmpV6)?;
    setsockopt(&fd, ReceiveTimeout, &TimeVal::new(5, 0))?;
    Ok(fd)
}

/// Sends one message of this type from `source` to all nodes on the pod's link.
fn say(pod: &Pod, index: u32, source: Ipv6Addr, kind: u8) -> io::Result<()> {
    pod.netns.run(|| {
        let fd = raw()?;
        setsockopt(&fd, Ipv6MulticastHops, &255)?;
        bind(
            fd.as_raw_fd(),
            &SockaddrIn6::from(SocketAddrV6::new(source, 0, 0, index)),
        )?;
        let all = SockaddrIn6::from(SocketAddrV6::new(ALL_NODES, 0, 0, index));
        // For an advertisement, the rest means: use this router for half an hour.
        let mut message = [0; 16];
        message[0] = kind;
        message[6..8].copy_from_slice(&1800_u16.to_be_bytes());
        sendto(fd.as_raw_fd(), &message, &all, MsgFlags::empty())?;
        Ok(())
    })?
}

/// The types of what `ear` receives up to and including the next marker.
fn heard(ear: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut kinds = Vec::new();
    let mut buffer = [0; 256];
    while kinds.last() != Some(&MARKER) {
        recvfrom::<SockaddrIn6>(ear.as_raw_fd(), &mut buffer)?;
        kinds.push(buffer[0]);
    }
    Ok(kinds)
}

/// Router advertisements and redirects need a link-local source, and a pod's link has no route to one. That the rule
/// drops them is shown by removing it. Then the kernel receives them, but still ignores advertisements, because the
/// node is a router on the pod's link. This is shown by changing the link's setting.
fn router_messages_from_pods_are_dropped() -> Outcome {
    let lab = start()?;
    let mut node = lab.node("m5.large", &SIX)?;
    let pod = node.add_pod("pod")?;
    let IpAddr::V6(own) = pod.address() else {
        return Err("the pod's address is not IPv6".into());
    };
    let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad);
    let index = take(&pod, router.into())?;
    let ear = node.netns().run(raw)??;
    let forged = [ROUTER_ADVERTISEMENT, NEIGHBOUR_ADVERTISEMENT, REDIRECT];
    let say_all = || -> io::Result<()> {
        for kind in forged {
            say(&pod, index, router, kind)?;
        }
        say(&pod, index, own, MARKER)
    };
    say_all()?;
    let kinds = heard(&ear)?;
    assert!(forged.iter().all(|kind| !kinds.contains(kind)), "{kinds:?}");

    // It would restore the rule.
    node.kill_daemon()?;
    node.shell("nft delete table ip6 hawser")?;
    say_all()?;
    let kinds = heard(&ear)?;
    assert!(forged.iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    let by_pod = || -> io::Result<bool> {
        let routes = node.shell("ip -6 route show default")?;
        Ok(routes.contains("dev eni"))
    };
    assert!(!by_pod()?, "the node's way out leads to a pod");
    node.shell("for d in /proc/sys/net/ipv6/conf/eni*; do echo 2 > $d/accept_ra; done")?;
    say_all()?;
    heard(&ear)?;
    assert!(by_pod()?, "what was sent is no advertisement");
    Ok(())
}
