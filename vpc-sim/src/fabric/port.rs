//! One attached interface: its end in the node, its port on the router, and its routes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
};

use datapath::{
    netlink::{
        Errno, Socket,
        addr::{self, Address},
        link::{self, Change, End, InetConf, Link},
        neigh,
        route::{self, MAIN, Route},
    },
    netns::Netns,
    uplink::Uplink,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nettypes::{EniIndex, Mac};

use super::{
    FabricError, program,
    router::{GATEWAY_V6, Router, index_of, link_of, ready},
};
use crate::world::model::{Attachment, NetworkInterface};

/// Inside a VPC (EC2 User Guide, "Jumbo frames").
const VPC_MTU: u32 = 9001;
const DEFAULT_ROUTE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
const DEFAULT_ROUTE_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0);
/// The link group whose sources are checked in IPv6.
const CHECKED: u32 = Uplink::Eni(EniIndex::PRIMARY).group();

#[derive(Debug)]
pub struct Port {
    /// The name and the index of the link on the router.
    name: String,
    index: u32,
    /// The port's MAC address.
    mac: Option<Mac>,
    primary: Ipv4Addr,
    /// The interface's link-local address, through which IPv6 packets are delivered.
    link_local: Ipv6Addr,
    delivered: Vec<IpNet>,
}

impl Port {
    /// Creates the pair, with the node's end directly in its namespace and down, like a hot-plugged device.
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
            group: CHECKED,
            up,
        };
        let far_end = End {
            group: 0,
            ..end(&far, Some(eni.mac), false)
        };
        let pair = [
            link::add_veth(&end(&near, None, true), &far_end, Some(node.as_fd())),
            link::set_no_own_ipv6_by_name(&near),
        ];
        router
            .socket
            .batch(&pair)
            .and_then(|r| r.ok())
            .map_err(|source| FabricError::Wire {
                eni: eni.id.clone(),
                instance: bond.instance.clone(),
                link: far.clone(),
                source,
            })?;
        router.hurry_arp(&near)?;
        let Link { index, mac, .. } = link_of(&mut router.socket, &near)?;
        let link_local = link_local(eni.mac);
        // Every port is the gateway of its subnet, and has a permanent entry for the MAC address behind it: nothing is
        // resolved.
        let batch = [
            addr::add(&Address::host(index, gateway)),
            neigh::set_permanent(index, primary, eni.mac),
            neigh::set_permanent(index, link_local, eni.mac),
        ];
        router
            .socket
            .batch(&batch)
            .and_then(|r| r.ok())
            .map_err(program("set a port up"))?;
        Ok(Self {
            name: near,
            index,
            mac,
            primary,
            link_local,
            delivered: Vec::new(),
        })
    }

    /// The name of the link on the router. It is not used again.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The index of the link on the router.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// The next hop is the primary address, or in IPv6 the link-local address. It has a permanent neighbour entry,
    /// which serves all addresses and prefixes of the interface.
    fn route(&self, net: IpNet) -> Route {
        let (hop, onlink): (IpAddr, _) = match net {
            IpNet::V4(_) => (self.primary.into(), true),
            IpNet::V6(_) => (self.link_local.into(), false),
        };
        Route {
            onlink,
            ..Route::via(net, hop, self.index, MAIN)
        }
    }

    /// Delivers `net` here.
    pub fn deliver(&mut self, router: &mut Router, net: IpNet) -> Result<(), FabricError> {
        router
            .socket
            .apply(&route::replace(&self.route(net)))
            .map_err(program("add a route to an interface"))?;
        self.delivered.push(net);
        Ok(())
    }

    /// Stops delivering `net`.
    pub fn forget(&mut self, router: &mut Router, net: IpNet) -> Result<(), FabricError> {
        self.delivered.retain(|n| *n != net);
        // By link too: the address may have moved to another interface, whose route replaced this one.
        gone(
            router.socket.apply(&route::del(&self.route(net))),
            "remove a route to an interface",
        )
    }

    /// Stops all deliveries; the devices stay.
    pub fn cut(&mut self, router: &mut Router) -> Result<(), FabricError> {
        for net in std::mem::take(&mut self.delivered) {
            self.forget(router, net)?;
        }
        Ok(())
    }

    /// Removes the port, and with it the device in the node.
    pub fn unplug(self, router: &mut Router) -> Result<(), FabricError> {
        // It is already gone if the node's namespace is gone.
        gone(router.socket.apply(&link::del(self.index)), "remove a port")
    }

    /// Call this when the node's end is up.
    pub fn ready(&self, router: &mut Router) -> Result<(), FabricError> {
        ready(&mut router.socket, self.index)
    }

    pub fn check_source(&self, router: &mut Router, enabled: bool) -> Result<(), FabricError> {
        let regroup = Change {
            group: Some(if enabled { CHECKED } else { 0 }),
            ..Change::default()
        };
        let set = [
            link::set_inet_conf(self.index, &[(InetConf::RpFilter, u32::from(enabled))]),
            link::set(self.index, &regroup),
        ];
        router
            .socket
            .batch(&set)
            .and_then(|r| r.ok())
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

/// The address that the kernel makes from a MAC (EUI-64, RFC 4291 appendix A).
fn link_local(Mac([a, b, c, d, e, f]): Mac) -> Ipv6Addr {
    Ipv6Addr::from([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ])
}

/// The configuration that the AMI's DHCP client does on the primary interface before any CNI plugin runs, and in IPv6
/// what it learns from router advertisements.
pub fn configure_primary(
    node: &Netns,
    port: &Port,
    eni: &NetworkInterface,
    len: u8,
    gateway: Ipv4Addr,
) -> Result<(), FabricError> {
    let what = "configure a node's primary interface";
    let mut socket = Socket::open_in(node).map_err(program(what))?;
    let index = index_of(&mut socket, "eth0")?;
    let address = Address {
        prefix_len: len,
        ..Address::host(index, port.primary)
    };
    let mut batch = vec![
        link::up(index),
        addr::add(&address),
        route::add(&Route::via(DEFAULT_ROUTE, gateway, index, MAIN)),
    ];
    if let (Some(own), Some(router)) = (eni.ipv6.first(), port.mac) {
        batch.extend([
            addr::add(&Address::host(index, *own)),
            route::add(&Route::own(*own, index)),
            neigh::set_permanent(index, GATEWAY_V6, router),
            route::add(&Route::via(DEFAULT_ROUTE_V6, GATEWAY_V6, index, MAIN)),
        ]);
    }
    socket
        .batch(&batch)
        .and_then(|r| r.ok())
        .map_err(program(what))?;
    ready(&mut socket, index)
}
