//! The lab itself: one simulated VPC, its own directory, and nodes on demand. Everything ends with the value.
//!
//! [`subnets`] has what nodes need whose pods are in other subnets, [`aws_node`] builds nodes of the AWS VPC CNI. May use `node`. Must not know tests.

pub mod aws_node;
pub mod aws_vpc_cni;
pub mod subnets;

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use vpc_sim::{
    LaunchInstance, Sim, SimConfig,
    world::request::{AssignPrivateIpAddresses, CreateNetworkInterface, Pick, Pick6},
};

use crate::{error::with_causes, node::Node};

static LABS: AtomicU32 = AtomicU32::new(0);

/// See the module.
#[derive(Debug)]
pub struct Lab {
    pub sim: Sim,
    dir: PathBuf,
    nodes: AtomicU32,
}

impl Lab {
    /// A VPC without nodes. EC2 answers without delay unless `sim` configures one.
    ///
    /// # Errors
    /// If namespaces cannot be created or servers not be bound.
    pub fn start(sim: SimConfig) -> io::Result<Self> {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hawser-lab-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir)?;
        // Like /run on a node: otherwise the daemon's commits would wait for this machine's disk.
        mount(
            Some("tmpfs"),
            &dir,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )?;
        let sim = Sim::start(sim).map_err(|e| with_causes(&e))?;
        Ok(Self {
            sim,
            dir,
            nodes: AtomicU32::new(0),
        })
    }

    /// Launches an instance of this type and starts a daemon on it with `settings` in its environment.
    ///
    /// # Errors
    /// If either fails; the daemon's log is in the error.
    pub fn node(&self, kind: &str, settings: &[(&str, &str)]) -> io::Result<Node> {
        let mut node = self.bare_node(kind, settings)?;
        node.start_daemon(&self.sim.ec2_endpoint())?;
        Ok(node)
    }

    /// Launches an instance without starting its daemon.
    ///
    /// # Errors
    /// If the instance cannot be launched.
    pub fn bare_node(&self, kind: &str, settings: &[(&str, &str)]) -> io::Result<Node> {
        let launch = LaunchInstance {
            instance_type: kind.to_owned(),
            ipv6: self.own_ipv6(),
            ..LaunchInstance::default()
        };
        self.launch(launch, settings)
    }

    fn launch(&self, launch: LaunchInstance, settings: &[(&str, &str)]) -> io::Result<Node> {
        let instance = self
            .sim
            .launch_instance(launch)
            .map_err(|e| with_causes(&e))?;
        let number = self.nodes.fetch_add(1, Ordering::Relaxed);
        Node::new(instance, self.dir.join(format!("node-{number}")), settings)
    }

    /// Nodes have an IPv6 address if their subnet supports it.
    fn own_ipv6(&self) -> Pick6 {
        let world = self.sim.world();
        let first = world.first_subnet().and_then(|id| world.subnet(id));
        if first.is_some_and(|subnet| subnet.ipv6.is_some()) {
            Pick::Count(1)
        } else {
            Pick::Nothing
        }
    }

    /// Moves an address to another ENI, like a reassignment in the console.
    ///
    /// # Errors
    /// EC2's error.
    pub fn take_away(&self, address: Ipv4Addr) -> io::Result<()> {
        let now = self.sim.now();
        let mut world = self.sim.world();
        let subnet = world.owner_of(address).map(|eni| eni.subnet.clone());
        let subnet = subnet.ok_or_else(|| io::Error::other("no ENI has the address"))?;
        let thief = world.create_network_interface(CreateNetworkInterface::plain(subnet), now);
        let request = AssignPrivateIpAddresses {
            eni: thief.map_err(|e| with_causes(&e))?.id,
            ipv4: Pick::These(vec![address]),
            allow_reassignment: true,
        };
        let assigned = world.assign_private_ip_addresses(&request, now);
        assigned.map(drop).map_err(|e| with_causes(&e))
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Lazily: namespace files in it are mounts too, and are removed with it.
        drop(umount2(&self.dir, MntFlags::MNT_DETACH).map_err(io::Error::from));
        drop(fs::remove_dir(&self.dir));
    }
}
