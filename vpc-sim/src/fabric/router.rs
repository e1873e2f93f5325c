//! The router between all interfaces, and the internet behind it.

use std::{fs, net::Ipv4Addr};

use datapath::{
    netlink::{
        Socket,
        addr::{self, Address},
        link::{self, End},
        route::{self, Kind, MAIN, Route},
    },
    netns::Netns,
};
use ipnet::Ipv4Net;

use super::{FabricError, program};

/// Where IMDS answers.
pub const IMDS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Somebody on the internet.
pub const INTERNET_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// Where the EC2 API answers.
pub const EC2_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The router's own address on the internet.
const BORDER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const INTERNET_LEN: u8 = 24;
/// The MTU beyond the internet gateway (EC2 User Guide, "Network MTU").
const INTERNET_MTU: u32 = 1500;

/// Settings of the router's namespace. Ports inherit `default` when they are made.
const SYSCTLS: &[(&str, &str)] = &[
    ("ip_forward", "1"),
    // The kernel uses the larger of `all` and the device: `all` must not overrule a port without a source check.
    ("conf/all/rp_filter", "0"),
    ("conf/default/rp_filter", "1"),
    // ARP for anything in the VPC is answered by the platform, whichever port it is behind.
    ("conf/default/proxy_arp", "1"),
    // Two interfaces of a subnet reach each other through the router, which would keep telling them to go directly.
    ("conf/all/send_redirects", "0"),
    ("conf/default/send_redirects", "0"),
];

#[derive(Debug)]
pub struct Router {
    pub netns: Netns,
    pub internet: Netns,
    pub socket: Socket,
    ports: u32,
}

impl Router {
    pub fn build(vpc: &[Ipv4Net]) -> Result<Self, FabricError> {
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
        router.own_addresses(vpc)?;
        router.border(vpc)?;
        Ok(router)
    }

    /// A name that no port had before.
    pub fn port_name(&mut self) -> String {
        self.ports += 1;
        format!("port{}", self.ports)
    }

    /// Answers ARP for others at once on this port: by default they are held back by up to 0.8 s at random. Only the
    /// machine's first namespace has a default to inherit this from.
    pub fn hurry_arp(&self, port: &str) -> Result<(), FabricError> {
        sysctls(&self.netns, &[(&format!("neigh/{port}/proxy_delay"), "0")])
    }

    pub fn index_of(&mut self, name: &str) -> Result<u32, FabricError> {
        index_of(&mut self.socket, name)
    }

    /// Takes another block into the VPC: what nobody owns in it goes nowhere, and the internet sends it here.
    pub fn associate(&mut self, block: Ipv4Net) -> Result<(), FabricError> {
        let what = "take a block into the VPC";
        let nowhere = route::replace(&Route::nowhere(block, Kind::BlackHole, MAIN));
        self.socket.apply(&nowhere).map_err(program(what))?;
        let mut outside = Socket::open_in(&self.internet).map_err(program(what))?;
        let far = index_of(&mut outside, "eth0")?;
        let inwards = route::replace(&Route::via(block, BORDER, far, MAIN));
        outside.apply(&inwards).map_err(program(what))
    }

    fn own_addresses(&mut self, vpc: &[Ipv4Net]) -> Result<(), FabricError> {
        let lo = self.index_of("lo")?;
        // Link-local destinations never leave the VPC, and in the VPC what nobody owns goes nowhere. The local table is
        // looked at first, so IMDS itself is not affected.
        let nowhere = vpc
            .iter()
            .copied()
            .chain([Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)]);
        let mut batch = vec![addr::add(&Address::host(lo, IMDS_ADDRESS))];
        batch.extend(nowhere.map(|net| route::add(&Route::nowhere(net, Kind::BlackHole, MAIN))));
        self.socket
            .batch(&batch)
            .and_then(|r| r.ok())
            .map_err(program("give the router its addresses"))
    }

    fn border(&mut self, vpc: &[Ipv4Net]) -> Result<(), FabricError> {
        let what = "connect the internet";
        let end = |name, up| End {
            name,
            mtu: Some(INTERNET_MTU),
            mac: None,
            group: 0,
            up,
        };
        let pair = link::add_veth(
            &end("internet", true),
            &end("eth0", false),
            Some(std::os::fd::AsFd::as_fd(&self.internet)),
        );
        self.socket.apply(&pair).map_err(program(what))?;
        let near = self.index_of("internet")?;
        self.socket
            .apply(&addr::add(&on_internet(near, BORDER)))
            .map_err(program(what))?;
        let mut outside = Socket::open_in(&self.internet).map_err(program(what))?;
        let far = index_of(&mut outside, "eth0")?;
        let mut batch = vec![link::up(far)];
        batch.extend([INTERNET_ADDRESS, EC2_ADDRESS].map(|a| addr::add(&on_internet(far, a))));
        batch.extend(
            vpc.iter()
                .map(|net| route::add(&Route::via(*net, BORDER, far, MAIN))),
        );
        outside
            .batch(&batch)
            .and_then(|r| r.ok())
            .map_err(program(what))?;
        ready(&mut outside, far)?;
        ready(&mut self.socket, near)
    }
}

fn on_internet(index: u32, address: Ipv4Addr) -> Address {
    Address {
        prefix_len: INTERNET_LEN,
        ..Address::host(index, address)
    }
}

pub fn index_of(socket: &mut Socket, name: &str) -> Result<u32, FabricError> {
    let found = socket
        .link_by_name(name)
        .map_err(program("look a link up"))?;
    found.map(|l| l.index).ok_or_else(|| FabricError::Vanished {
        name: name.to_owned(),
    })
}

/// Makes the kernel finish what the other end's coming up began. A link whose carrier just appeared drops packets
/// until a work item has run, which can take long under load; asking for the link runs it (since Linux 6.8).
pub fn ready(socket: &mut Socket, index: u32) -> Result<(), FabricError> {
    socket
        .link_by_index(index)
        .map(drop)
        .map_err(program("look a link up"))
}

/// `/proc/sys/net` shows the namespace of whoever looks: written from a thread inside.
fn sysctls(netns: &Netns, settings: &[(&str, &str)]) -> Result<(), FabricError> {
    let write = || {
        settings.iter().try_for_each(|(name, value)| {
            let path = format!("/proc/sys/net/ipv4/{name}");
            fs::write(&path, value).map_err(|source| FabricError::Sysctl { name: path, source })
        })
    };
    netns
        .run(write)
        .map_err(|source| FabricError::Namespace { source })?
}
