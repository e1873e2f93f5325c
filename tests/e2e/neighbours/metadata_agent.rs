//! Agents that answer pods in place of the instance metadata service, like kube2iam and kiam.

use std::{io, net::SocketAddr, time::Duration};

use datapath::constants::INSTANCE_METADATA;
use lab::{
    Lab,
    traffic::tcp_probe::{Listener, TcpConnection},
};
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    an_agent_answers_pods_in_place_of_the_metadata_service,
    an_agent_answers_pods_that_are_kept_from_the_metadata_service,
);

const LIMIT: Duration = Duration::from_secs(10);
const PORT: u16 = 8181;

fn an_agent_answers_pods_in_place_of_the_metadata_service() -> Outcome {
    agent_answers(&[])
}

fn an_agent_answers_pods_that_are_kept_from_the_metadata_service() -> Outcome {
    agent_answers(&[("HAWSER_BLOCK_POD_IMDS", "true")])
}

/// The rule is kube2iam's, with `--iptables=true --host-interface=eni+`.
fn agent_answers(settings: &[(&str, &str)]) -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", settings)?;
    let own = node.instance.address;
    let _agent = Listener::start(node.netns(), (own, PORT).into(), "agent")?;
    node.shell(&format!(
        "iptables -t nat -A PREROUTING -p tcp -d {INSTANCE_METADATA}/32 --dport 80 -i eni+ \
         -j DNAT --to-destination {own}:{PORT}"
    ))?;
    // Three addresses on the primary ENI: the last pod is on a secondary one.
    let pods = (0..4).map(|n| node.add_pod(&format!("pod{n}")));
    let pods = pods.collect::<io::Result<Vec<_>>>()?;
    let service: SocketAddr = (INSTANCE_METADATA, 80).into();
    for pod in [&pods[0], &pods[3]] {
        let mut connection = TcpConnection::start(&pod.netns, None, service, LIMIT)
            .map_err(|error| format!("from {}: {error}\n{}", pod.address(), node.log()))?;
        assert_eq!(connection.with, "agent");
        assert_eq!(connection.seen_as.ip(), pod.address());
        connection.echoes()?;
    }
    Ok(())
}
