//! Change notifications: changes of links, addresses, routes, rules, neighbours and settings in a namespace, by anyone.
//!
//! Owns a subscribed socket. Notifications can be lost if the reader is slow. The kernel reports this, and so does
//! [`Event::Overrun`]: the reader must then check the whole state again.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::SockProtocol;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tracing::trace;

use super::link::Link;
use super::{Channel, Error, Frame, Mac, Socket};
use crate::netns::Netns;

/// About how many notifications are returned at once.
const SOME: usize = 256;

/// What to subscribe to, in IPv4 if IPv6 has its own topic. The value is the bit of the multicast group (`RTMGRP_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Topic {
    /// Links appear, change or disappear.
    Links = 1,
    /// Neighbours.
    Neighbours = 4,
    /// Queueing disciplines.
    Qdiscs = 8,
    /// Addresses.
    Addresses = 0x10,
    /// Routes.
    Routes = 0x40,
    /// Policy rules.
    Rules = 0x80,
    /// Addresses of IPv6.
    AddressesV6 = 0x100,
    /// Routes of IPv6.
    RoutesV6 = 0x400,
    /// Policy rules of IPv6 (`RTNLGRP_IPV6_RULE`).
    RulesV6 = 0x4_0000,
    /// `net.ipv4.conf.*.forwarding` and `rp_filter`, if they are set through `/proc/sys`. (Changes over netlink are not
    /// reported.)
    Settings = 0x80_0000,
    /// `net.ipv6.conf.*.forwarding`, in the same way. (Changes of `accept_ra` are not reported; of `disable_ipv6`, only
    /// their effects are.)
    SettingsV6 = 0x100_0000,
}

/// One notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link appeared or changed. This is its state of then. (A decoded message of a link takes 10 kB, and hundreds of them
    /// may be pending.)
    Link(Box<Link>),
    /// A link disappeared.
    LinkGone(Box<Link>),
    /// Another object appeared, changed or disappeared.
    Change(Box<RouteNetlinkMessage>),
    /// A setting of this link changed; `None` for a setting of all links or of new links.
    Setting {
        /// The link.
        index: Option<u32>,
    },
    /// Notifications were lost: list everything relevant.
    Overrun,
}

/// A subscribed socket.
#[derive(Debug)]
pub struct Monitor {
    channel: Channel,
    ready: std::collections::VecDeque<Event>,
    /// Ports whose changes are not reported.
    ignored: Vec<u32>,
}

impl Monitor {
    /// Subscribes in the calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::Socket`] if the kernel cannot create a socket.
    pub fn open(topics: &[Topic]) -> Result<Self, Error> {
        let groups = topics.iter().fold(0, |bits, topic| bits | *topic as u32);
        let mut channel = Channel::open(SockProtocol::NetlinkRoute, groups)?;
        channel.enlarge();
        Ok(Self {
            channel,
            ready: std::collections::VecDeque::new(),
            ignored: Vec::new(),
        })
    }

    /// Enlarges the buffer for many notifications at once, for a reader that also does other work.
    pub fn expect_floods(&mut self) {
        self.channel.expect_floods();
    }

    /// From now on, changes through the socket with this [port](Socket::port) are not reported. Effects of such a
    /// change, such as routes that disappear with a link, are still reported. Before Linux 6.2, changes of links do not
    /// contain the port.
    pub fn ignore(&mut self, port: u32) {
        self.ignored.push(port);
    }

    /// The notifications that have arrived so far, without waiting. If there are many, only the first ones, because
    /// decoded notifications need much more memory than in the kernel.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn pending(&mut self) -> Result<Vec<Event>, Error> {
        while self.ready.len() < SOME && self.read(true)? {}
        Ok(self.ready.drain(..).collect())
    }

    /// Subscribes in `netns`.
    ///
    /// # Errors
    /// As [`Monitor::open`], and [`Error::Namespace`] if the namespace cannot be entered.
    pub fn open_in(netns: &Netns, topics: &[Topic]) -> Result<Self, Error> {
        netns
            .run(|| Self::open(topics))
            .map_err(|source| Error::Namespace {
                op: "open monitor",
                source,
            })?
    }

    /// Waits for the next notification; `None` if there is none within `timeout`.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        let timer = Timer::start(timeout)?;
        self.next_before(&timer)
    }

    fn next_before(&mut self, timer: &Timer) -> Result<Option<Event>, Error> {
        while self.ready.is_empty() {
            if !timer.wait_for(self.channel.as_fd())? {
                return Ok(None);
            }
            self.read(false)?;
        }
        Ok(self.ready.pop_front())
    }

    /// Reads one datagram; false if there was none and it was not to be waited for.
    fn read(&mut self, at_once: bool) -> Result<bool, Error> {
        let op = "monitor";
        let received = if at_once {
            self.channel.try_receive(op)
        } else {
            self.channel.receive(op).map(Some)
        };
        let frames = match received {
            Err(e) if e.errno() == Some(Errno::ENOBUFS) => {
                self.ready.push_back(Event::Overrun);
                return Ok(true);
            }
            Ok(None) => return Ok(false),
            other => other?.into_iter().flatten(),
        };
        for frame in frames {
            let frame = frame?;
            if !self.ignored.contains(&frame.port) {
                self.ready.extend(event(&frame));
            }
        }
        Ok(true)
    }
}

fn event(frame: &Frame<'_>) -> Option<Event> {
    const RTM_NEWNETCONF: u16 = 80;
    if frame.kind == RTM_NEWNETCONF {
        return setting(frame.payload());
    }
    let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(frame.raw) {
        Ok(message) => message,
        // Other programs create objects of kinds that the packet crate does not know. None of them are ours.
        Err(error) => {
            trace!(%error, kind = frame.kind, "notification skipped");
            return None;
        }
    };
    trace!(?message, "netlink notification");
    let NetlinkPayload::InnerMessage(inner) = message.payload else {
        return None;
    };
    match &inner {
        RouteNetlinkMessage::NewLink(_) => {
            Link::from_message(&inner).map(Box::new).map(Event::Link)
        }
        RouteNetlinkMessage::DelLink(_) => Link::from_message(&inner)
            .map(Box::new)
            .map(Event::LinkGone),
        _ => Some(Event::Change(Box::new(inner))),
    }
}

/// A `RTM_NEWNETCONF`, which the packet crate does not know. When a link is created, all its settings are reported at
/// once: this is not a change.
fn setting(payload: &[u8]) -> Option<Event> {
    const NETCONFMSG: usize = 4;
    const IFINDEX: u16 = 1;
    const FORWARDING: u16 = 2;
    const PROXY_NEIGHBOURS: u16 = 5;
    let payload = payload.get(NETCONFMSG..)?;
    let find = |kind| {
        let mut attributes = NlasIterator::new(payload).flatten();
        let found = attributes.find(|a| a.kind() == kind)?;
        Some(i32::from_ne_bytes(found.value().try_into().ok()?))
    };
    if find(FORWARDING).is_some() && find(PROXY_NEIGHBOURS).is_some() {
        return None;
    }
    // Negative numbers mean all links, or new links.
    let index = u32::try_from(find(IFINDEX)?).ok();
    Some(Event::Setting { index })
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Waits until the socket's namespace has a link with this MAC address (an ENI that is being attached); `None` if none
/// appears within `timeout`. If there are several, such as a card and its VLANs, returns the one with `address`, or the
/// oldest. The calling thread must be in the socket's namespace.
///
/// # Errors
/// [`Error::ForeignNamespace`] if it is not; otherwise failures of either socket.
pub fn wait_for_link_by_mac(
    socket: &mut Socket,
    mac: Mac,
    address: Ipv4Addr,
    timeout: Duration,
) -> Result<Option<Link>, Error> {
    let has_mac = |link: &Link| link.mac == Some(mac);
    if let Some(link) = socket.link_with(address.into())?.filter(has_mac) {
        return Ok(Some(link));
    }
    if let Some(link) = socket.links()?.into_iter().find(has_mac) {
        return Ok(Some(link));
    }
    let op = "wait for link";
    let here = Netns::current().map_err(|e| Error::Namespace {
        op,
        source: std::io::Error::other(e),
    })?;
    if socket.netns_id()? != here.id() {
        return Err(Error::ForeignNamespace { op });
    }
    // Subscribe first, then list: a link that appears in between is in both, never in neither.
    let mut monitor = Monitor::open(&[Topic::Links])?;
    let timer = Timer::start(timeout)?;
    loop {
        if let Some(link) = socket.links()?.into_iter().find(has_mac) {
            return Ok(Some(link));
        }
        loop {
            match monitor.next_before(&timer)? {
                None => return Ok(None),
                Some(Event::Overrun) => break,
                // The notification may be out of date; the list above decides.
                Some(Event::Link(link)) if has_mac(&link) => break,
                Some(_) => {}
            }
        }
    }
}

/// A time span that the kernel measures, so that this crate does not read a clock.
struct Timer(TimerFd);

impl Timer {
    fn start(span: Duration) -> Result<Self, Error> {
        let failed = |errno| Error::Socket { op: "timer", errno };
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).map_err(failed)?;
        // A zero would disarm the timer.
        let span = TimeSpec::from_duration(span.max(Duration::from_nanos(1)));
        timer
            .set(Expiration::OneShot(span), TimerSetTimeFlags::empty())
            .map_err(failed)?;
        Ok(Self(timer))
    }

    /// Whether `fd` became readable before the timeout. If it is already readable, the result is true even after the
    /// timeout.
    fn wait_for(&self, fd: BorrowedFd<'_>) -> Result<bool, Error> {
        loop {
            let mut fds = [
                PollFd::new(fd, PollFlags::POLLIN),
                PollFd::new(self.0.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => return Ok(fds[0].any().unwrap_or(false)),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::Socket { op: "poll", errno }),
            }
        }
    }
}

#[cfg(test)]
mod tests;
