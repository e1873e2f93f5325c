//! Pods and the instance metadata service: open by default, as with the AWS VPC CNI, and shut by one setting.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket},
    time::Duration,
};

use datapath::{constants::INSTANCE_METADATA, netlink::Socket, netns::Netns};
use e2e::{
    ether::Capture,
    lab::Lab,
    node::{Node, Pod},
    ping::ping,
};
use vpc_sim::SimConfig;

use crate::{Outcome, trials};

trials!(
    pods_reach_the_metadata_service_by_default,
    pods_are_kept_from_the_metadata_service_by_one_setting,
);

const LIMIT: Duration = Duration::from_secs(10);
const BRIEFLY: Duration = Duration::from_millis(700);

struct Scene {
    _lab: Lab,
    node: Node,
    /// On the primary ENI and on a secondary one.
    pods: [Pod; 2],
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
    })
}

/// Whether a connection to the service comes about from `netns`.
fn connects(netns: &Netns, limit: Duration) -> io::Result<bool> {
    let service = SocketAddrV4::new(INSTANCE_METADATA, 80).into();
    Ok(netns
        .run(|| TcpStream::connect_timeout(&service, limit))?
        .is_ok())
}

/// How many packets for the service left the node by an ENI after a pod has sent it a datagram of many fragments.
fn fragments_that_leave(scene: &Scene, pod: &Pod) -> io::Result<usize> {
    let links = scene.node.netns().run(|| Socket::open()?.links())?;
    let links = links.map_err(io::Error::other)?;
    let enis = links.iter().filter(|link| link.name.starts_with("eth"));
    let enis: Vec<usize> = enis.map(|link| link.index as usize).collect();
    let capture = Capture::start(scene.node.netns())?;
    pod.netns.run(|| -> io::Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(&[0; 30_000], SocketAddrV4::new(INSTANCE_METADATA, 9))?;
        Ok(())
    })??;
    // What a pod sends is worked through in order: after an answer to this, the fragments have had their fate.
    let alive = ping(&pod.netns, None, scene.node.instance.address, LIMIT)?;
    assert!(alive.is_some(), "the pod does not reach its node");
    let to_service = |frame: &[u8]| {
        frame.get(12..14) == Some(&[8, 0]) && frame.get(30..34) == Some(&INSTANCE_METADATA.octets())
    };
    let seen = capture.seen()?;
    let left = seen
        .iter()
        .filter(|seen| enis.contains(&seen.link) && to_service(&seen.frame));
    Ok(left.count())
}

fn pods_reach_the_metadata_service_by_default() -> Outcome {
    let scene = scene(&[])?;
    for pod in &scene.pods {
        assert!(connects(&pod.netns, LIMIT)?, "from {}", pod.address());
        assert!(fragments_that_leave(&scene, pod)? >= 3);
    }
    Ok(())
}

fn pods_are_kept_from_the_metadata_service_by_one_setting() -> Outcome {
    let scene = scene(&[("HAWSER_BLOCK_POD_IMDS", "true")])?;
    // By another address, as a service could lead there.
    let alias = Ipv4Addr::new(172, 20, 0, 77);
    scene.node.shell(&format!(
        "nft 'add table ip theirs; add chain ip theirs alias {{ type nat hook prerouting priority dstnat; }}; \
         add rule ip theirs alias ip daddr {alias} dnat to {INSTANCE_METADATA}'"
    ))?;
    for pod in &scene.pods {
        assert!(!connects(&pod.netns, BRIEFLY)?, "from {}", pod.address());
        assert_eq!(ping(&pod.netns, None, INSTANCE_METADATA, BRIEFLY)?, None);
        assert_eq!(ping(&pod.netns, None, alias, BRIEFLY)?, None);
        assert_eq!(fragments_that_leave(&scene, pod)?, 0);
    }
    // The node itself, which needs it, and all else stay as they are.
    assert!(connects(scene.node.netns(), LIMIT)?);
    let [a, b] = &scene.pods;
    assert!(ping(&a.netns, None, b.address(), LIMIT)?.is_some());
    assert!(ping(&b.netns, None, vpc_sim::fabric::INTERNET_ADDRESS, LIMIT)?.is_some());
    Ok(())
}
