//! Addresses of an ENI that the node itself uses, before the daemon starts and while it runs.

use std::{io, net::Ipv4Addr, time::Duration};

use lab::{
    Lab,
    node::{Node, count},
    traffic::ping::ping,
    wait::eventually,
};
use vpc_sim::{LaunchInstance, SimConfig, world::request::Pick};

use crate::suite::{Outcome, trials};

trials!(case_27_no_pod_gets_an_address_that_the_node_uses);

const LIMIT: Duration = Duration::from_secs(10);

/// The instance was launched with three more addresses, and an administrator configured them on the primary interface.
fn case_27_no_pod_gets_an_address_that_the_node_uses() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = node_with_three_more(&lab)?;
    let extra = extra_addresses(&lab);
    assert_eq!(extra.len(), 3);
    for address in &extra {
        node.shell(&format!("ip addr add {address}/20 dev eth0"))?;
    }
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let pods: Vec<_> = (0..5)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect::<io::Result<_>>()?;
    for pod in &pods {
        assert!(!extra.contains(&pod.ipv4()), "{}", pod.ipv4());
        assert!(ping(node.netns(), None, pod.address(), LIMIT)?.is_some());
    }
    assert_eq!(count(&node, "quarantined")?, 3, "{}", node.log());
    // An address that the node drops can serve pods.
    node.shell(&format!("ip addr del {}/20 dev eth0", extra[0]))?;
    assert!(eventually(LIMIT, || {
        count(&node, "quarantined").is_ok_and(|quarantined| quarantined == 2)
    }));
    Ok(())
}

fn node_with_three_more(lab: &Lab) -> io::Result<Node> {
    let launch = LaunchInstance {
        instance_type: "m5.large".to_owned(),
        ipv4: Pick::Count(3),
        ..LaunchInstance::default()
    };
    let instance = lab.sim.launch_instance(launch).map_err(io::Error::other)?;
    Node::new(instance, lab.dir().join("extra"), &[])
}

/// The addresses of the instance's only ENI that are not its primary address.
fn extra_addresses(lab: &Lab) -> Vec<Ipv4Addr> {
    let world = lab.sim.world();
    let all = world.interfaces().flat_map(|eni| eni.ipv4[1..].to_vec());
    all.collect()
}
