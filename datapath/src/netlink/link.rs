//! Links: veth pairs, changes, IPv4 device settings, look-ups.
//!
//! Builds requests and reads answers; decides nothing. Links are addressed by index wherever the caller has one: a
//! name may belong to another link by the time the kernel reads the request.

mod ipv6;

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{DefaultNla, NLM_F_ECHO};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::{Error, Mac, Request, Socket};

pub use ipv6::{Inet6Conf, set_no_own_ipv6, set_no_own_ipv6_by_name};

/// One end of a veth pair as it shall be created. `None` leaves the choice to the kernel.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// At most 15 bytes.
    pub name: &'a str,
    /// In bytes.
    pub mtu: Option<u32>,
    /// Set at creation, so that udev's `MACAddressPolicy=persistent` leaves it alone.
    pub mac: Option<Mac>,
    /// Link group; 0 is the default group.
    pub group: u32,
    /// Only honoured on the near end: the kernel answers `ENOTCONN` to a peer that shall be created up.
    pub up: bool,
}

/// A link as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Interface name.
    pub name: String,
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
    /// `IFLA_LINK`: for a veth the index of the other end, in that end's namespace.
    pub peer: Option<u32>,
    /// Kind of a virtual link (`veth`, `vlan`); `None` for hardware.
    pub kind: Option<String>,
    /// `net.ipv4.conf.<link>.rp_filter`, when the answer carries the IPv4 settings. So with the next two.
    pub rp_filter: Option<i32>,
    /// `net.ipv4.conf.<link>.forwarding`, which decides for packets that come in by this link.
    pub forwarding: Option<i32>,
    /// `net.ipv4.conf.<link>.accept_redirects`.
    pub accept_redirects: Option<i32>,
    /// The IPv6 settings, when the answer carries them: not where the kernel has no IPv6, nor on links that cannot.
    pub ipv6: Option<Inet6Conf>,
}

/// IPv4 settings of a device that can be set over rtnetlink, which works where `/proc/sys` is read-only. The numbers
/// are `IPV4_DEVCONF_*` of the kernel's `ip.h`, which count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum InetConf {
    /// `forwarding`.
    Forwarding = 1,
    /// `proxy_arp`.
    ProxyArp = 3,
    /// `accept_redirects`. The kernel wants this and `all` when it forwards.
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
}

/// Changes to an existing link; `None` leaves a property as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// Administrative state.
    pub up: Option<bool>,
    /// Whether the link takes part in ARP. A change empties its neighbour table, permanent entries included.
    pub arp: Option<bool>,
    /// In bytes.
    pub mtu: Option<u32>,
    /// Ethernet address.
    pub mac: Option<Mac>,
    /// Link group.
    pub group: Option<u32>,
    /// New name; the link must be down on kernels before 6.2.
    pub name: Option<&'a str>,
    /// Moves the link. An RCU grace period (16 ms): create links where they belong instead.
    pub netns: Option<BorrowedFd<'a>>,
}

/// Creates a veth pair: `near` in the socket's namespace, `far` in `netns` (or with it, when `None`), in one request.
#[must_use]
pub fn add_veth(near: &End<'_>, far: &End<'_>, netns: Option<BorrowedFd<'_>>) -> Request {
    veth(end(near), end(&End { up: false, ..*far }), netns)
}

/// As [`add_veth`], with one transmit and one receive queue per end instead of one per CPU that the machine could
/// ever have.
///
/// Every queue is a directory in sysfs, four for each pair and CPU: creating a pair takes 0.36 ms on a machine with two
/// CPUs and 0.24 ms with one queue, and the difference grows with the CPUs, to milliseconds on the largest. A veth
/// makes nothing of the queues: it has no queueing discipline, transmits without a lock, and receives on the CPU that
/// transmits. They are missed only by whoever attaches XDP to a pod's link or configures steering per queue.
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

/// Has the near end of a pair that is to be made take no part in ARP: the kernel neither asks nor answers nor learns on
/// it. Every neighbour that its owner wants must be set.
#[must_use]
pub fn without_arp(mut request: Request) -> Request {
    if let RouteNetlinkMessage::NewLink(message) = &mut request.message {
        message.header.flags |= LinkFlags::Noarp;
        message.header.change_mask |= LinkFlags::Noarp;
    }
    request
}

/// Asks for the created object to be sent back with the verdict. For links only kernels from 6.2 comply.
pub(crate) fn echo(mut request: Request) -> Request {
    request.flags |= NLM_F_ECHO;
    request
}

/// Changes link `index`.
#[must_use]
pub fn set(index: u32, change: &Change<'_>) -> Request {
    changed(of(index), change)
}

/// Changes the link of this name. A new name cannot be among the changes: the request would be looking for it.
#[must_use]
pub fn set_by_name(name: &str, change: &Change<'_>) -> Request {
    changed(
        named(name),
        &Change {
            name: None,
            ..*change
        },
    )
}

fn changed(mut message: LinkMessage, change: &Change<'_>) -> Request {
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
    // In requests each setting is an attribute of its own; only answers are the plain array that the packet crate
    // models. A zero cannot be told from "unset" in its request form, so the attributes are laid out here.
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

/// Deletes link `index`; for a veth its peer goes too. Waits for an RCU grace period.
#[must_use]
pub fn del(index: u32) -> Request {
    Request::ack("link del", RouteNetlinkMessage::DelLink(of(index)), 0)
}

/// Deletes the link of this name.
#[must_use]
pub fn del_by_name(name: &str) -> Request {
    Request::ack("link del", RouteNetlinkMessage::DelLink(named(name)), 0)
}

/// Deletes every link of `group`, together and thus in one RCU grace period; `ENODEV` when there is none.
#[must_use]
pub fn del_group(group: u32) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    Request::ack("link del group", RouteNetlinkMessage::DelLink(message), 0)
}

/// Asks for link `index`, without its counters.
#[must_use]
pub fn get(index: u32) -> Request {
    Request::ack(
        "link get",
        RouteNetlinkMessage::GetLink(without_stats(of(index))),
        0,
    )
}

/// Asks for the link of this name, without its counters.
#[must_use]
pub fn get_by_name(name: &str) -> Request {
    Request::ack(
        "link get",
        RouteNetlinkMessage::GetLink(without_stats(named(name))),
        0,
    )
}

/// Asks for all links of the socket's namespace, without their counters.
#[must_use]
pub fn dump() -> Request {
    Request::dump(
        "link dump",
        RouteNetlinkMessage::GetLink(without_stats(LinkMessage::default())),
    )
}

impl Socket {
    /// The link of this name, if there is one.
    ///
    /// # Errors
    /// Any failure but "no such link".
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>, Error> {
        self.one_link(&get_by_name(name))
    }

    /// The link with this index, if there is one.
    ///
    /// # Errors
    /// Any failure but "no such link".
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        self.one_link(&get(index))
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        self.dump(&dump(), Link::from_message)
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
    /// Reads a `RTM_NEWLINK` or `RTM_DELLINK`; `None` for any other message.
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
                LinkAttribute::Address(bytes) => {
                    link.mac = bytes.as_slice().try_into().ok().map(Mac)
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Group(group) => link.group = *group,
                LinkAttribute::Link(index) => link.peer = Some(*index),
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
