//! A pod with CAP_NET_RAW that forges its address, its MAC, its neighbours and routes. It has no effect.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use datapath::netlink::{Socket, link::Link};
use lab::{
    Lab,
    node::{Node, Pod},
    traffic::{
        ether::{self, BROADCAST, Capture, REPLY, REQUEST, Seen},
        ping::ping,
    },
    wait::eventually,
};
use nettypes::Mac;
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    fault_44_a_wrong_source_mac_has_no_effect,
    fault_44_arp_claims_have_no_effect,
    fault_44_arp_cannot_fill_the_neighbour_table,
    fault_44_packets_with_spoofed_sources_are_dropped,
    fault_44_redirects_and_router_advertisements_do_not_steer_the_node,
);

const LIMIT: Duration = Duration::from_secs(10);
const FORGED: Mac = Mac([2, 0xba, 0xad, 0, 0, 1]);
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 99, 99);

/// A node with a normal pod and one that forges packets, and a normal pod on another node.
struct Scene {
    _lab: Lab,
    node: Node,
    liar: Pod,
    victim: Pod,
    _elsewhere: Node,
    target: Pod,
    /// The two ends of the attacker's link.
    host_end: Link,
    pod_end: Link,
}

impl Scene {
    fn set() -> io::Result<Self> {
        let lab = Lab::start(SimConfig::default())?;
        let (node, elsewhere) = (lab.node("t3.small", &[])?, lab.node("t3.small", &[])?);
        let (liar, victim) = (node.add_pod("liar")?, node.add_pod("victim")?);
        let target = elsewhere.add_pod("target")?;
        let find = |name: &str| -> io::Result<Link> {
            let found = Socket::open().and_then(|mut socket| socket.link_by_name(name));
            let found = found.map_err(io::Error::other)?;
            found.ok_or_else(|| io::Error::other(format!("no link {name}")))
        };
        let pod_end = liar.netns.run(|| find("eth0"))??;
        let name = liar.added.json.pointer("/interfaces/0/name");
        let name = name.and_then(|name| name.as_str()).unwrap_or_default();
        let host_end = node.netns().run(|| find(name))??;
        let scene = Self {
            _lab: lab,
            node,
            liar,
            victim,
            _elsewhere: elsewhere,
            target,
            host_end,
            pod_end,
        };
        scene.everybody_is_well()?;
        Ok(scene)
    }

    fn mac(&self) -> Mac {
        self.pod_end.mac.unwrap_or_default()
    }

    fn gateway_mac(&self) -> Mac {
        self.host_end.mac.unwrap_or_default()
    }

    fn lie(&self, frames: &[Vec<u8>]) -> io::Result<()> {
        ether::send(&self.liar.netns, "eth0", frames)
    }

    /// Pods reach each other and the node, including the attacker without forged packets.
    fn everybody_is_well(&self) -> io::Result<()> {
        for (from, to) in [
            (&self.victim, self.target.ipv4()),
            (&self.target, self.victim.ipv4()),
            (&self.liar, self.victim.ipv4()),
            (&self.victim, self.liar.ipv4()),
            (&self.victim, self.node.instance.address),
        ] {
            let answer = ping(&from.netns, None, to, LIMIT)?;
            assert!(answer.is_some(), "{} does not reach {to}", from.ipv4());
        }
        Ok(())
    }

    /// The neighbour entries on every link of the node.
    fn neighbours(&self) -> io::Result<String> {
        // For learned entries, only the binding counts, not its age.
        self.node
            .shell("ip -4 neigh | sed 's/ \\(REACHABLE\\|STALE\\|DELAY\\|PROBE\\|ref.*\\|used.*\\)//g' | sort; ip -6 neigh | wc -l")
    }
}

fn fault_44_a_wrong_source_mac_has_no_effect() -> Outcome {
    let scene = Scene::set()?;
    let before = scene.neighbours()?;
    let capture = Capture::start(scene.node.netns())?;
    let datagram = ether::udp(scene.liar.ipv4(), scene.target.ipv4(), b"x");
    let victim_mac = mac_of(&scene.victim)?;
    let forged: Vec<_> = [FORGED, victim_mac, scene.gateway_mac()]
        .into_iter()
        .map(|mac| ether::frame(scene.gateway_mac(), mac, ether::IPV4, &datagram))
        .collect();
    scene.lie(&forged)?;
    scene.everybody_is_well()?;
    assert_eq!(scene.neighbours()?, before);
    // The frames ended at the host's end: no other link has seen these MACs as a source.
    let elsewhere = |seen: &&Seen| seen.link != scene.host_end.index as usize;
    let from = |seen: &Seen| seen.frame.get(6..12).map(<[u8]>::to_vec);
    let seen = capture.seen()?;
    assert!(!seen.is_empty());
    let leaked = seen
        .iter()
        .filter(elsewhere)
        .filter(|seen| from(seen) == Some(FORGED.0.to_vec()));
    assert_eq!(leaked.collect::<Vec<_>>(), Vec::<&Seen>::new());
    Ok(())
}

fn mac_of(pod: &Pod) -> io::Result<Mac> {
    let link = pod.netns.run(|| Socket::open()?.link_by_name("eth0"))?;
    let link = link.map_err(io::Error::other)?;
    Ok(link.and_then(|link| link.mac).unwrap_or_default())
}

fn fault_44_arp_claims_have_no_effect() -> Outcome {
    let scene = Scene::set()?;
    let before = scene.neighbours()?;
    let (capture, on_node) = (
        Capture::start(&scene.liar.netns)?,
        Capture::start(scene.node.netns())?,
    );
    let node = scene.node.instance.address;
    let claimed = [
        scene.victim.ipv4(),
        scene.target.ipv4(),
        node,
        Ipv4Addr::new(169, 254, 1, 1),
        // The subnet's router.
        Ipv4Addr::new(10, 0, 0, 1),
        STRANGER,
    ];
    let mut claims = Vec::new();
    for ip in claimed {
        for mac in [scene.mac(), FORGED] {
            claims.push(ether::arp(REQUEST, BROADCAST, mac, ip, node));
            claims.push(ether::arp(REPLY, scene.gateway_mac(), mac, ip, node));
            // Gratuitous: a request and a reply for its own address.
            claims.push(ether::arp(REQUEST, BROADCAST, mac, ip, ip));
            claims.push(ether::arp(REPLY, BROADCAST, mac, ip, ip));
        }
    }
    scene.lie(&claims)?;
    scene.everybody_is_well()?;
    assert_eq!(scene.neighbours()?, before);
    // Nothing answered, and nothing was forwarded.
    let is_arp = |seen: &Seen| seen.frame.get(12..14) == Some(&ether::ARP.to_be_bytes()[..]);
    let sent_by_us = |seen: &Seen| {
        let from = seen.frame.get(6..12).unwrap_or_default();
        [scene.mac(), FORGED].iter().any(|mac| from == mac.0)
    };
    let answered = capture.seen()?;
    let answered = answered.iter().filter(|s| is_arp(s) && !sent_by_us(s));
    assert_eq!(answered.collect::<Vec<_>>(), Vec::<&Seen>::new());
    let passed_on = on_node.seen()?;
    let passed_on = passed_on
        .iter()
        .filter(|s| is_arp(s) && sent_by_us(s) && s.link != scene.host_end.index as usize);
    assert_eq!(passed_on.collect::<Vec<_>>(), Vec::<&Seen>::new());
    Ok(())
}

/// Each entry uses memory of the node, and a full table stops every pod that needs a new entry.
fn fault_44_arp_cannot_fill_the_neighbour_table() -> Outcome {
    let scene = Scene::set()?;
    let node = scene.node.instance.address;
    // If the machine weakens the source check, the kernel's own ARP would learn all of them.
    scene
        .node
        .shell("sysctl -qw net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.all.arp_accept=1")?;
    let before = scene.neighbours()?;
    let flood: Vec<_> = (0..2000_u32)
        .map(|n| {
            let ip = Ipv4Addr::from(0x0a00_8000 + n);
            ether::arp(REQUEST, BROADCAST, scene.mac(), ip, node)
        })
        .collect();
    scene.lie(&flood)?;
    scene.everybody_is_well()?;
    assert_eq!(scene.neighbours()?, before);
    Ok(())
}

fn fault_44_packets_with_spoofed_sources_are_dropped() -> Outcome {
    let scene = Scene::set()?;
    let node = scene.node.instance.address;
    let places = [
        (&scene.target.netns, scene.target.ipv4()),
        (&scene.victim.netns, scene.victim.ipv4()),
        (scene.node.netns(), node),
    ];
    for loose in [false, true] {
        if loose {
            // As on some distributions: nftables then do the pods' strict check, from the next repair on.
            scene
                .node
                .shell("sysctl -qw net.ipv4.conf.all.rp_filter=2")?;
            let checked = || {
                let table = scene.node.shell("nft list table ip hawser");
                table.is_ok_and(|table| table.contains("fib saddr . iif oif missing drop"))
            };
            assert!(eventually(LIMIT, checked), "{}", scene.node.log());
        }
        for (netns, address) in places {
            let inbox = netns.run(|| UdpSocket::bind((address, 7000)))??;
            inbox.set_read_timeout(Some(LIMIT))?;
            let claimed = [scene.victim.ipv4(), scene.target.ipv4(), STRANGER, node];
            let honest = scene.liar.ipv4();
            let frames: Vec<_> = claimed
                .into_iter()
                .chain([honest])
                .map(|from| {
                    let datagram = ether::udp(from, address, &from.octets());
                    ether::frame(scene.gateway_mac(), scene.mac(), ether::IPV4, &datagram)
                })
                .collect();
            scene.lie(&frames)?;
            // The valid datagram was sent last: any other that passed would have arrived before it.
            let mut data = [0; 4];
            inbox.recv(&mut data)?;
            assert_eq!(Ipv4Addr::from(data), honest, "at {address}, loose {loose}");
        }
    }
    Ok(())
}

fn fault_44_redirects_and_router_advertisements_do_not_steer_the_node() -> Outcome {
    let scene = Scene::set()?;
    let node = scene.node.instance.address;
    // Even if the machine accepts redirects.
    scene.node.shell(
        "cd /proc/sys/net; echo 1 > ipv4/conf/all/accept_redirects; echo 0 > ipv4/conf/all/secure_redirects; \
         echo 0 > ipv6/conf/all/forwarding",
    )?;
    let ways = "for ip in 10.0.0.1 203.0.113.9; do ip -o route get $ip; done; ip -6 route show default; ip -6 addr show scope global";
    let before = scene.node.shell(ways)?;
    let gateway = scene.liar.ipv4();
    let mut frames = vec![ether::router_advertisement(scene.mac())];
    for destination in [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(203, 0, 113, 9)] {
        for from in [
            gateway,
            Ipv4Addr::new(169, 254, 1, 1),
            Ipv4Addr::new(10, 0, 0, 1),
        ] {
            let redirect = ether::redirect(from, node, destination, gateway);
            frames.push(ether::frame(
                scene.gateway_mac(),
                scene.mac(),
                ether::IPV4,
                &redirect,
            ));
        }
    }
    scene.lie(&frames)?;
    // The kernel handles a pod's packets in order: when this one is answered, the others have been handled.
    scene.everybody_is_well()?;
    assert_eq!(scene.node.shell(ways)?, before);
    Ok(())
}
