//! `vpc-sim serve`: the EC2 Query API and IMDSv2 on loopback, for the AWS command line and for trying things out.
//!
//! Owns the command line and the process's end. One line of JSON on standard output says where everything is; logs go
//! to standard error. There is no fabric here: that is for programs that use the library.

#![forbid(unsafe_code)]

use std::{
    error::Error,
    net::{SocketAddr, TcpListener},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use ipnet::{Ipv4Net, Ipv6Net};
use tokio::signal::unix::{SignalKind, signal};
use vpc_sim::{
    Api, LaunchInstance, SimConfig, SubnetConfig, World, WorldConfig,
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
    /// Serve until SIGTERM or SIGINT
    Serve(Serve),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Where the EC2 Query API listens; port 0 chooses one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where IMDSv2 listens; it takes every caller for the first instance
    #[arg(long, default_value = "127.0.0.1:0")]
    imds_listen: SocketAddr,
    /// The VPC's blocks, the first being its own
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
    /// Repeats a run: ids, addresses and delays follow from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Multiplies EC2's usual delays; 0 makes everything happen at once
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
    let Args {
        verb: Verb::Serve(args),
    } = Args::parse();
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vpc-sim: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, each of which prints only itself.
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
    let (types, config) = (args.instances.clone(), config(args));
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
    println!("{}", whereabouts(&api, &nodes, &subnets));
    wait_for_end()
}

fn config(args: Serve) -> SimConfig {
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
        // Both are cancel-safe: a signal that arrives for the other arm is not needed any more.
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        Ok(())
    })
}
