//! Links: veth pairs, changes, IPv4 device settings, lookups.
//!
//! Builds requests and parses answers; makes no decisions. Links are addressed by index wherever the caller has one,
//! because a name may belong to another link when the kernel handles the request. May use the rest of `netlink`. Must
//! not know what a link is for.

mod ipv6;
mod programs;

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{DefaultNla, NLM_F_ECHO};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::{Error, Family, Mac, Request, Socket};

pub use ipv6::{Inet6Conf, set_no_own_ipv6, set_no_own_ipv6_by_name, set_own_ipv6};

/// One end of a veth pair to be created. `None` leaves the choice to the kernel.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// At most 15 bytes.
    pub name: &'a str,
    /// In bytes.
    pub mtu: Option<u32>,
    /// Set at creation, so that udev's `MACAddressPolicy=persistent` does not change it.
    pub mac: Option<Mac>,
    /// Link group; 0 is the default group.
    pub group: u32,
    /// Only used for the near end: the kernel returns `ENOTCONN` if the peer is to be created up.
    pub up: bool,
}

/// A link, as reported by the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// The text that somebody attached to the link (`IFLA_IFALIAS`), if any. The kernel does not interpret it.
    pub alias: Option<String>,
    /// `None` for links without an Ethernet address, such as tunnels.
    pub mac: Option<Mac>,
    /// In bytes.
    pub mtu: u32,
    /// Link group.
    pub group: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Takes part in ARP (no `IFF_NOARP`).
    pub arp: bool,
    /// `IFLA_LINK`: for a veth, the index of the other end in that end's namespace.
    pub peer: Option<u32>,
    /// The namespace of the other end, if that is another one: its id in this namespace (`IFLA_LINK_NETNSID`).
    pub peer_netns: Option<i32>,
    /// Kind of a virtual link (`veth`, `vlan`); `None` for hardware.
    pub kind: Option<String>,
    /// `net.ipv4.conf.<link>.rp_filter`, if the answer contains the IPv4 settings. The same is true for the next three.
    pub rp_filter: Option<i32>,
    /// `net.ipv4.conf.<link>.forwarding`, which decides for packets that arrive on this link.
    pub forwarding: Option<i32>,
    /// `net.ipv4.conf.<link>.accept_redirects`.
    pub accept_redirects: Option<i32>,
    /// `net.ipv4.conf.<link>.route_localnet`.
    pub route_localnet: Option<i32>,
    /// The IPv6 settings, if the answer contains them: not if the kernel has no IPv6, and not on links that do not
    /// support it.
    pub ipv6: Option<Inet6Conf>,
}

/// IPv4 settings of a device that can be set over rtnetlink, which works if `/proc/sys` is read-only. The numbers are
/// `IPV4_DEVCONF_*` of the kernel's `ip.h`, which start at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum InetConf {
    /// `forwarding`.
    Forwarding = 1,
    /// `proxy_arp`.
    ProxyArp = 3,
    /// `accept_redirects`. If it forwards, the kernel requires both this and `all`.
    AcceptRedirects = 4,
    /// `send_redirects`.
    SendRedirects = 6,
    /// `rp_filter`: 0 off, 1 strict, 2 loose. The kernel uses the larger of this and `all`.
    RpFilter = 8,
    /// `arp_announce`.
    ArpAnnounce = 18,
    /// `arp_ignore`.
    ArpIgnore = 19,
    /// `accept_local`.
    AcceptLocal = 23,
    /// `route_localnet`: packets from and to 127.0.0.0/8 may use the link.
    RouteLocalnet = 26,
}

/// Changes of an existing link; `None` leaves a property unchanged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// Administrative state.
    pub up: Option<bool>,
    /// Whether the link takes part in ARP. A change empties its neighbour table, including permanent entries.
    pub arp: Option<bool>,
    /// In bytes.
    pub mtu: Option<u32>,
    /// Ethernet address.
    pub mac: Option<Mac>,
    /// Link group.
    pub group: Option<u32>,
    /// New name; on kernels before 6.2, the link must be down (`EBUSY`).
    pub name: Option<&'a str>,
    /// A text of at most 255 bytes that stays with the link, however it is named.
    pub alias: Option<&'a str>,
    /// Moves the link. This takes an RCU grace period (16 ms): create links in the right namespace instead.
    pub netns: Option<BorrowedFd<'a>>,
}

/// Creates a veth pair in one request: `near` in the socket's namespace, `far` in `netns` (or in the same namespace, if
/// `None`).
#[must_use]
pub fn add_veth(near: &End<'_>, far: &End<'_>, netns: Option<BorrowedFd<'_>>) -> Request {
    veth(end(near), end(&End { up: false, ..*far }), netns)
}

/// As [`add_veth`], with one transmit and one receive queue per end instead of one per possible CPU of the machine.
///
/// Every queue is a directory in sysfs, four for each pair and CPU. Creating a pair takes 0.36 ms on a machine with two
/// CPUs, and 0.24 ms with one queue. The difference grows with the number of CPUs, to milliseconds on the largest
/// machines. A veth does not benefit from queues: it has no queueing discipline, transmits without a lock, and receives
/// on the transmitting CPU. Only XDP on a pod's link or steering per queue would need them.
#[must_use]
pub fn add_veth_with_one_queue(
    near: &End<'_>,
    far: &End<'_>,
    netns: Option<BorrowedFd<'_>>,
) -> Request {
    let (mut near, mut far) = (end(near), end(&End { up: false, ..*far }));
    for end in [&mut near, &mut far] {
        end.attributes
            .extend([LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)]);
    }
    veth(near, far, netns)
}

fn veth(mut near: LinkMessage, mut far: LinkMessage, netns: Option<BorrowedFd<'_>>) -> Request {
    far.attributes
        .extend(netns.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
    near.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
    ]));
    Request::create("veth add", RouteNetlinkMessage::NewLink(near))
}

/// Disables ARP on the near end of a new pair: the kernel neither asks nor answers nor learns on it. All required
/// neighbours must be set.
#[must_use]
pub fn without_arp(mut request: Request) -> Request {
    if let RouteNetlinkMessage::NewLink(message) = &mut request.message {
        message.header.flags |= LinkFlags::Noarp;
        message.header.change_mask |= LinkFlags::Noarp;
    }
    request
}

/// Requests that the created object is returned with the acknowledgement. For links, only kernels from 6.2 do this.
pub(crate) fn echo(mut request: Request) -> Request {
    request.flags |= NLM_F_ECHO;
    request
}

/// Changes link `index`.
#[must_use]
pub fn set(index: u32, change: &Change<'_>) -> Request {
    let mut message = of(index);
    let flags = [
        (change.up, LinkFlags::Up),
        (change.arp.map(|arp| !arp), LinkFlags::Noarp),
    ];
    for (set, flag) in flags {
        let Some(set) = set else { continue };
        message.header.change_mask |= flag;
        message.header.flags.set(flag, set);
    }
    let attributes = &mut message.attributes;
    attributes.extend(change.mtu.map(LinkAttribute::Mtu));
    attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes.extend(change.group.map(LinkAttribute::Group));
    attributes.extend(
        change
            .name
            .map(|name| LinkAttribute::IfName(name.to_owned())),
    );
    attributes.extend(
        change
            .alias
            .map(|alias| LinkAttribute::IfAlias(alias.to_owned())),
    );
    attributes.extend(
        change
            .netns
            .map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())),
    );
    Request::ack("link set", RouteNetlinkMessage::SetLink(message), 0)
}

/// Sets link `index` up.
#[must_use]
pub fn up(index: u32) -> Request {
    set(
        index,
        &Change {
            up: Some(true),
            ..Change::default()
        },
    )
}

/// Sets IPv4 device settings of link `index`.
#[must_use]
pub fn set_inet_conf(index: u32, settings: &[(InetConf, u32)]) -> Request {
    const IFLA_INET_CONF: u16 = 1;
    const NLA_F_NESTED: u16 = 0x8000;
    // In requests, each setting is a separate attribute; only answers have the plain array that the packet crate
    // models. Its request form cannot distinguish a zero from "unset", so the attributes are encoded here.
    let mut nested = Vec::with_capacity(8 * settings.len());
    for (setting, value) in settings {
        nested.extend_from_slice(&8u16.to_ne_bytes());
        nested.extend_from_slice(&(*setting as u16).to_ne_bytes());
        nested.extend_from_slice(&value.to_ne_bytes());
    }
    let inet = AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, nested));
    let mut message = of(index);
    message
        .attributes
        .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![
            inet,
        ])]));
    Request::ack(
        "link set inet conf",
        RouteNetlinkMessage::SetLink(message),
        0,
    )
}

/// Also attaches this text to the link that the request changes. It costs no message of its own.
#[must_use]
pub fn with_alias(mut request: Request, alias: &str) -> Request {
    if let RouteNetlinkMessage::SetLink(message) = &mut request.message {
        let alias = LinkAttribute::IfAlias(alias.to_owned());
        message.attributes.push(alias);
    }
    request
}

/// Deletes link `index`; for a veth, also its peer. Waits for an RCU grace period.
#[must_use]
pub fn del(index: u32) -> Request {
    Request::ack("link del", RouteNetlinkMessage::DelLink(of(index)), 0)
}

/// Deletes every link of `group` together, in one RCU grace period; `ENODEV` if there is none.
#[must_use]
pub fn del_group(group: u32) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    Request::ack("link del group", RouteNetlinkMessage::DelLink(message), 0)
}

/// Requests link `index`, without its counters.
#[must_use]
pub fn get(index: u32) -> Request {
    Request::ack(
        "link get",
        RouteNetlinkMessage::GetLink(without_stats(of(index))),
        0,
    )
}

/// Requests the link with this name, without its counters.
#[must_use]
pub fn get_by_name(name: &str) -> Request {
    Request::ack(
        "link get",
        RouteNetlinkMessage::GetLink(without_stats(named(name))),
        0,
    )
}

/// Lists all links of the socket's namespace, without their counters.
#[must_use]
pub fn dump() -> Request {
    Request::dump(
        "link dump",
        RouteNetlinkMessage::GetLink(without_stats(LinkMessage::default())),
    )
}

impl Socket {
    /// The link with this name, if it exists.
    ///
    /// # Errors
    /// Any failure except "no such link".
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>, Error> {
        self.one_link(&get_by_name(name))
    }

    /// The link with this index, if it exists.
    ///
    /// # Errors
    /// Any failure except "no such link".
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        self.one_link(&get(index))
    }

    /// The other end of a veth in another namespace, which is not entered: the kernel answers for every namespace over which
    /// the process has `CAP_NET_ADMIN`. `None` if there is no such end any more.
    ///
    /// # Errors
    /// Any failure except "no such link".
    pub fn peer_of(&mut self, link: &Link) -> Result<Option<Link>, Error> {
        let (Some(index), Some(netns)) = (link.peer, link.peer_netns) else {
            return Ok(None);
        };
        let mut message = without_stats(of(index));
        message.attributes.push(LinkAttribute::IfNetnsId(netns));
        let request = Request::ack("link get", RouteNetlinkMessage::GetLink(message), 0);
        match self.one_link(&request) {
            // The namespace, and its id, are gone.
            Err(e) if e.is(Errno::EINVAL) => Ok(None),
            other => other,
        }
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        self.dump(&dump(), Link::from_message)
    }

    /// The link that has this address. A host with hundreds of pods has few addresses, so this takes a small part of the time
    /// of listing all links.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub fn link_with(&mut self, address: IpAddr) -> Result<Option<Link>, Error> {
        let has = self.addresses(Family::of(address), None)?;
        match has.iter().find(|known| known.address == address) {
            Some(known) => self.link_by_index(known.index),
            None => Ok(None),
        }
    }

    fn one_link(&mut self, request: &Request) -> Result<Option<Link>, Error> {
        match self.get(request) {
            Ok(answers) => Ok(answers.iter().find_map(Link::from_message)),
            Err(e) if e.is(Errno::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Link {
    /// Parses a `RTM_NEWLINK` or `RTM_DELLINK`; `None` for any other message.
    #[must_use]
    pub fn from_message(message: &RouteNetlinkMessage) -> Option<Self> {
        let (RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)) =
            message
        else {
            return None;
        };
        let header = &message.header;
        let mut link = Self {
            index: header.index,
            up: header.flags.contains(LinkFlags::Up),
            arp: !header.flags.contains(LinkFlags::Noarp),
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                LinkAttribute::Address(bytes) => {
                    link.mac = bytes.as_slice().try_into().ok().map(Mac)
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Group(group) => link.group = *group,
                LinkAttribute::Link(index) => link.peer = Some(*index),
                LinkAttribute::LinkNetNsId(id) => link.peer_netns = Some(*id).filter(|id| *id >= 0),
                LinkAttribute::LinkInfo(info) => link.kind = kind(info),
                LinkAttribute::AfSpecUnspec(families) => link.learn_settings(families),
                _ => {}
            }
        }
        Some(link)
    }

    fn learn_settings(&mut self, families: &[AfSpecUnspec]) {
        self.ipv6 = Inet6Conf::of(families);
        let inet = families.iter().filter_map(|family| match family {
            AfSpecUnspec::Inet(inet) => Some(inet),
            _ => None,
        });
        for settings in inet.flatten() {
            if let AfSpecInet::DevConf(conf) = settings {
                self.rp_filter = Some(conf.rp_filter);
                self.forwarding = Some(conf.forwarding);
                self.accept_redirects = Some(conf.accept_redirects);
                self.route_localnet = Some(conf.route_localnet);
            }
        }
    }
}

fn kind(info: &[LinkInfo]) -> Option<String> {
    info.iter().find_map(|i| match i {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

fn of(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn end(end: &End<'_>) -> LinkMessage {
    let mut message = named(end.name);
    message.header.interface_family = AddressFamily::Unspec;
    if end.up {
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    message.attributes.extend(end.mtu.map(LinkAttribute::Mtu));
    message
        .attributes
        .extend(end.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    if end.group != 0 {
        message.attributes.push(LinkAttribute::Group(end.group));
    }
    message
}

fn without_stats(mut message: LinkMessage) -> LinkMessage {
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}
