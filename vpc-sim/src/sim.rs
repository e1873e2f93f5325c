//! The complete simulation: a world, its APIs in the fabric, and nodes to run programs on.
//!
//! Owns the threads and namespaces; [`config`] owns what it starts with. May use `api`, `fabric`, `world` and `state`.
//! Must not know the wire formats.

mod config;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use datapath::netns::Netns;
use ipnet::IpNet;
use nettypes::Mac;

pub use self::config::{SimConfig, SubnetConfig};
use crate::{
    api::Api,
    error::ApiError,
    fabric::{self, EC2_ADDRESS, Fabric, FabricError, IMDS_ADDRESS, IMDS_ADDRESS_V6},
    ids::{EniId, InstanceId, SubnetId},
    state::{Names, Shared, WorldGuard, calls::Call, faults::Faults, imds_faults::ImdsScript},
    world::{LaunchInstance, World, model::NetworkInterface},
};

/// Why a simulation does not start, or a node cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    #[error("the fabric failed")]
    Fabric(#[from] FabricError),
    #[error("EC2 refused: {}", .0.code())]
    Api(#[from] ApiError),
    #[error("cannot listen at {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot start servers")]
    Servers {
        #[source]
        source: io::Error,
    },
}

/// A node: an instance and its namespace, which exists as long as this value (or a process in it).
#[derive(Debug)]
pub struct Instance {
    pub id: InstanceId,
    pub instance_type: String,
    pub netns: Netns,
    pub subnet: SubnetId,
    /// The primary interface.
    pub eni: EniId,
    /// Its primary address.
    pub address: Ipv4Addr,
    /// Its first IPv6 address, if it was launched with one.
    pub ipv6: Option<Ipv6Addr>,
    pub mac: Mac,
}

/// A running simulation. Dropping it ends the servers, the fabric and the namespaces.
#[derive(Debug)]
pub struct Sim {
    api: Api,
    wires: Arc<Wires>,
    router: Netns,
    internet: Netns,
    follower: Option<JoinHandle<()>>,
}

/// What the thread that follows the world shares with the rest. If both locks are needed, the fabric's lock comes
/// first.
#[derive(Debug)]
struct Wires {
    shared: Arc<Shared>,
    fabric: Mutex<Fabric>,
    stop: AtomicBool,
}

const DNS_PORT: u16 = 53;

/// How long the follower sleeps if nothing is due: any time is correct, because every change wakes it.
const IDLE: Duration = Duration::from_secs(3600);

impl Sim {
    /// Creates the namespaces, serves EC2 on the simulated internet and IMDS and DNS on the router, and follows the
    /// world.
    ///
    /// # Errors
    /// Without the privilege to create network namespaces.
    pub fn start(config: SimConfig) -> Result<Self, SimError> {
        let four = config.vpc_cidrs.iter().copied().map(IpNet::from);
        let six = config.vpc_ipv6.iter().copied().map(IpNet::from);
        let fabric = Fabric::build(&four.chain(six).collect::<Vec<_>>())?;
        let (router, internet) = (
            fabric::duplicate(fabric.router())?,
            fabric::duplicate(fabric.internet())?,
        );
        let ec2 = listen(fabric.internet(), SocketAddr::from((EC2_ADDRESS, 80)))?;
        let imds = [
            SocketAddr::from((IMDS_ADDRESS, 80)),
            SocketAddr::from((IMDS_ADDRESS_V6, 80)),
        ];
        let imds = imds.map(|address| listen(fabric.router(), address));
        let imds = imds.into_iter().collect::<Result<_, _>>()?;
        let resolvers = fabric::resolvers(config.vpc_cidrs.first());
        let resolvers = resolvers.map(|address| bind(fabric.router(), (address, DNS_PORT).into()));
        let resolvers = resolvers.collect::<Result<Vec<_>, _>>()?;
        let servers = |source| SimError::Servers { source };
        let api = Api::start(config.build(), ec2, imds, None).map_err(servers)?;
        resolvers
            .into_iter()
            .for_each(|socket| api.resolve_on(socket));
        let wires = Arc::new(Wires {
            shared: Arc::clone(&api.shared),
            fabric: Mutex::new(fabric),
            stop: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&wires);
        let builder = std::thread::Builder::new().name("vpc-sim-fabric".to_owned());
        let follower = builder.spawn(move || theirs.run()).map_err(servers)?;
        Ok(Self {
            api,
            wires,
            router,
            internet,
            follower: Some(follower),
        })
    }

    /// Launches an instance: a namespace with its primary interface up, as an AMI configures it.
    ///
    /// # Errors
    /// EC2's error, or the kernel's.
    pub fn launch_instance(&self, launch: LaunchInstance) -> Result<Instance, SimError> {
        let mut fabric = self.wires.fabric();
        let mut world = self.api.world();
        let made = world.launch_instance(&launch, self.api.now())?;
        let eni = world.interface(&made.primary).cloned();
        let netns = fabric.add_node(&made.id)?;
        drop(world);
        self.wires.follow(&mut fabric)?;
        let eni = eni.ok_or_else(|| FabricError::NoNode {
            instance: made.id.clone(),
        })?;
        Ok(Instance {
            address: eni.primary().unwrap_or(Ipv4Addr::UNSPECIFIED),
            ipv6: eni.ipv6.first().copied(),
            mac: eni.mac,
            id: made.id,
            instance_type: made.instance_type,
            netns,
            subnet: made.subnet,
            eni: made.primary,
        })
    }

    /// Terminates an instance: its interfaces disappear from its namespace.
    ///
    /// # Errors
    /// EC2's error, or the kernel's.
    pub fn terminate_instance(&self, id: &InstanceId) -> Result<(), SimError> {
        let mut fabric = self.wires.fabric();
        self.api.world().terminate_instance(id, self.api.now())?;
        let followed = self.wires.follow(&mut fabric);
        fabric.remove_node(id);
        Ok(followed?)
    }

    /// Waits until `holds` is true for the world and the fabric has followed it, at most `limit`.
    #[must_use]
    pub fn wait_until(&self, limit: Duration, holds: impl Fn(&World) -> bool) -> bool {
        self.wires.wait_until(limit, holds)
    }

    /// The world, locked, for reading and for scripting. No request is answered while the guard exists. Changes reach
    /// the fabric soon afterwards, at the latest with [`Sim::settle`].
    #[must_use]
    pub fn world(&self) -> WorldGuard<'_> {
        self.api.world()
    }

    /// Makes the fabric apply everything that is due, including interfaces that nodes have just set up.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn settle(&self) -> Result<(), SimError> {
        let mut fabric = self.wires.fabric();
        self.wires.follow(&mut fabric)?;
        Ok(fabric.settle()?)
    }

    /// The time for the world's methods.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.api.now()
    }

    /// Scripted faults of EC2 calls.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.api.faults()
    }

    /// While `frozen`, EC2's lists show the state of this moment; with false, they are current again.
    pub fn freeze_lists(&self, frozen: bool) {
        self.api.freeze_lists(frozen);
    }

    /// Scripted faults of IMDS.
    pub fn imds(&self) -> MutexGuard<'_, ImdsScript> {
        self.api.imds()
    }

    /// The resolver's names in addition to the names of instances. Names are in lower case.
    pub fn names(&self) -> MutexGuard<'_, Names> {
        self.api.names()
    }

    /// All EC2 calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.api.calls()
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        self.api.clear_calls();
    }

    /// The nodes' value for `AWS_ENDPOINT_URL_EC2`; reachable only over the fabric.
    #[must_use]
    pub fn ec2_endpoint(&self) -> String {
        format!("http://{EC2_ADDRESS}")
    }

    /// The default address of the AWS SDK; reachable only over the fabric.
    #[must_use]
    pub fn imds_endpoint(&self) -> String {
        format!("http://{IMDS_ADDRESS}")
    }

    /// The interface of each link in the router's namespace, by the link's index: for captures.
    #[must_use]
    pub fn ports(&self) -> BTreeMap<u32, EniId> {
        self.wires.fabric().ports()
    }

    /// The router's namespace, through which all packets between nodes pass.
    #[must_use]
    pub const fn router(&self) -> &Netns {
        &self.router
    }

    /// The namespace beyond the VPC.
    #[must_use]
    pub const fn internet(&self) -> &Netns {
        &self.internet
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // With the world's lock, otherwise the follower could miss it between its check and its sleep.
        {
            let _world = self.wires.shared.world();
            self.wires.stop.store(true, Ordering::Relaxed);
            self.wires.shared.touch();
        }
        if let Some(follower) = self.follower.take() {
            drop(follower.join()); // The panic was already printed.
        }
    }
}

impl Wires {
    fn fabric(&self) -> MutexGuard<'_, Fabric> {
        self.fabric.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies the world's changes. All of them are tried; the first failure is returned.
    fn follow(&self, fabric: &mut Fabric) -> Result<(), FabricError> {
        let steps: Vec<_> = {
            let mut world = self.shared.world();
            world.advance(self.shared.now());
            let changes = world.take_changes();
            let subnet = |eni: &NetworkInterface| {
                world
                    .subnet(&eni.subnet)
                    .map(|s| (s.gateway(), s.cidr.prefix_len()))
            };
            changes
                .into_iter()
                .map(|c| (c.attached().and_then(subnet), c))
                .collect()
        };
        let outcomes: Vec<_> = steps
            .into_iter()
            .map(|(subnet, c)| fabric.follow(c, subnet))
            .collect();
        self.shared.touch();
        outcomes.into_iter().collect()
    }

    fn run(&self) {
        loop {
            if let Err(error) = self.follow(&mut self.fabric()) {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the fabric does not match the simulated VPC"
                );
            }
            let mut world = self.shared.world();
            while !self.stop.load(Ordering::Relaxed) && !due(&world, self.shared.now()) {
                world = self.shared.wait(world, IDLE);
            }
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn wait_until(&self, limit: Duration, holds: impl Fn(&World) -> bool) -> bool {
        let end = self.shared.now() + limit;
        loop {
            // With the fabric locked, all changes that were taken from the world have been applied.
            let fabric = self.fabric();
            let mut world = self.shared.world();
            world.advance(self.shared.now());
            if !world.has_changes() && holds(&world) {
                return true;
            }
            drop(fabric);
            self.shared.touch();
            let left = end.saturating_sub(self.shared.now());
            if left.is_zero() {
                return false;
            }
            // The follower notifies again after it has applied the changes.
            drop(self.shared.wait(world, left));
        }
    }
}

fn due(world: &World, now: Duration) -> bool {
    world.has_changes() || world.next_deadline().is_some_and(|at| at <= now)
}

fn bind(netns: &Netns, address: SocketAddr) -> Result<UdpSocket, SimError> {
    let bound = netns.run(|| UdpSocket::bind(address)).and_then(|s| s);
    bound.map_err(|source| SimError::Listen { address, source })
}

fn listen(netns: &Netns, address: SocketAddr) -> Result<TcpListener, SimError> {
    let bound = netns.run(|| TcpListener::bind(address)).and_then(|l| l);
    bound.map_err(|source| SimError::Listen { address, source })
}
