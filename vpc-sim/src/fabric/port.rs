//! One attached interface: its end in the node, its port on the router, and the routes to it.

use std::{net::Ipv4Addr, os::fd::AsFd as _};

use datapath::{
    netlink::{
        Errno, Socket,
        addr::{self, Address},
        link::{self, End, InetConf},
        neigh,
        route::{self, MAIN, Route},
    },
    netns::Netns,
};
use ipnet::{IpNet, Ipv4Net};

use super::{
    FabricError, program,
    router::{Router, index_of, ready},
};
use crate::world::model::{Attachment, NetworkInterface};

/// Inside a VPC (EC2 User Guide, "Jumbo frames").
const VPC_MTU: u32 = 9001;
const DEFAULT_ROUTE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

#[derive(Debug)]
pub struct Port {
    index: u32,
    primary: Ipv4Addr,
    delivered: Vec<Ipv4Net>,
}

impl Port {
    /// Makes the pair, the node's end directly in its namespace and down, as a hot-plugged device appears.
    pub fn plug(
        router: &mut Router,
        node: &Netns,
        eni: &NetworkInterface,
        bond: &Attachment,
        (primary, gateway): (Ipv4Addr, Ipv4Addr),
    ) -> Result<Self, FabricError> {
        let (near, far) = (router.port_name(), device_name(bond));
        let end = |name, mac, up| End {
            name,
            mtu: Some(VPC_MTU),
            mac,
            group: 0,
            up,
        };
        let pair = link::add_veth(
            &end(&near, None, true),
            &end(&far, Some(eni.mac.0), false),
            Some(node.as_fd()),
        );
        router
            .socket
            .apply(&pair)
            .map_err(|source| FabricError::Wire {
                eni: eni.id.clone(),
                instance: bond.instance.clone(),
                link: far.clone(),
                source,
            })?;
        router.hurry_arp(&near)?;
        let index = router.index_of(&near)?;
        // Every port is the gateway of its subnet, and knows the one MAC that is behind it: nothing is ever asked.
        let batch = [
            addr::add(&Address::host(index, gateway)),
            neigh::set_permanent(index, primary, eni.mac.0),
        ];
        router
            .socket
            .batch(&batch)
            .and_then(|r| r.ok())
            .map_err(program("set a port up"))?;
        Ok(Self {
            index,
            primary,
            delivered: Vec::new(),
        })
    }

    /// Of the link on the router.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Delivers `net` here. The next hop is the primary address, whose neighbour entry is permanent: one entry serves
    /// all addresses and prefixes of the interface.
    pub fn deliver(&mut self, router: &mut Router, net: IpNet) -> Result<(), FabricError> {
        let IpNet::V4(net) = net else { return Ok(()) };
        let route = Route {
            onlink: true,
            ..Route::via(net, self.primary, self.index, MAIN)
        };
        router
            .socket
            .apply(&route::replace(&route))
            .map_err(program("add a route to an interface"))?;
        self.delivered.push(net);
        Ok(())
    }

    /// Stops delivering `net`.
    pub fn forget(&mut self, router: &mut Router, net: IpNet) -> Result<(), FabricError> {
        let IpNet::V4(net) = net else { return Ok(()) };
        self.delivered.retain(|n| *n != net);
        // By link too: the address may have moved to another interface, which has replaced the route by now.
        let route = Route {
            onlink: true,
            ..Route::via(net, self.primary, self.index, MAIN)
        };
        gone(
            router.socket.apply(&route::del(&route)),
            "remove a route to an interface",
        )
    }

    /// Stops everything; the devices stay.
    pub fn cut(&mut self, router: &mut Router) -> Result<(), FabricError> {
        for net in std::mem::take(&mut self.delivered) {
            self.forget(router, net.into())?;
        }
        Ok(())
    }

    /// Takes the port away, and with it the device in the node.
    pub fn unplug(self, router: &mut Router) -> Result<(), FabricError> {
        // Already gone if the node's namespace is.
        gone(router.socket.apply(&link::del(self.index)), "remove a port")
    }

    /// To be called once the node's end is up.
    pub fn ready(&self, router: &mut Router) -> Result<(), FabricError> {
        ready(&mut router.socket, self.index)
    }

    pub fn check_source(&self, router: &mut Router, enabled: bool) -> Result<(), FabricError> {
        let set = link::set_inet_conf(self.index, &[(InetConf::RpFilter, u32::from(enabled))]);
        router
            .socket
            .apply(&set)
            .map_err(program("set a port's source check"))
    }
}

fn gone(
    outcome: Result<(), datapath::netlink::Error>,
    what: &'static str,
) -> Result<(), FabricError> {
    match outcome {
        Err(e) if e.is(Errno::ESRCH) || e.is(Errno::ENODEV) => Ok(()),
        outcome => outcome.map_err(program(what)),
    }
}

fn device_name(bond: &Attachment) -> String {
    match bond.card {
        0 => format!("eth{}", bond.device),
        card => format!("eth{card}_{}", bond.device),
    }
}

/// What the AMI's DHCP client does on the primary interface, before any CNI runs.
pub fn configure_primary(
    node: &Netns,
    primary: Ipv4Addr,
    len: u8,
    gateway: Ipv4Addr,
) -> Result<(), FabricError> {
    let what = "configure a node's primary interface";
    let mut socket = Socket::open_in(node).map_err(program(what))?;
    let index = index_of(&mut socket, "eth0")?;
    let address = Address {
        prefix_len: len,
        ..Address::host(index, primary)
    };
    let batch = [
        link::up(index),
        addr::add(&address),
        route::add(&Route::via(DEFAULT_ROUTE, gateway, index, MAIN)),
    ];
    socket
        .batch(&batch)
        .and_then(|r| r.ok())
        .map_err(program(what))?;
    ready(&mut socket, index)
}
