//! The VPC's network: namespaces, veth pairs and routes that deliver packets as in the world's state.
//!
//! A router namespace has one port per attached interface. The other end of the port is the interface in its node's
//! namespace. Each address has its own route to the port of its interface. A packet whose source the sending port does
//! not own is dropped by strict reverse path filtering (in IPv6 by nftables), which uses the same routes. Therefore
//! only routes must be maintained, and an address always has the same owner in both directions.
//!
//! Security groups that restrict are nftables rules of the router ([`groups`]), which then tracks connections.
//!
//! Follows [`Change`]s. Knows no HTTP and makes no decisions about addresses.
//!
//! May use `world` and the address of `dns`.

mod groups;
mod port;
mod router;

use std::{collections::BTreeMap, io, net::Ipv4Addr, os::fd::AsFd as _};

use datapath::{
    netlink,
    netns::{Netns, NetnsError},
};
use ipnet::{IpNet, Ipv4Net};

pub use self::router::{
    EC2_ADDRESS, IMDS_ADDRESS, IMDS_ADDRESS_V6, INTERNET_ADDRESS, INTERNET_ADDRESS_V6,
};
use self::{port::Port, router::Router};
use crate::{
    dns::RESOLVER_ADDRESS,
    ids::{EniId, InstanceId},
    world::model::{Change, NetworkInterface, security::Guard},
};

/// Why the fabric could not apply a change.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    #[error("no network namespace: run as root, or in your own user namespace")]
    Namespace {
        #[source]
        source: io::Error,
    },
    #[error("namespace descriptor cannot be duplicated")]
    Duplicate {
        #[source]
        source: NetnsError,
    },
    #[error("cannot write {name}")]
    Sysctl {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("no veth pair for {eni}: {link} of {instance}")]
    Wire {
        eni: EniId,
        instance: InstanceId,
        link: String,
        #[source]
        source: netlink::Error,
    },
    #[error("cannot {what}")]
    Program {
        what: &'static str,
        #[source]
        source: netlink::Error,
    },
    #[error("link {name} does not exist")]
    Vanished { name: String },
    #[error("security groups cannot be applied with nft")]
    Groups {
        #[source]
        source: io::Error,
    },
    #[error("no namespace for instance {instance}")]
    NoNode { instance: InstanceId },
}

/// Another handle on the same namespace.
pub(crate) fn duplicate(netns: &Netns) -> Result<Netns, FabricError> {
    let fd = netns
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| FabricError::Namespace { source })?;
    Netns::from_fd(fd).map_err(|source| FabricError::Duplicate { source })
}

/// The resolver's addresses: the one in every VPC, and the base of the VPC's first block plus two.
pub(crate) fn resolvers(first: Option<&Ipv4Net>) -> impl Iterator<Item = Ipv4Addr> {
    let own = first.map(|block| Ipv4Addr::from_bits(block.network().to_bits() + 2));
    [RESOLVER_ADDRESS].into_iter().chain(own)
}

/// Adds a name to a refused request.
fn program(what: &'static str) -> impl Fn(netlink::Error) -> FabricError {
    move |source| FabricError::Program { what, source }
}

/// See the module.
#[derive(Debug)]
pub struct Fabric {
    router: Router,
    nodes: BTreeMap<InstanceId, Netns>,
    ports: BTreeMap<EniId, Port>,
    guards: Vec<Guard>,
}

impl Fabric {
    /// The router and the internet, without nodes. Packets to addresses in `vpc` without an owner are dropped.
    ///
    /// # Errors
    /// Without the privilege to create and configure network namespaces.
    pub fn build(vpc: &[IpNet]) -> Result<Self, FabricError> {
        Ok(Self {
            router: Router::build(vpc)?,
            nodes: BTreeMap::new(),
            ports: BTreeMap::new(),
            guards: Vec::new(),
        })
    }

    /// The namespace where packets are forwarded; IMDS listens here.
    #[must_use]
    pub const fn router(&self) -> &Netns {
        &self.router.netns
    }

    /// The namespace beyond the VPC; the EC2 API listens here.
    #[must_use]
    pub const fn internet(&self) -> &Netns {
        &self.router.internet
    }

    /// A new namespace for `instance`, which is empty until its primary interface is attached.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn add_node(&mut self, instance: &InstanceId) -> Result<Netns, FabricError> {
        let netns = Netns::create().map_err(|source| FabricError::Namespace { source })?;
        self.nodes.insert(instance.clone(), duplicate(&netns)?);
        Ok(netns)
    }

    /// Makes the ports of interfaces that were just set up carry packets immediately.
    ///
    /// # Errors
    /// If a port cannot be looked up.
    pub fn settle(&mut self) -> Result<(), FabricError> {
        let router = &mut self.router;
        self.ports.values().try_for_each(|port| port.ready(router))
    }

    /// The interface of each link on the router, by the link's index.
    #[must_use]
    pub fn ports(&self) -> BTreeMap<u32, EniId> {
        let index = |(eni, port): (&EniId, &Port)| (port.index(), eni.clone());
        self.ports.iter().map(index).collect()
    }

    /// Drops the reference to the namespace of `instance`. Other references keep it alive.
    pub fn remove_node(&mut self, instance: &InstanceId) {
        self.nodes.remove(instance);
    }

    /// Applies one change. `subnet`: the gateway and the prefix length of the interface's subnet, for an attached
    /// interface.
    ///
    /// # Errors
    /// If the kernel refuses. The fabric is then behind the world.
    pub fn follow(
        &mut self,
        change: Change,
        subnet: Option<(Ipv4Addr, u8)>,
    ) -> Result<(), FabricError> {
        match change {
            Change::Attached { eni, delivers } => self.attach(&eni, &delivers, subnet),
            Change::Cut { eni } => self.port(&eni, |port, router| port.cut(router)),
            Change::Detached { eni, .. } => {
                let port = self.ports.remove(&eni);
                port.map_or(Ok(()), |port| port.unplug(&mut self.router))
            }
            Change::Added { eni, net } => self.port(&eni, |port, router| port.deliver(router, net)),
            Change::Removed { eni, net } => {
                self.port(&eni, |port, router| port.forget(router, net))
            }
            Change::Check { eni, enabled } => {
                self.port(&eni, |port, router| port.check_source(router, enabled))
            }
            Change::Guarded { guards } => {
                self.guards = guards;
                self.guard()
            }
            Change::Associated { block } => self.router.associate(block),
        }
    }

    /// An interface without a port (it has no address at all) has nothing to apply.
    fn port(
        &mut self,
        eni: &EniId,
        act: impl FnOnce(&mut Port, &mut Router) -> Result<(), FabricError>,
    ) -> Result<(), FabricError> {
        self.ports
            .get_mut(eni)
            .map_or(Ok(()), |port| act(port, &mut self.router))
    }

    fn attach(
        &mut self,
        eni: &NetworkInterface,
        delivers: &[IpNet],
        subnet: Option<(Ipv4Addr, u8)>,
    ) -> Result<(), FabricError> {
        let (Some(bond), Some((gateway, len))) = (&eni.attachment, subnet) else {
            return Ok(());
        };
        let Some(primary) = eni.primary() else {
            return Ok(());
        };
        let no_node = || FabricError::NoNode {
            instance: bond.instance.clone(),
        };
        let node = self.nodes.get(&bond.instance).ok_or_else(no_node)?;
        let port = Port::plug(&mut self.router, node, eni, bond, (primary, gateway))?;
        self.ports.insert(eni.id.clone(), port);
        if !self.guards.is_empty() {
            self.guard()?;
        }
        self.deliver(eni, delivers, (gateway, len))
    }

    /// The first deliveries to an interface that was just attached.
    fn deliver(
        &mut self,
        eni: &NetworkInterface,
        delivers: &[IpNet],
        (gateway, len): (Ipv4Addr, u8),
    ) -> Result<(), FabricError> {
        let (Some(port), Some(bond)) = (self.ports.get_mut(&eni.id), &eni.attachment) else {
            return Ok(());
        };
        for net in delivers {
            port.deliver(&mut self.router, *net)?;
        }
        if !eni.source_dest_check {
            port.check_source(&mut self.router, false)?;
        }
        let Some(node) = self.nodes.get(&bond.instance) else {
            return Ok(());
        };
        if (bond.card, bond.device) == (0, 0) {
            port::configure_primary(node, port, eni, len, gateway)?;
            port.ready(&mut self.router)?;
        }
        Ok(())
    }

    /// Applies the guards to the ports that exist.
    fn guard(&self) -> Result<(), FabricError> {
        let name = |(eni, port): (&EniId, &Port)| (eni.clone(), port.name().to_owned());
        let ports = self.ports.iter().map(name).collect();
        groups::program(&self.router.netns, &self.guards, &ports)
    }
}
