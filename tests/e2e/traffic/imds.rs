//! Pods and the instance metadata service: reachable by default, as with the AWS VPC CNI, and blocked by one setting.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use datapath::{
    constants::{INSTANCE_METADATA, INSTANCE_METADATA_V6},
    netlink::Socket,
    netns::Netns,
};
use lab::{
    Lab,
    node::{Node, Pod},
    traffic::{ether::Capture, ping::ping},
};
use vpc_sim::{
    SimConfig,
    fabric::{INTERNET_ADDRESS, INTERNET_ADDRESS_V6},
};

use crate::{
    suite::{Outcome, trials},
    support::ipv6,
};

trials!(
    pods_reach_the_metadata_service_by_default,
    pods_are_kept_from_the_metadata_service_by_one_setting,
    pods_with_ipv6_reach_it_over_that_by_default,
    pods_with_ipv6_are_kept_from_it_by_one_setting,
);

const LIMIT: Duration = Duration::from_secs(10);
const BRIEFLY: Duration = Duration::from_millis(700);

struct Scene {
    _lab: Lab,
    node: Node,
    /// In IPv4, on the primary ENI and on a secondary one.
    pods: [Pod; 2],
    service: IpAddr,
}

fn scene(settings: &[(&str, &str)]) -> io::Result<Scene> {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", settings)?;
    let first = node.add_pod("pod0")?;
    let _others = (node.add_pod("pod1")?, node.add_pod("pod2")?);
    let last = node.add_pod("pod3")?;
    Ok(Scene {
        _lab: lab,
        node,
        pods: [first, last],
        service: INSTANCE_METADATA.into(),
    })
}

fn scene_in_ipv6(settings: &[(&str, &str)]) -> io::Result<Scene> {
    let lab = ipv6::start()?;
    let node = lab.node("t3.small", &[&ipv6::SIX[..], settings].concat())?;
    let pods = [node.add_pod("pod0")?, node.add_pod("pod1")?];
    Ok(Scene {
        _lab: lab,
        node,
        pods,
        service: INSTANCE_METADATA_V6.into(),
    })
}

/// Whether `netns` can connect to the service.
fn connects(netns: &Netns, service: IpAddr, limit: Duration) -> io::Result<bool> {
    let service = SocketAddr::from((service, 80));
    Ok(netns
        .run(|| TcpStream::connect_timeout(&service, limit))?
        .is_ok())
}

/// Whether `frame` is a packet to this address.
fn is_to(frame: &[u8], service: IpAddr) -> bool {
    match service {
        IpAddr::V4(ip) => {
            frame.get(12..14) == Some(&[8, 0]) && frame.get(30..34) == Some(&ip.octets())
        }
        IpAddr::V6(ip) => {
            frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(38..54) == Some(&ip.octets())
        }
    }
}

/// How many packets to the service left the node through an ENI after a pod has sent it a datagram with many fragments.
fn fragments_that_leave(scene: &Scene, pod: &Pod) -> io::Result<usize> {
    let links = scene.node.netns().run(|| Socket::open()?.links())?;
    let links = links.map_err(io::Error::other)?;
    let enis = links.iter().filter(|link| link.name.starts_with("eth"));
    let enis: Vec<usize> = enis.map(|link| link.index as usize).collect();
    let capture = Capture::start(scene.node.netns())?;
    pod.netns.run(|| -> io::Result<()> {
        let socket = UdpSocket::bind((pod.address(), 0))?;
        socket.send_to(&[0; 30_000], (scene.service, 9))?;
        Ok(())
    })??;
    // The kernel handles a pod's packets in order: after the answer to this one, the fragments have been handled.
    let alive = ping(&pod.netns, None, own(scene), LIMIT)?;
    assert!(alive.is_some(), "the pod does not reach its node");
    let seen = capture.seen()?;
    let left = seen
        .iter()
        .filter(|seen| enis.contains(&seen.link) && is_to(&seen.frame, scene.service));
    Ok(left.count())
}

/// The node's own address, of the service's family.
fn own(scene: &Scene) -> IpAddr {
    let instance = &scene.node.instance;
    match (scene.service, instance.ipv6) {
        (IpAddr::V6(_), Some(address)) => address.into(),
        _ => instance.address.into(),
    }
}

fn is_reached(scene: &Scene) -> Outcome {
    for pod in &scene.pods {
        let there = connects(&pod.netns, scene.service, LIMIT)?;
        assert!(there, "from {}", pod.address());
        assert!(fragments_that_leave(scene, pod)? >= 3);
    }
    Ok(())
}

/// `alias`: another address that leads to the service.
fn is_kept_away(scene: &Scene, alias: IpAddr, outside: IpAddr) -> Outcome {
    for pod in &scene.pods {
        let there = connects(&pod.netns, scene.service, BRIEFLY)?;
        assert!(!there, "from {}", pod.address());
        assert_eq!(ping(&pod.netns, None, scene.service, BRIEFLY)?, None);
        assert_eq!(ping(&pod.netns, None, alias, BRIEFLY)?, None);
        assert_eq!(fragments_that_leave(scene, pod)?, 0);
    }
    // The node itself, which needs the service, and everything else are not affected.
    assert!(connects(scene.node.netns(), scene.service, LIMIT)?);
    let [a, b] = &scene.pods;
    assert!(ping(&a.netns, None, b.address(), LIMIT)?.is_some());
    assert!(ping(&b.netns, None, outside, LIMIT)?.is_some());
    Ok(())
}

fn pods_reach_the_metadata_service_by_default() -> Outcome {
    is_reached(&scene(&[])?)
}

fn pods_are_kept_from_the_metadata_service_by_one_setting() -> Outcome {
    let scene = scene(&[("HAWSER_BLOCK_POD_IMDS", "true")])?;
    // Through another address, as a service could do.
    let alias = Ipv4Addr::new(172, 20, 0, 77);
    scene.node.shell(&format!(
        "nft 'add table ip theirs; add chain ip theirs alias {{ type nat hook prerouting priority dstnat; }}; \
         add rule ip theirs alias ip daddr {alias} dnat to {INSTANCE_METADATA}'"
    ))?;
    is_kept_away(&scene, alias.into(), INTERNET_ADDRESS.into())
}

fn pods_with_ipv6_reach_it_over_that_by_default() -> Outcome {
    is_reached(&scene_in_ipv6(&[])?)
}

fn pods_with_ipv6_are_kept_from_it_by_one_setting() -> Outcome {
    let scene = scene_in_ipv6(&[("HAWSER_BLOCK_POD_IMDS", "true")])?;
    let alias = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 0x77);
    scene.node.shell(&format!(
        "nft 'add table ip6 theirs; add chain ip6 theirs alias {{ type nat hook prerouting priority dstnat; }}; \
         add rule ip6 theirs alias ip6 daddr {alias} dnat to {INSTANCE_METADATA_V6}'"
    ))?;
    is_kept_away(&scene, alias.into(), INTERNET_ADDRESS_V6.into())?;
    // In the other family, the pod has no address to connect from.
    let pod = &scene.pods[0].netns;
    let four = connects(pod, INSTANCE_METADATA.into(), BRIEFLY)?;
    assert!(!four);
    Ok(())
}
