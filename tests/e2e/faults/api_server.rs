//! A node in a cluster: the effect of its Node object, pods while the API server is unavailable, and new credentials.

use std::{fs, net::TcpListener, path::Path, time::Duration};

use cluster::pki::Pki;
use lab::{
    Lab,
    fakes::api_server::{ApiServer, Identity},
    node::{Node, count},
    traffic::ping::ping,
    wait::eventually,
};
use serde_json::json;
use vpc_sim::SimConfig;

use crate::{
    suite::{Outcome, trials},
    support::kubernetes::{NAME, serve},
};

trials!(
    a_cordoned_node_buys_no_addresses_and_a_released_one_does,
    fault_40_pods_come_and_go_while_the_api_server_is_away,
    fault_40_new_certificates_are_read_without_a_restart,
    fault_40_a_new_token_is_read_without_a_restart,
    without_a_cluster_the_daemon_logs_it_once,
);

const PATIENCE: Duration = Duration::from_secs(40);
const WARM: usize = 3;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// A node without a daemon, which will use this kubeconfig file.
fn bare_node(lab: &Lab, kubeconfig: &Path) -> Fallible<Node> {
    let kubeconfig = kubeconfig.display().to_string();
    let settings = [
        ("MY_NODE_NAME", NAME),
        ("KUBECONFIG", kubeconfig.as_str()),
        ("WARM_IP_TARGET", "3"),
        ("IP_COOLDOWN_PERIOD", "0"),
    ];
    Ok(lab.bare_node("m5.large", &settings)?)
}

/// A node with an API server in its namespace; both run and the pool is warm.
fn in_cluster(lab: &Lab) -> Fallible<(Node, ApiServer)> {
    let path = lab.dir().join("kubeconfig");
    let mut node = bare_node(lab, &path)?;
    let server = serve(&node, "127.0.0.1:0")?;
    server.kubeconfig(&path)?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    assert!(warm(&node), "{}", node.log());
    Ok((node, server))
}

/// The same with a certificate of this authority, for clients with one.
fn serve_secured(node: &Node, address: &str, pki: &Pki) -> Fallible<ApiServer> {
    pki.sign("server", "/CN=server", "IP:127.0.0.1")?;
    let identity = Identity {
        certificate: &pki.path("server.crt"),
        key: &pki.path("server.key"),
        authority: &pki.path("ca.crt"),
    };
    let listener = node.netns().run(|| TcpListener::bind(address))??;
    Ok(ApiServer::start_secured(listener, NAME, &identity)?)
}

/// Writes a kubeconfig file with a certificate of this authority.
fn let_in(pki: &Pki, server: &ApiServer, kubeconfig: &Path) -> Outcome {
    pki.sign("daemon", "/CN=daemon", "")?;
    pki.kubeconfig("daemon", &format!("https://{}", server.address), kubeconfig)?;
    Ok(())
}

fn warm(node: &Node) -> bool {
    eventually(PATIENCE, || count(node, "free").is_ok_and(|n| n >= WARM))
}

/// Waits until the daemon has logged this state this many times.
fn told(node: &Node, schedulable: bool, times: usize) -> bool {
    let line = format!("\"schedulable\":{schedulable}");
    let said = |log: &str| {
        let words = log
            .lines()
            .filter(|l| l.contains("the Node object has changed"));
        words.filter(|l| l.contains(&line)).count()
    };
    eventually(PATIENCE, || said(&node.log()) >= times)
}

/// EC2 calls that add addresses or ENIs.
fn growth(lab: &Lab) -> usize {
    let calls = lab.sim.calls();
    let grows = |action: &str| action.starts_with("Assign") || action.starts_with("Create");
    calls.iter().filter(|call| grows(&call.action)).count()
}

fn a_cordoned_node_buys_no_addresses_and_a_released_one_does() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (node, server) = in_cluster(&lab)?;
    server.cordon(true);
    assert!(told(&node, false, 1), "{}", node.log());
    let before = growth(&lab);
    // They use all warm addresses, which are replaced immediately on a schedulable node.
    let pods: Vec<_> = (0..WARM)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect::<Result<_, _>>()?;
    assert_eq!(count(&node, "free")?, 0);
    assert_eq!(growth(&lab), before, "a cordoned node warmed its pool");
    // A pod that is placed anyway (for example by a DaemonSet) is served.
    let bound = node.add_pod("bound")?;
    assert!(
        ping(
            &bound.netns,
            None,
            pods[0].address(),
            Duration::from_secs(2)
        )?
        .is_some()
    );
    let before = growth(&lab);
    server.cordon(false);
    assert!(warm(&node), "{}", node.log());
    assert!(growth(&lab) > before);
    Ok(())
}

fn fault_40_pods_come_and_go_while_the_api_server_is_away() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (mut node, server) = in_cluster(&lab)?;
    let address = server.address.to_string();
    server.cordon(true);
    assert!(told(&node, false, 1), "{}", node.log());
    drop(server);
    let before = growth(&lab);
    let gone = node.add_pod("gone")?;
    let kept = node.add_pod("kept")?;
    node.delete_pod(gone)?;
    assert_eq!(growth(&lab), before, "the last word was: cordoned");
    // A daemon that starts without a server treats the node as schedulable, like the AWS VPC CNI.
    node.kill_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    assert!(warm(&node), "{}", node.log());
    assert!(ping(node.netns(), None, kept.address(), Duration::from_secs(2))?.is_some());
    let server = serve(&node, &address)?;
    server.cordon(true);
    assert!(told(&node, false, 2), "{}", node.log());
    Ok(())
}

/// The authority is another one too. The new files come after the new server, as they do where a program distributes them.
fn fault_40_new_certificates_are_read_without_a_restart() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let kubeconfig = lab.dir().join("kubeconfig");
    let mut node = bare_node(&lab, &kubeconfig)?;
    let old = Pki::create(&lab.dir().join("old"))?;
    let server = serve_secured(&node, "127.0.0.1:0", &old)?;
    let_in(&old, &server, &kubeconfig)?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    server.cordon(true);
    assert!(told(&node, false, 1), "{}", node.log());
    let address = server.address.to_string();
    drop(server);
    let new = Pki::create(&lab.dir().join("new"))?;
    let server = serve_secured(&node, &address, &new)?;
    // Uncordoned in the meantime: the versions continue from the previous server's.
    server.cordon(true);
    server.cordon(false);
    let refused = || server.refused() > 0;
    assert!(eventually(PATIENCE, refused), "{}", node.log());
    let_in(&new, &server, &kubeconfig)?;
    assert!(told(&node, true, 1), "{}", node.log());
    Ok(())
}

fn fault_40_a_new_token_is_read_without_a_restart() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let kubeconfig = lab.dir().join("kubeconfig");
    let token = lab.dir().join("token");
    let mut node = bare_node(&lab, &kubeconfig)?;
    let server = serve(&node, "127.0.0.1:0")?;
    server.require_token("first");
    fs::write(&token, "first")?;
    server.kubeconfig_of(&json!({ "tokenFile": token }), &kubeconfig)?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    server.cordon(true);
    assert!(told(&node, false, 1), "{}", node.log());
    server.require_token("second");
    server.cut();
    assert!(
        eventually(PATIENCE, || server.refused() > 0),
        "{}",
        node.log()
    );
    fs::write(&token, "second")?;
    server.cordon(false);
    assert!(told(&node, true, 1), "{}", node.log());
    Ok(())
}

fn without_a_cluster_the_daemon_logs_it_once() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let nameless = lab.node("t3.small", &[])?;
    let nowhere = lab.node("t3.small", &[("MY_NODE_NAME", NAME)])?;
    for (node, why) in [
        (&nameless, "MY_NODE_NAME is not set"),
        (&nowhere, "no cluster is configured"),
    ] {
        node.add_pod("pod")?;
        let said = || node.log().matches(why).count() == 1;
        assert!(eventually(PATIENCE, said), "{why}\n{}", node.log());
    }
    Ok(())
}
