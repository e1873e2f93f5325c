//! `vpc-sim serve`: the EC2 Query API and IMDSv2 on loopback, for the AWS command line and for experiments. `vpc-sim
//! up`: the whole VPC, where each instance is a named network namespace.
//!
//! Owns the command line and the exit status. One line of JSON on standard output contains all addresses; logs go to
//! standard error.

#![forbid(unsafe_code)]

use std::{
    error::Error,
    fs, io,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use datapath::netns::Netns;
use ipnet::{Ipv4Net, Ipv6Net};
use stdout::outln;
use tokio::signal::unix::{SignalKind, signal};
use vpc_sim::{
    Api, LaunchInstance, Sim, SimConfig, SubnetConfig, World, WorldConfig,
    ids::{InstanceId, SubnetId},
    latency::Latency,
};

#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve EC2 and IMDS on loopback, without a network, until SIGTERM or SIGINT
    Serve(Serve),
    /// Run a VPC until SIGTERM or SIGINT: each instance is a network namespace, with the instance's id as its name for
    /// `ip netns`
    Up(Vpc),
}

/// The directory of names for `ip netns`.
const NAMED: &str = "/run/netns";

#[derive(Debug, clap::Args)]
struct Serve {
    /// The address of the EC2 Query API; port 0 selects a free port
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The address of IMDSv2; all callers are treated as the first instance
    #[arg(long, default_value = "127.0.0.1:0")]
    imds_listen: SocketAddr,
    #[command(flatten)]
    vpc: Vpc,
}

#[derive(Debug, clap::Args)]
struct Vpc {
    /// The VPC's CIDR blocks; the first one is the primary block
    #[arg(long, default_value = "10.0.0.0/16")]
    vpc_cidr: Vec<Ipv4Net>,
    /// The VPC's IPv6 block
    #[arg(long)]
    vpc_ipv6_cidr: Vec<Ipv6Net>,
    /// A subnet, from /16 to /28: CIDR, or CIDR,ZONE, or CIDR,ZONE,IPV6CIDR, where ZONE is a letter
    #[arg(long = "subnet", default_value = "10.0.0.0/20,a", value_parser = subnet)]
    subnets: Vec<SubnetConfig>,
    /// An instance to run in the first subnet, by type
    #[arg(long = "instance")]
    instances: Vec<String>,
    #[arg(long, default_value = "us-west-2")]
    region: String,
    /// The seed for ids, addresses and delays; the same seed reproduces a run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The factor for EC2's usual delays; with 0, everything happens immediately
    #[arg(long, default_value_t = 0.0)]
    latency_scale: f64,
    /// Throttle calls as EC2 does, per API
    #[arg(long)]
    throttle: bool,
}

fn subnet(text: &str) -> Result<SubnetConfig, String> {
    let mut parts = text.split(',');
    let cidr: Ipv4Net = parts
        .next()
        .unwrap_or_default()
        .parse()
        .map_err(|e| format!("{e}"))?;
    let zone = parts.next().unwrap_or("a");
    let ipv6 = parts
        .next()
        .map(str::parse::<Ipv6Net>)
        .transpose()
        .map_err(|e| format!("{e}"))?;
    if !(16..=28).contains(&cidr.prefix_len()) || ipv6.is_some_and(|n| n.prefix_len() != 64) {
        return Err("a subnet is /16 to /28, and /64 in IPv6".to_owned());
    }
    match (zone.parse(), parts.next()) {
        (Ok(zone), None) => Ok(SubnetConfig { cidr, ipv6, zone }),
        _ => Err("expected CIDR, CIDR,ZONE or CIDR,ZONE,IPV6CIDR".to_owned()),
    }
}

fn main() -> ExitCode {
    let Args { verb } = Args::parse();
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let served = match verb {
        Verb::Serve(args) => serve(args),
        Verb::Up(args) => up(args),
    };
    stdout::ended("vpc-sim", served.map(|()| ExitCode::SUCCESS).map_err(plain))
}

/// Keeps an I/O error, and converts any other into one line with its causes.
fn plain(error: Box<dyn Error>) -> io::Error {
    match error.downcast::<io::Error>() {
        Ok(error) => *error,
        Err(error) => io::Error::other(chain(&*error)),
    }
}

/// An error and its causes, if each prints only itself.
fn chain(error: &dyn Error) -> String {
    let cause = error
        .source()
        .map(|e| format!(": {}", chain(e)))
        .unwrap_or_default();
    format!("{error}{cause}")
}

fn serve(args: Serve) -> Result<(), Box<dyn Error>> {
    let (ec2, imds) = (
        TcpListener::bind(args.listen)?,
        TcpListener::bind(args.imds_listen)?,
    );
    let (types, config) = (args.vpc.instances.clone(), config(args.vpc));
    let mut world = config.build();
    let mut nodes = Vec::new();
    for instance_type in types {
        let launch = LaunchInstance {
            instance_type,
            ..LaunchInstance::default()
        };
        nodes.push(world.launch_instance(&launch, vpc_sim::wall_clock())?.id);
    }
    let subnets: Vec<_> = world.subnets().map(|s| s.id.clone()).collect();
    let api = Api::start(world, ec2, vec![imds], nodes.first().cloned())?;
    outln!("{}", whereabouts(&api, &nodes, &subnets))?;
    wait_for_end()
}

/// Runs the VPC, and names the namespaces of its instances while it runs.
fn up(args: Vpc) -> Result<(), Box<dyn Error>> {
    let (types, config) = (args.instances.clone(), config(args));
    let sim = Sim::start(config)?;
    fs::create_dir_all(NAMED)?;
    let mut nodes = Vec::new();
    for instance_type in types {
        let launch = LaunchInstance {
            instance_type,
            ..LaunchInstance::default()
        };
        let node = sim.launch_instance(launch)?;
        let name = Path::new(NAMED).join(node.id.to_string());
        node.netns.bind(&name)?;
        nodes.push((node, name));
    }
    let instance = |(node, name): &(vpc_sim::Instance, _)| {
        serde_json::json!({
            "id": node.id.to_string(),
            "type": node.instance_type,
            "address": node.address,
            "netns": name,
        })
    };
    let whereabouts = serde_json::json!({
        "ec2": sim.ec2_endpoint(),
        "imds": sim.imds_endpoint(),
        "region": sim.world().region(),
        "instances": nodes.iter().map(instance).collect::<Vec<_>>(),
    });
    let ended = outln!("{whereabouts}")
        .map_err(Into::into)
        .and_then(|()| wait_for_end());
    for (_, name) in &nodes {
        Netns::unbind(name)?;
    }
    ended
}

fn config(args: Vpc) -> SimConfig {
    let latency = Latency {
        scale: args.latency_scale,
        ..Latency::default()
    };
    let world = WorldConfig {
        seed: args.seed,
        region: args.region,
        latency,
        throttling: args.throttle,
        ..WorldConfig::default()
    };
    SimConfig {
        world,
        vpc_cidrs: args.vpc_cidr,
        vpc_ipv6: args.vpc_ipv6_cidr,
        subnets: args.subnets,
    }
}

fn whereabouts(api: &Api, nodes: &[InstanceId], subnets: &[SubnetId]) -> serde_json::Value {
    let world = api.world();
    let region = World::region(&world);
    serde_json::json!({
        "ec2": api.ec2_endpoint(),
        "imds": api.imds_endpoint(),
        "region": region,
        "instances": nodes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "subnets": subnets.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn wait_for_end() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut term, mut int) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        // Both are cancel-safe: a signal for the other arm is not needed any more.
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        Ok(())
    })
}
