//! NodePorts: from outside and from within the VPC, to pods of this node and of the other one, on primary and secondary
//! ENIs, with both traffic policies. The answer must leave through the ENI of the request.

use std::net::SocketAddr;

use lab::traffic::{
    capture,
    kube_proxy::{Proxy, Service, program},
    node_pair::{Endpoint, NodePair},
    tcp_probe::TcpConnection,
};

use crate::suite::{Outcome, trials};

trials!(
    a_node_port_leads_to_pods_of_this_node_and_of_the_other,
    without_node_port_support_only_the_primary_enis_pods_answer,
    node_ports_need_no_translation_on_the_node,
);

/// One port of node `a` for each of `endpoints`, from 30000 on.
fn node_ports(pair: &NodePair, endpoints: &[Endpoint], masquerade: bool) -> Vec<Service> {
    let service = |(port, who): (u16, &Endpoint)| Service {
        at: SocketAddr::from((pair.address(Endpoint::A), port)),
        endpoint: pair.at(*who),
        masquerade,
    };
    (30000..).zip(endpoints).map(service).collect()
}

fn a_node_port_leads_to_pods_of_this_node_and_of_the_other() -> Outcome {
    let mut pair = NodePair::start(&[])?;
    for proxy in Proxy::ALL {
        // externalTrafficPolicy: Local uses only pods of the node, which see the client.
        let local = node_ports(&pair, &Endpoint::ON_A, false);
        program(pair.a.netns(), proxy, &local)?;
        for (service, pod) in local.iter().zip(Endpoint::ON_A) {
            for client in [Endpoint::Internet, Endpoint::B, Endpoint::BSecondary] {
                pair.expect(
                    &format!("{proxy:?}, Local"),
                    client,
                    service.at,
                    (pod, client),
                );
            }
        }
        // Cluster: uses any pod, which sees the node.
        let everywhere = [
            Endpoint::APrimary,
            Endpoint::ASecondary,
            Endpoint::BPrimary,
            Endpoint::BSecondary,
        ];
        let cluster = node_ports(&pair, &everywhere, true);
        program(pair.a.netns(), proxy, &cluster)?;
        for (service, pod) in cluster.iter().zip(everywhere) {
            for client in [Endpoint::Internet, Endpoint::B] {
                pair.expect(
                    &format!("{proxy:?}, Cluster"),
                    client,
                    service.at,
                    (pod, Endpoint::A),
                );
            }
        }
    }
    // Answers to NodePorts leave only through the primary ENI; the verdict requires traffic on the other one too.
    let to = pair.at(Endpoint::B);
    pair.expect(
        "a pod",
        Endpoint::ASecondary,
        to,
        (Endpoint::B, Endpoint::ASecondary),
    );
    Ok(pair.verdict()?)
}

/// Proves that the chain and the clause cause this, and checks the AWS VPC CNI's meaning of the setting.
fn without_node_port_support_only_the_primary_enis_pods_answer() -> Outcome {
    let mut pair = NodePair::start(&[("AWS_VPC_CNI_NODE_PORT_SUPPORT", "false")])?;
    let ports = node_ports(&pair, &Endpoint::ON_A, false);
    program(pair.a.netns(), Proxy::Iptables, &ports)?;
    pair.expect(
        "the primary's",
        Endpoint::Internet,
        ports[0].at,
        (Endpoint::APrimary, Endpoint::Internet),
    );
    for pod in Endpoint::ON_A {
        let to = pair.at(Endpoint::Internet);
        pair.expect("off the VPC", pod, to, (Endpoint::Internet, Endpoint::A));
        let to = pair.at(Endpoint::B);
        pair.expect("in the VPC", pod, to, (Endpoint::B, pod));
    }
    pair.verdict()?;
    let patience = std::time::Duration::from_millis(700);
    let call = TcpConnection::start(pair.netns(Endpoint::Internet), None, ports[1].at, patience);
    assert!(call.is_err(), "the fabric let the answer through");
    let strays = capture::strays(&pair.lab, &pair.packets()?);
    let by_its_own_eni = |eni| strays.iter().any(|stray| stray.eni == eni);
    assert!(
        by_its_own_eni(pair.secondary()),
        "the answer left by another way than expected: {strays:?}"
    );
    Ok(())
}

fn node_ports_need_no_translation_on_the_node() -> Outcome {
    let mut pair = NodePair::start(&[("AWS_VPC_K8S_CNI_EXTERNALSNAT", "true")])?;
    let ports = node_ports(&pair, &Endpoint::ON_A, false);
    program(pair.a.netns(), Proxy::Nftables, &ports)?;
    for (service, pod) in ports.iter().zip(Endpoint::ON_A) {
        pair.expect(
            "a NodePort",
            Endpoint::Internet,
            service.at,
            (pod, Endpoint::Internet),
        );
        let to = pair.at(Endpoint::Internet);
        pair.expect("off the VPC", pod, to, (Endpoint::Internet, pod));
    }
    Ok(pair.verdict()?)
}
