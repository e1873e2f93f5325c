//! The router between all interfaces, and the internet behind it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
};

use datapath::{
    netlink::{
        Socket,
        addr::{self, Address},
        link::{self, End, Link},
        neigh,
        route::{self, Kind, MAIN, Route},
    },
    netns::Netns,
    nft::{Nft, Ruleset},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nettypes::{Family, Mac};

use super::{FabricError, program, resolvers};

/// The address of IMDS.
pub const IMDS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The IPv6 address of IMDS, as on an instance with `HttpProtocolIpv6` enabled.
pub const IMDS_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// A host on the internet.
pub const INTERNET_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// The address of the EC2 API.
pub const EC2_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// A host on the internet, in IPv6 (the prefix is for documentation, RFC 3849).
pub const INTERNET_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 9);
/// The router of every subnet, in IPv6 (EC2 User Guide).
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0x0ec2, 0, 0, 0, 0, 0, 1);
/// The router's own addresses on the internet.
const BORDER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const BORDER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
const BORDER_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const INTERNET_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
const INTERNET_LEN: u8 = 24;
/// The MTU beyond the internet gateway (EC2 User Guide, "Network MTU").
const INTERNET_MTU: u32 = 1500;

/// Settings of the router's namespace. Ports inherit `default` when they are created.
const SYSCTLS: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    // The kernel uses the larger of `all` and the device's value: `all` must not affect a port without a source check.
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "1"),
    // The platform answers ARP for all addresses of the VPC.
    ("ipv4/conf/default/proxy_arp", "1"),
    // Two interfaces of a subnet reach each other through the router, which would otherwise send redirects.
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv6/conf/all/forwarding", "1"),
];

#[derive(Debug)]
pub struct Router {
    pub netns: Netns,
    pub internet: Netns,
    pub socket: Socket,
    ports: u32,
}

impl Router {
    pub fn build(vpc: &[IpNet]) -> Result<Self, FabricError> {
        let create = || Netns::create().map_err(|source| FabricError::Namespace { source });
        let (netns, internet) = (create()?, create()?);
        sysctls(&netns, SYSCTLS)?;
        let socket = Socket::open_in(&netns).map_err(program("open a socket in the router"))?;
        let mut router = Self {
            netns,
            internet,
            socket,
            ports: 0,
        };
        router.check_ipv6_sources()?;
        router.own_addresses(vpc)?;
        router.border(vpc)?;
        Ok(router)
    }

    /// A new name for a port.
    pub fn port_name(&mut self) -> String {
        self.ports += 1;
        format!("port{}", self.ports)
    }

    /// Answers proxied ARP immediately on this port: by default, answers are delayed randomly by up to 0.8 s. Only the
    /// machine's initial namespace has a default to inherit this from.
    pub fn hurry_arp(&self, port: &str) -> Result<(), FabricError> {
        sysctls(
            &self.netns,
            &[(&format!("ipv4/neigh/{port}/proxy_delay"), "0")],
        )
    }

    pub fn index_of(&mut self, name: &str) -> Result<u32, FabricError> {
        index_of(&mut self.socket, name)
    }

    /// Adds another CIDR block to the VPC: packets to addresses without an owner are dropped, and the internet routes
    /// the block to the VPC.
    pub fn associate(&mut self, block: Ipv4Net) -> Result<(), FabricError> {
        let what = "add a CIDR block to the VPC";
        let nowhere = route::replace(&Route::nowhere(block, Kind::BlackHole, MAIN));
        self.socket.apply(&nowhere).map_err(program(what))?;
        let mut outside = Socket::open_in(&self.internet).map_err(program(what))?;
        let far = index_of(&mut outside, "eth0")?;
        let inwards = route::replace(&Route::via(block, BORDER, far, MAIN));
        outside.apply(&inwards).map_err(program(what))
    }

    /// IPv6 has no reverse path filter. The rule that nodes use for their pods is used for nodes here, because ports
    /// have the pods' link group.
    fn check_ipv6_sources(&self) -> Result<(), FabricError> {
        let ruleset = Ruleset {
            pods: Family::V6,
            ..Ruleset::default()
        };
        let replace = || Nft::open()?.replace(&ruleset);
        self.netns
            .run(replace)
            .map_err(|source| FabricError::Namespace { source })?
            .map_err(program("check IPv6 sources"))
    }

    fn own_addresses(&mut self, vpc: &[IpNet]) -> Result<(), FabricError> {
        let lo = self.index_of("lo")?;
        // Packets to link-local addresses and to AWS's own services never leave the VPC, and packets to addresses in
        // the VPC without an owner are dropped. The local table comes first, so IMDS itself is not affected.
        let services = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32);
        let nowhere = vpc.iter().copied().chain([
            Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16).into(),
            services.into(),
        ]);
        let first = vpc.iter().find_map(|net| match net {
            IpNet::V4(net) => Some(net),
            IpNet::V6(_) => None,
        });
        let mut batch = vec![
            addr::add(&Address::host(lo, IMDS_ADDRESS)),
            addr::add(&Address::host(lo, IMDS_ADDRESS_V6)),
            route::add(&Route::own(IMDS_ADDRESS_V6, lo)),
        ];
        batch.extend(resolvers(first).map(|address| addr::add(&Address::host(lo, address))));
        batch.extend(nowhere.map(|net| route::add(&Route::nowhere(net, Kind::BlackHole, MAIN))));
        self.socket
            .batch(&batch)
            .and_then(|r| r.ok())
            .map_err(program("add the router's addresses"))
    }

    fn border(&mut self, vpc: &[IpNet]) -> Result<(), FabricError> {
        let what = "connect the internet";
        let end = |name, mac, up| End {
            name,
            mtu: Some(INTERNET_MTU),
            mac: Some(mac),
            group: 0,
            up,
        };
        let pair = link::add_veth(
            &end("internet", BORDER_MAC, true),
            &end("eth0", INTERNET_MAC, false),
            Some(self.internet.as_fd()),
        );
        self.socket.apply(&pair).map_err(program(what))?;
        let near = self.index_of("internet")?;
        let mut batch = vec![neigh::set_permanent(
            near,
            INTERNET_ADDRESS_V6,
            INTERNET_MAC,
        )];
        batch.extend(
            [IpAddr::V4(BORDER), BORDER_V6.into()].map(|a| addr::add(&on_internet(near, a))),
        );
        self.socket
            .batch(&batch)
            .and_then(|r| r.ok())
            .map_err(program(what))?;
        let mut outside = Socket::open_in(&self.internet).map_err(program(what))?;
        let far = index_of(&mut outside, "eth0")?;
        let here: [IpAddr; 3] = [
            INTERNET_ADDRESS.into(),
            EC2_ADDRESS.into(),
            INTERNET_ADDRESS_V6.into(),
        ];
        let own_v6 = Route::own(INTERNET_ADDRESS_V6, far);
        // Neighbour discovery would have to wait for duplicate address detection.
        let mut batch = vec![
            link::up(far),
            neigh::set_permanent(far, BORDER_V6, BORDER_MAC),
            route::add(&own_v6),
        ];
        batch.extend(here.map(|a| addr::add(&on_internet(far, a))));
        batch.extend(vpc.iter().map(|net| {
            let border: IpAddr = match net {
                IpNet::V4(_) => BORDER.into(),
                IpNet::V6(_) => BORDER_V6.into(),
            };
            route::add(&Route::via(*net, border, far, MAIN))
        }));
        outside
            .batch(&batch)
            .and_then(|r| r.ok())
            .map_err(program(what))?;
        ready(&mut outside, far)?;
        ready(&mut self.socket, near)
    }
}

fn on_internet(index: u32, address: IpAddr) -> Address {
    Address {
        prefix_len: match address {
            IpAddr::V4(_) => INTERNET_LEN,
            IpAddr::V6(_) => 64,
        },
        no_prefix_route: false,
        ..Address::host(index, address)
    }
}

pub fn index_of(socket: &mut Socket, name: &str) -> Result<u32, FabricError> {
    link_of(socket, name).map(|link| link.index)
}

pub fn link_of(socket: &mut Socket, name: &str) -> Result<Link, FabricError> {
    let found = socket.link_by_name(name).map_err(program("find a link"))?;
    found.ok_or_else(|| FabricError::Vanished {
        name: name.to_owned(),
    })
}

/// Makes the kernel complete the setup of the other end. A link whose carrier just appeared drops packets until a work
/// item has run, which can take long under load. Reading the link runs it (since Linux 6.8).
pub fn ready(socket: &mut Socket, index: u32) -> Result<(), FabricError> {
    socket
        .link_by_index(index)
        .map(drop)
        .map_err(program("find a link"))
}

/// `/proc/sys/net` shows the namespace of the reader: it is written from a thread in the namespace.
fn sysctls(netns: &Netns, settings: &[(&str, &str)]) -> Result<(), FabricError> {
    let write = || {
        settings.iter().try_for_each(|(name, value)| {
            let path = format!("/proc/sys/net/{name}");
            fs::write(&path, value).map_err(|source| FabricError::Sysctl { name: path, source })
        })
    };
    netns
        .run(write)
        .map_err(|source| FabricError::Namespace { source })?
}
