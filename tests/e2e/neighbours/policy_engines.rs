//! Calico's Felix and the AWS network policy agent find a pod's link by a name that they calculate themselves.

use std::{io, net::IpAddr, time::Duration};

use datapath::{netlink::Socket, netns::Netns, pod::upstream_host_name};
use lab::{
    Lab,
    node::{Node, Pod, count, host_link},
    traffic::{ping::ping, stream::Stream},
    wait::eventually,
};
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    a_pods_link_has_the_name_that_policy_engines_calculate,
    a_pods_next_sandbox_has_the_name_and_the_end_of_the_last_one_harms_nobody,
    the_name_returns_to_the_sandbox_that_is_left,
    a_daemon_that_lost_its_state_knows_whose_links_it_finds,
);

const LIMIT: Duration = Duration::from_secs(20);

/// A sandbox of the pod `kube-system/coredns-57ff979f67-qqbdh`.
fn coredns(node: &Node, id: &str) -> io::Result<Pod> {
    let (netns, path) = node.sandbox(id)?;
    let added = node
        .invocation("ADD", id, Some(&path))
        .variable("CNI_ARGS", ARGS)
        .run(node.netns())?;
    if !added.succeeded() {
        return Err(io::Error::other(format!("{added:?}\n{}", node.log())));
    }
    Ok(Pod {
        id: id.to_owned(),
        netns,
        path,
        asked: serde_json::Value::Null,
        added,
    })
}

const ARGS: &str =
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=coredns-57ff979f67-qqbdh";
/// As the tests of the AWS VPC CNI have it.
const NAME: &str = "enib5faff8a083";

/// Which address is routed over the link with this name.
fn behind(node: &Node, name: &str) -> io::Result<Option<IpAddr>> {
    let found = node
        .netns()
        .run(|| -> Result<_, datapath::netlink::Error> {
            datapath::pod::list(&mut Socket::open()?)
        })?;
    let links = found.map_err(io::Error::other)?;
    let named = links.into_iter().find(|link| link.name == name);
    Ok(named.and_then(|link| link.address))
}

fn checks(node: &Node, pod: &Pod) -> io::Result<bool> {
    let check = node.invocation("CHECK", &pod.id, Some(&pod.path));
    let checked = check.conf("prevResult", pod.added.json.clone());
    Ok(checked.run(node.netns())?.succeeded())
}

fn answers(node: &Node, pod: &Pod) -> io::Result<bool> {
    Ok(ping(node.netns(), None, pod.address(), LIMIT)?.is_some())
}

fn a_pods_link_has_the_name_that_policy_engines_calculate() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[("AWS_VPC_K8S_CNI_VETHPREFIX", "cali")])?;
    let pod = coredns(&node, "dns")?;
    let name = upstream_host_name("cali", "kube-system", "coredns-57ff979f67-qqbdh");
    assert_eq!(name, "calib5faff8a083");
    assert_eq!(host_link(&pod), name);
    assert_eq!(behind(&node, &name)?, Some(pod.address()));
    let shown = node.shell(&format!("ip link show {name}"))?;
    assert!(shown.contains("alias hawser aws-cni/dns/eth0"), "{shown}");
    // An installer's setting in the configuration has precedence.
    let (_netns, path) = node.sandbox("other")?;
    let added = node
        .invocation("ADD", "other", Some(&path))
        .conf("vethPrefix", "eni".into())
        .variable("CNI_ARGS", &ARGS.replace("qqbdh", "other"))
        .run(node.netns())?;
    let name = upstream_host_name("eni", "kube-system", "coredns-57ff979f67-other");
    assert_eq!(added.json["interfaces"][0]["name"], name, "{added:?}");
    Ok(())
}

/// A StatefulSet's pod that comes back while its last sandbox lives, is deleted, or has just been deleted.
fn a_pods_next_sandbox_has_the_name_and_the_end_of_the_last_one_harms_nobody() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("t3.small", &[("IP_COOLDOWN_PERIOD", "1")])?;
    let old = coredns(&node, "old")?;
    let young = coredns(&node, "young")?;
    assert_eq!(
        (host_link(&old), host_link(&young)),
        (NAME.into(), NAME.into())
    );
    assert_eq!(behind(&node, NAME)?, Some(young.address()));
    for pod in [&old, &young] {
        assert!(
            answers(&node, pod)? && checks(&node, pod)?,
            "{}",
            node.log()
        );
    }
    // Records and links find each other again, whatever the names are.
    node.kill_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    assert_eq!(count(&node, "assigned")?, 2, "{}", node.log());
    assert_eq!(behind(&node, NAME)?, Some(young.address()));

    let host = (node.netns(), node.instance.address);
    let stream = Stream::start("node to pod", host, (&young.netns, young.ipv4()))?;
    let id = old.id.clone();
    node.delete_pod(old)?;
    // The runtime repeats it.
    let again = node.invocation("DEL", &id, None).run(node.netns())?;
    assert!(again.succeeded(), "{again:?}");
    std::thread::sleep(Duration::from_millis(1500));
    let delivered = stream.finish()?;
    assert_eq!(delivered.lost.len(), 0, "{}", node.log());
    assert!(checks(&node, &young)?);
    assert_eq!(count(&node, "assigned")?, 1);

    // Again and again, at once after the answer to DEL, when the link is still being removed.
    let mut last = young;
    for n in 0..5 {
        node.delete_pod(last)?;
        last = coredns(&node, &format!("next{n}"))?;
        assert_eq!(host_link(&last), NAME);
        assert_eq!(behind(&node, NAME)?, Some(last.address()));
        assert!(checks(&node, &last)?, "{}", node.log());
    }
    let one = || {
        let links = node.shell("ip -o link").unwrap_or_default();
        links.matches(": eni").count() == 1
    };
    assert!(eventually(LIMIT, one), "{}", node.shell("ip -o link")?);
    assert!(answers(&node, &last)?);
    Ok(())
}

/// The younger one ends first, by a DEL and without one.
fn the_name_returns_to_the_sandbox_that_is_left() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let old = coredns(&node, "old")?;
    let returned = || behind(&node, NAME).is_ok_and(|found| found == Some(old.address()));
    let young = coredns(&node, "young")?;
    assert!(!returned());
    node.delete_pod(young)?;
    assert!(eventually(LIMIT, returned), "{}", node.shell("ip -o link")?);
    let young = coredns(&node, "another")?;
    assert!(!returned());
    Netns::unbind(&young.path)?;
    drop(young);
    assert!(eventually(LIMIT, returned), "{}", node.shell("ip -o link")?);
    assert!(answers(&node, &old)? && checks(&node, &old)?);
    Ok(())
}

/// A link says whose it is: GC and DEL find the sandbox, and a repeated ADD its own remains.
fn a_daemon_that_lost_its_state_knows_whose_links_it_finds() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("t3.small", &[("IP_COOLDOWN_PERIOD", "1")])?;
    let pods = [coredns(&node, "old")?, coredns(&node, "young")?];
    node.kill_daemon()?;
    std::fs::remove_file(node.socket().with_file_name("state"))?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    assert_eq!(count(&node, "assigned")?, 2, "{}", node.log());
    for pod in &pods {
        assert!(answers(&node, pod)?, "{}", node.log());
    }
    let [old, young] = pods;
    node.delete_pod(old)?;
    assert!(answers(&node, &young)?, "{}", node.log());
    let again = node
        .invocation("ADD", "young", Some(&young.path))
        .variable("CNI_ARGS", ARGS)
        .run(node.netns())?;
    assert!(again.succeeded(), "{again:?}\n{}", node.log());
    let young = Pod {
        added: again,
        ..young
    };
    assert!(answers(&node, &young)? && checks(&node, &young)?);
    assert_eq!(count(&node, "assigned")?, 1);
    node.delete_pod(young)?;
    assert_eq!(count(&node, "assigned")?, 0);
    Ok(())
}
