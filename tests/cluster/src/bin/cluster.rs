//! `make cluster`: a Kubernetes cluster of two nodes on a simulated VPC, with Hawser as its network.

#![forbid(unsafe_code)]

use std::{
    env, fs, io,
    os::fd::AsFd as _,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use cluster::{cluster::Cluster, control_plane::API_PORT, images, worker::Settings};
use lab::{node::binaries, sandbox, tcp_forward::TcpForward};
use stdout::outln;

const NODES: usize = 2;
const KIND: &str = "m5.large";
const READY_LIMIT: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    let keep = env::args().nth(1).as_deref() == Some("keep");
    // Listen outside the sandbox, where the user's kubectl runs.
    let shown = TcpForward::open().and_then(|forward| {
        sandbox::enter().map_err(io::Error::other)?;
        show(keep.then_some(forward))
    });
    stdout::ended("cluster", shown.map(|()| ExitCode::SUCCESS))
}

fn show(forward: Option<TcpForward>) -> io::Result<()> {
    let step = Steps::begin();
    let mut cluster = Cluster::start()?;
    step.done(&format!(
        "a VPC, and a control plane in it at {}",
        cluster.api_server()
    ))?;
    let archive = images::hawser(
        &cluster.lab.dir().join("images"),
        &binaries::ipamd(),
        &binaries::plugin(),
    )?;
    cluster.preload(archive);
    step.done("Hawser's image")?;
    for _ in 0..NODES {
        let number = cluster.add_node(KIND, &Settings::default())?;
        step.done(&format!("{KIND} {}", cluster.nodes[number].name))?;
    }
    cluster.install(&[])?;
    step.done("helm install")?;
    let wide = ["get", "nodes,pods", "--all-namespaces", "-o", "wide"];
    let ready = |text: &str| text.matches(" Ready ").count() == NODES;
    cluster.await_kubectl(READY_LIMIT, &["get", "nodes"], ready)?;
    step.done("all nodes are Ready")?;
    outln!("\n{}", cluster.kubectl(&wide)?)?;
    if let Some(forward) = forward {
        keep(&cluster, forward)?;
    }
    drop(cluster);
    step.done("the cluster is removed")?;
    Ok(())
}

/// Keeps the cluster running until the user ends it.
fn keep(cluster: &Cluster, forward: TcpForward) -> io::Result<()> {
    let netns = cluster.control_plane.instance.netns.as_fd();
    let netns = datapath::netns::Netns::from_fd(netns.try_clone_to_owned()?);
    let netns = netns.map_err(io::Error::other)?;
    let address = forward.lead(Arc::new(netns), API_PORT)?;
    let file = env::temp_dir().join(format!("hawser-cluster-{}.kubeconfig", std::process::id()));
    cluster.export_kubeconfig(&format!("https://{address}"), &file)?;
    outln!("export KUBECONFIG={}", file.display())?;
    for node in &cluster.nodes {
        outln!("{}    # a shell on {}", node.entry(), node.name)?;
    }
    outln!("Press Enter (or end standard input) to remove the cluster.")?;
    io::stdin().read_line(&mut String::new())?;
    fs::remove_file(file)
}

/// Prints each finished step with its time.
struct Steps(Instant);

impl Steps {
    #[expect(clippy::disallowed_methods, reason = "prints real times")]
    fn begin() -> Self {
        Self(Instant::now())
    }

    fn done(&self, what: &str) -> io::Result<()> {
        outln!("{:>6.1} s  {what}", self.0.elapsed().as_secs_f64())
    }
}
