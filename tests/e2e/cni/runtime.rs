//! The real container runtime: Debian's containerd executes the plugin for CRI requests.

use std::{fs, net::IpAddr, process::Command, time::Duration};

use datapath::netns::Netns;
use lab::{
    Lab,
    containerd::{CniDirs, Containerd, PodAsks, PodSandbox, Protocol, RuntimeError},
    error::with_causes,
    node::{binaries, count},
    traffic::{
        ping::ping,
        tcp_probe::{Listener, TcpConnection},
        udp_probe::{Caller, Responder},
    },
    wait::eventually,
};
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    twenty_pods_start_reach_each_other_and_end,
    host_ports_and_rates_of_the_manifest_are_the_pods,
);

const PODS: usize = 20;

fn twenty_pods_start_reach_each_other_and_end() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let cni = CniDirs::create(&lab.dir().join("cni")).map_err(why)?;
    fs::copy(binaries::plugin(), cni.bin.join("hawser"))?;
    // m5.large supports 27 pods on three ENIs; the daemon starts with one, and writes the configuration when it can
    // serve.
    let conf = cni.conf.display().to_string();
    let mut node = lab.bare_node("m5.large", &[("HOST_CNI_CONFDIR_PATH", &conf)])?;
    let dir = lab.dir().join("containerd");
    let mut containerd = Containerd::start(&dir, Some(node.netns()), &cni).map_err(why)?;
    assert!(
        !containerd.network_ready().map_err(why)?,
        "no configuration may be there before the daemon"
    );
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    containerd.wait_network_ready().map_err(why)?;

    let pods = run_all(&containerd)?;
    let (netns, addresses) = look(&containerd, &pods)?;
    for (netns, own) in netns.iter().zip(&addresses) {
        for other in addresses.iter().filter(|other| *other != own) {
            let IpAddr::V4(other) = other else {
                return Err("an IPv6 address".into());
            };
            let answer = ping(netns, None, *other, Duration::from_secs(2))?;
            assert!(answer.is_some(), "{own} does not reach {other}");
        }
    }
    drop(netns);
    stop_all(&containerd, &pods)?;

    assert_eq!(containerd.leftovers().map_err(why)?, Vec::<String>::new());
    assert_eq!(count(&node, "assigned")?, 0);
    let links = || {
        node.netns()
            .run(|| datapath::netlink::Socket::open()?.links())
    };
    let pod_links_gone = || {
        links().is_ok_and(|found| {
            found.is_ok_and(|all| all.iter().all(|l| !l.name.starts_with("eni")))
        })
    };
    assert!(
        eventually(Duration::from_secs(5), pod_links_gone),
        "{:?}",
        links()
    );
    Ok(())
}

/// Everything between the manifest and the port: the kubelet's message, the runtime, the configuration that the daemon wrote.
fn host_ports_and_rates_of_the_manifest_are_the_pods() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let cni = CniDirs::create(&lab.dir().join("cni")).map_err(why)?;
    fs::copy(binaries::plugin(), cni.bin.join("hawser"))?;
    let conf = cni.conf.display().to_string();
    let mut node = lab.bare_node("m5.large", &[("HOST_CNI_CONFDIR_PATH", &conf)])?;
    let dir = lab.dir().join("containerd");
    let mut containerd = Containerd::start(&dir, Some(node.netns()), &cni).map_err(why)?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    containerd.wait_network_ready().map_err(why)?;

    // A port without a hostPort is in the message too.
    let mut asks = PodAsks::default()
        .port(Protocol::Tcp, 9090, 0)
        .port(Protocol::Tcp, 80, 8080)
        .port(Protocol::Udp, 80, 8080);
    for (direction, rate) in [("ingress", "20M"), ("egress", "30M")] {
        let annotation = format!("kubernetes.io/{direction}-bandwidth");
        asks.annotations.insert(annotation, rate.to_owned());
    }
    let pod = containerd
        .run_pod_asking("web", "uid", &asks)
        .map_err(why)?;
    let status = containerd.status(&pod.id).map_err(why)?;
    let netns = Netns::open(&status.netns_path.ok_or("no namespace in the status")?)?;
    let at = (status.ip.ok_or("no address in the status")?, 80).into();
    let _tcp = Listener::start(&netns, at, "web")?;
    let _udp = Responder::start(&netns, at, "web")?;
    let to_pod = node.shell("tc qdisc show")?;
    assert!(to_pod.contains("rate 20Mbit"), "{to_pod}");
    let from_pod = netns.run(|| Command::new("tc").args(["qdisc", "show"]).output())??;
    let from_pod = String::from_utf8_lossy(&from_pod.stdout);
    assert!(from_pod.contains("rate 30Mbit"), "{from_pod}");
    let port = (node.instance.address, 8080).into();
    let client = lab.sim.internet();
    let limit = Duration::from_secs(10);
    assert_eq!(TcpConnection::start(client, None, port, limit)?.with, "web");
    assert_eq!(Caller::new(client, port)?.call(30)?.0, "web");

    let rival = containerd.run_pod_asking("rival", "uid2", &asks);
    let refused = rival.err().map(|error| with_causes(&error).to_string());
    let refused = refused.ok_or("two pods have one port")?;
    assert!(refused.contains("in use by pod lab/web"), "{refused}");
    containerd.stop_pod(&pod.id).map_err(why)?;
    containerd.remove_pod(&pod.id).map_err(why)?;
    assert!(TcpConnection::start(client, None, port, Duration::from_millis(700)).is_err());
    let next = containerd
        .run_pod_asking("next", "uid3", &asks)
        .map_err(why)?;
    containerd.stop_pod(&next.id).map_err(why)?;
    containerd.remove_pod(&next.id).map_err(why)?;
    Ok(())
}

fn why(error: RuntimeError) -> libtest_mimic::Failed {
    with_causes(&error).into()
}

fn run_all(containerd: &Containerd) -> Result<Vec<PodSandbox>, libtest_mimic::Failed> {
    std::thread::scope(|scope| {
        let start = |n: usize| {
            scope.spawn(move || containerd.run_pod(&format!("pod{n}"), &format!("uid{n}")))
        };
        let started: Vec<_> = (0..PODS).map(start).collect();
        let joined = started
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        joined.collect::<Result<_, _>>().map_err(why)
    })
}

/// Each pod's namespace and its address as reported by CRI; all must be different.
fn look(
    containerd: &Containerd,
    pods: &[PodSandbox],
) -> Result<(Vec<Netns>, Vec<IpAddr>), libtest_mimic::Failed> {
    let (mut spaces, mut addresses) = (Vec::new(), Vec::new());
    for pod in pods {
        let status = containerd.status(&pod.id).map_err(why)?;
        spaces.push(Netns::open(
            &status.netns_path.ok_or("no namespace in the status")?,
        )?);
        addresses.push(status.ip.ok_or("no address in the status")?);
    }
    let different: std::collections::BTreeSet<_> = addresses.iter().collect();
    assert_eq!(different.len(), PODS);
    Ok((spaces, addresses))
}

fn stop_all(containerd: &Containerd, pods: &[PodSandbox]) -> Outcome {
    std::thread::scope(|scope| {
        let stop = |id| {
            scope.spawn(move || {
                containerd
                    .stop_pod(id)
                    .and_then(|()| containerd.remove_pod(id))
            })
        };
        let stopped: Vec<_> = pods.iter().map(|pod| stop(pod.id.as_str())).collect();
        for thread in stopped {
            thread.join().expect("no panic").map_err(why)?;
        }
        Ok(())
    })
}
