//! A demonstration: a simulated VPC, two nodes, pods that are added by executing the plugin, and pings between all of
//! them.

#![forbid(unsafe_code)]

use std::{
    io,
    net::IpAddr,
    os::fd::AsFd,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use datapath::netns::Netns;
use lab::{
    Lab,
    node::{Node, Pod, count, inspect::inspect},
    sandbox,
    tcp_forward::TcpForward,
    traffic::ping::ping,
    wait::eventually,
};
use stdout::outln;
use vpc_sim::SimConfig;

const KIND: &str = "m5.large";
const PODS: usize = 12;
/// The port of a node's live page, on its own loopback.
const PAGE_PORT: u16 = 61679;

fn main() -> ExitCode {
    // Opened here, where browsers are, and not in the sandbox.
    let forwards = match std::env::args().nth(1).as_deref() {
        Some("keep") => vec![TcpForward::open(), TcpForward::open()],
        _ => Vec::new(),
    };
    let forwards = forwards.into_iter().collect::<io::Result<Vec<_>>>();
    let shown = forwards.and_then(|forwards| {
        sandbox::enter().map_err(io::Error::other)?;
        demo(forwards)
    });
    stdout::ended("demo", shown.map(|()| ExitCode::SUCCESS))
}

fn demo(forwards: Vec<TcpForward>) -> io::Result<()> {
    outln!("Hawser demo: a VPC on this machine, in namespaces that end with this command.\n")?;
    step("a simulated EC2, its metadata service and the VPC's fabric")?;
    let lab = Lab::start(SimConfig::default())?;
    outln!(
        "   EC2 API at {}, instance metadata at {}",
        lab.sim.ec2_endpoint(),
        lab.sim.imds_endpoint()
    )?;

    step(&format!(
        "two {KIND} nodes, each with a daemon that has only CAP_NET_ADMIN"
    ))?;
    let nodes = [launch(&lab)?, launch(&lab)?];

    step(&format!(
        "{PODS} pods on each node, placed by executing the CNI plugin as a runtime does"
    ))?;
    let placed = [place(&nodes[0], "red")?, place(&nodes[1], "blue")?];

    step("every pod pings every pod of the other node, over the fabric")?;
    let [red, blue] = &placed;
    ping_all("red → blue", red, blue)?;
    ping_all("blue → red", blue, red)?;
    step("every pod pings every pod of its own node")?;
    ping_all("red → red", red, red)?;

    step("the nodes' ENIs, addresses and pods")?;
    for (node, pods) in nodes.iter().zip(&placed) {
        show(node, pods)?;
    }
    show_calls(&lab)?;
    if !forwards.is_empty() {
        keep(forwards, &nodes)?;
    }

    step("removing everything")?;
    for (node, pods) in nodes.iter().zip(placed) {
        take_down(node, pods)?;
    }
    outln!("\nDone. Everything is removed from this machine.")?;
    Ok(())
}

/// Keeps the nodes running until the user stops them.
fn keep(forwards: Vec<TcpForward>, nodes: &[Node]) -> io::Result<()> {
    step("the nodes keep running; their live pages are")?;
    for (forward, node) in forwards.into_iter().zip(nodes) {
        let netns = node.netns().as_fd().try_clone_to_owned()?;
        let netns = Netns::from_fd(netns).map_err(io::Error::other)?;
        let address = forward.lead(Arc::new(netns), PAGE_PORT)?;
        outln!("   http://{address}/  ({})", node.instance.id)?;
    }
    outln!("   Press Enter (or end standard input) to remove everything.")?;
    io::stdin().read_line(&mut String::new()).map(drop)
}

fn step(what: &str) -> io::Result<()> {
    outln!("── {what}")
}

#[expect(clippy::disallowed_methods, reason = "the demo shows real timings")]
fn timed<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<(T, Duration)> {
    let begun = Instant::now();
    work().map(|result| (result, begun.elapsed()))
}

/// Warm from the start, so that the timings below are those of plugin and daemon, not of EC2.
fn launch(lab: &Lab) -> io::Result<Node> {
    let warm = PODS.to_string();
    let (node, ready) = timed(|| lab.node(KIND, &[("WARM_IP_TARGET", &warm)]))?;
    let (warmed, after) = timed(|| {
        let free = || count(&node, "free").is_ok_and(|free| free >= PODS);
        Ok(eventually(Duration::from_secs(20), free))
    })?;
    if !warmed {
        return Err(io::Error::other(format!(
            "the pool did not fill:\n{}",
            node.log()
        )));
    }
    outln!(
        "   {}  {:<12} ready after {} ms, {PODS} addresses warm {} ms later",
        node.instance.id,
        node.instance.address,
        ready.as_millis(),
        after.as_millis()
    )?;
    Ok(node)
}

fn place(node: &Node, colour: &str) -> io::Result<Vec<Pod>> {
    let pods: Vec<Pod> = (0..PODS)
        .map(|n| node.add_pod(&format!("{colour}-{n}")))
        .collect::<io::Result<_>>()?;
    let took = pods.iter().map(|pod| pod.added.took).collect();
    outln!(
        "   {colour:<5} {} ADDs, from start to end of the process: {}",
        pods.len(),
        spread(took)
    )?;
    Ok(pods)
}

fn ping_all(title: &str, from: &[Pod], to: &[Pod]) -> io::Result<()> {
    let (mut took, mut silent) = (Vec::new(), Vec::new());
    for source in from {
        for target in to
            .iter()
            .filter(|target| target.address() != source.address())
        {
            match ping(
                &source.netns,
                None,
                target.address(),
                Duration::from_secs(2),
            )? {
                Some(round_trip) => took.push(round_trip),
                None => silent.push((source.address(), target.address())),
            }
        }
    }
    outln!(
        "   {title:<11} {} of {} answered, {}",
        took.len(),
        took.len() + silent.len(),
        spread(took)
    )?;
    if silent.is_empty() {
        Ok(())
    } else {
        Err(io::Error::other(format!("no answer between {silent:?}")))
    }
}

/// Median and maximum, in a readable unit.
fn spread(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let show = |d: Option<&Duration>| {
        d.map_or_else(
            || "–".to_owned(),
            |d| format!("{:.2} ms", d.as_secs_f64() * 1e3),
        )
    };
    format!(
        "median {}, worst {}",
        show(took.get(took.len() / 2)),
        show(took.last())
    )
}

fn show(node: &Node, pods: &[Pod]) -> io::Result<()> {
    let snapshot = inspect(&node.socket())?;
    outln!(
        "\n   {} {}: {}",
        node.instance.id,
        snapshot.instance_type,
        snapshot.pod_limit_why
    )?;
    outln!(
        "   {:<23} {:>6}  {:<13} {:>5} {:>5}  pods",
        "ENI",
        "device",
        "primary",
        "used",
        "free"
    )?;
    for eni in &snapshot.enis {
        let state = |state: &str| {
            eni.addresses
                .iter()
                .filter(|address| address.state == state)
                .count()
        };
        let mut held: Vec<String> = Vec::new();
        for address in &eni.addresses {
            let at = ip(&address.address);
            held.extend(
                pods.iter()
                    .filter(|pod| Some(pod.address()) == at)
                    .map(|pod| format!("{} {}", pod.id, pod.address())),
            );
        }
        let primary = ip(&eni.primary)
            .map(|address| address.to_string())
            .unwrap_or_default();
        let (used, free) = (state("assigned"), state("free"));
        outln!(
            "   {:<23} {:>6}  {primary:<13} {used:>5} {free:>5}  {}",
            eni.id,
            eni.device_index,
            held.first().map_or("", String::as_str)
        )?;
        for pod in held.iter().skip(1) {
            outln!("   {:>58}  {pod}", "")?;
        }
    }
    Ok(())
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    proto::address::ip("address", bytes).ok()
}

fn show_calls(lab: &Lab) -> io::Result<()> {
    let mut calls = std::collections::BTreeMap::new();
    for call in lab.sim.calls() {
        *calls.entry(call.action).or_insert(0) += 1;
    }
    outln!("\n   EC2 calls of both nodes together:")?;
    for (action, count) in calls {
        outln!("   {count:>4} {action}")?;
    }
    outln!()
}

fn take_down(node: &Node, pods: Vec<Pod>) -> io::Result<()> {
    let count = pods.len();
    let took = pods
        .into_iter()
        .map(|pod| node.delete_pod(pod).map(|out| out.took))
        .collect::<io::Result<_>>()?;
    outln!("   {} {count} DELs: {}", node.instance.id, spread(took))?;
    Ok(())
}
