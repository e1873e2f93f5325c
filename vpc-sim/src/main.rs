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
    Api, LaunchInstance, Sim, SimConfig, SubnetConfig, World, WorldConfig, ids::InstanceId,
    latency::Latency, world::model::Subnet,
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
    /// A subnet, from /16 to /28: CIDR[,ZONE][,IPV6CIDR][,KEY=VALUE]…, where ZONE is a letter, and KEY=VALUE is a tag
    #[arg(long = "subnet", default_value = "10.0.0.0/20,a", value_parser = subnet)]
    subnets: Vec<SubnetConfig>,
    /// An instance to run: TYPE in the first subnet, or TYPE@CIDR in the subnet with this CIDR
    #[arg(long = "instance", value_parser = instance)]
    instances: Vec<Launch>,
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

/// An instance of the command line.
#[derive(Clone, Debug)]
struct Launch {
    instance_type: String,
    subnet: Option<Ipv4Net>,
}

fn instance(text: &str) -> Result<Launch, String> {
    let (instance_type, subnet) = match text.split_once('@') {
        Some((kind, cidr)) => (
            kind,
            Some(cidr.parse().map_err(|e| format!("{cidr}: {e}"))?),
        ),
        None => (text, None),
    };
    Ok(Launch {
        instance_type: instance_type.to_owned(),
        subnet,
    })
}

fn subnet(text: &str) -> Result<SubnetConfig, String> {
    let mut parts = text.split(',');
    let cidr: Ipv4Net = parts
        .next()
        .unwrap_or_default()
        .parse()
        .map_err(|e| format!("{e}"))?;
    let mut subnet = SubnetConfig::new(cidr, 'a');
    for part in parts {
        if let Some((key, value)) = part.split_once('=') {
            subnet = subnet.tagged(key, value);
        } else if let Ok(zone) = part.parse() {
            subnet.zone = zone;
        } else if let Ok(block) = part.parse() {
            subnet.ipv6 = Some(block);
        } else {
            return Err(format!("{part} is not a zone, an IPv6 block or a tag"));
        }
    }
    let six = subnet.ipv6.is_none_or(|n: Ipv6Net| n.prefix_len() == 64);
    if !(16..=28).contains(&cidr.prefix_len()) || !six {
        return Err("a subnet is /16 to /28, and /64 in IPv6".to_owned());
    }
    Ok(subnet)
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
    let (launches, config) = (args.vpc.instances.clone(), config(args.vpc)?);
    let mut world = config.build();
    let mut nodes = Vec::new();
    for launch in launches {
        let launch = launch.request(&world)?;
        nodes.push(world.launch_instance(&launch, vpc_sim::wall_clock())?.id);
    }
    let api = Api::start(world, ec2, vec![imds], nodes.first().cloned())?;
    outln!("{}", whereabouts(&api, &nodes))?;
    wait_for_end()
}

impl Launch {
    fn request(self, world: &World) -> Result<LaunchInstance, Box<dyn Error>> {
        let found = |cidr| {
            let subnet = world.subnet_at(cidr).map(|s| s.id.clone());
            subnet.ok_or_else(|| format!("--instance: no --subnet is {cidr}"))
        };
        Ok(LaunchInstance {
            instance_type: self.instance_type,
            subnet: self.subnet.map(found).transpose()?,
            ..LaunchInstance::default()
        })
    }
}

/// Runs the VPC, and names the namespaces of its instances while it runs.
fn up(args: Vpc) -> Result<(), Box<dyn Error>> {
    let (launches, config) = (args.instances.clone(), config(args)?);
    let sim = Sim::start(config)?;
    fs::create_dir_all(NAMED)?;
    let mut nodes = Vec::new();
    for launch in launches {
        let launch = launch.request(&sim.world())?;
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
        "subnets": subnets(&sim.world()),
    });
    let ended = outln!("{whereabouts}")
        .map_err(Into::into)
        .and_then(|()| wait_for_end());
    for (_, name) in &nodes {
        Netns::unbind(name)?;
    }
    ended
}

fn config(args: Vpc) -> Result<SimConfig, String> {
    for (at, subnet) in args.subnets.iter().enumerate() {
        let cidr = subnet.cidr;
        if !args.vpc_cidr.iter().any(|block| block.contains(&cidr)) {
            return Err(format!("--subnet {cidr} is in no --vpc-cidr"));
        }
        let overlaps =
            |other: &SubnetConfig| other.cidr.contains(&cidr) || cidr.contains(&other.cidr);
        if let Some(other) = args.subnets[..at].iter().find(|other| overlaps(other)) {
            return Err(format!("--subnet {cidr} overlaps --subnet {}", other.cidr));
        }
    }
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
    Ok(SimConfig {
        world,
        vpc_cidrs: args.vpc_cidr,
        vpc_ipv6: args.vpc_ipv6_cidr,
        subnets: args.subnets,
    })
}

fn subnets(world: &World) -> Vec<serde_json::Value> {
    let told = |subnet: &Subnet| {
        serde_json::json!({
            "id": subnet.id.to_string(),
            "cidr": subnet.cidr.to_string(),
            "zone": subnet.zone,
        })
    };
    world.subnets().map(told).collect()
}

fn whereabouts(api: &Api, nodes: &[InstanceId]) -> serde_json::Value {
    let world = api.world();
    let region = World::region(&world);
    serde_json::json!({
        "ec2": api.ec2_endpoint(),
        "imds": api.imds_endpoint(),
        "region": region,
        "instances": nodes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "subnets": subnets(&world),
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
