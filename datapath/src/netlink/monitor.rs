//! Change notifications: what others (or we) did to links, addresses, routes and rules of a namespace.
//!
//! Owns a subscribed socket. Notifications may be lost when the reader is slow; the kernel says so, and so does
//! [`Event::Overrun`], upon which the reader must look at the whole state again.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::SockProtocol;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tracing::trace;

use super::link::Link;
use super::{Channel, Error, Mac, Socket};
use crate::netns::Netns;

/// What to be told about, IPv4 where families differ. The value is the bit of the multicast group (`RTMGRP_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Topic {
    /// Links appear, change, go.
    Links = 1,
    /// Addresses.
    Addresses = 0x10,
    /// Routes.
    Routes = 0x40,
    /// Policy rules.
    Rules = 0x80,
}

/// One notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An object appeared, changed or went.
    Change(Box<RouteNetlinkMessage>),
    /// Notifications were lost: dump what matters.
    Overrun,
}

/// A subscribed socket.
#[derive(Debug)]
pub struct Monitor {
    channel: Channel,
    ready: std::collections::VecDeque<Event>,
}

impl Monitor {
    /// Subscribes in the calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::Socket`] when the kernel has no socket to give.
    pub fn open(topics: &[Topic]) -> Result<Self, Error> {
        let groups = topics.iter().fold(0, |bits, topic| bits | *topic as u32);
        let mut channel = Channel::open(SockProtocol::NetlinkRoute, groups)?;
        channel.enlarge();
        Ok(Self {
            channel,
            ready: std::collections::VecDeque::new(),
        })
    }

    /// Subscribes in `netns`.
    ///
    /// # Errors
    /// As [`Monitor::open`], and [`Error::Namespace`] when the namespace cannot be entered.
    pub fn open_in(netns: &Netns, topics: &[Topic]) -> Result<Self, Error> {
        netns
            .run(|| Self::open(topics))
            .map_err(|source| Error::Namespace {
                op: "open monitor",
                source,
            })?
    }

    /// Waits for the next notification; `None` when none comes within `timeout`.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        let timer = Timer::start(timeout)?;
        self.next_before(&timer)
    }

    fn next_before(&mut self, timer: &Timer) -> Result<Option<Event>, Error> {
        while self.ready.is_empty() {
            if !timer.wait_for(self.channel.as_fd())? {
                return Ok(None);
            }
            self.read()?;
        }
        Ok(self.ready.pop_front())
    }

    fn read(&mut self) -> Result<(), Error> {
        let op = "monitor";
        let frames = match self.channel.receive(op) {
            Err(Error::Socket {
                errno: Errno::ENOBUFS,
                ..
            }) => {
                self.ready.push_back(Event::Overrun);
                return Ok(());
            }
            other => other?,
        };
        for frame in frames {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(frame?.raw)
                .map_err(|source| Error::Decode { op, source })?;
            trace!(?message, "netlink notification");
            if let NetlinkPayload::InnerMessage(inner) = message.payload {
                self.ready.push_back(Event::Change(Box::new(inner)));
            }
        }
        Ok(())
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Waits until the socket's namespace has a link with this MAC address (an ENI that is being attached); `None` when
/// none appears within `timeout`. Of several, such as a card and the VLANs on it, the oldest. The calling thread must
/// be in the socket's namespace.
///
/// # Errors
/// [`Error::ForeignNamespace`] when it is not; otherwise failures of either socket.
pub fn wait_for_link_by_mac(
    socket: &mut Socket,
    mac: Mac,
    timeout: Duration,
) -> Result<Option<Link>, Error> {
    let has_mac = |link: &Link| link.mac == Some(mac);
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
    // Subscribe first, look second: a link that appears in between is then in both, and never in neither.
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
                // The notification may carry a state that is past; the dump above has the last word.
                Some(Event::Change(m)) if Link::from_message(&m).is_some_and(|l| has_mac(&l)) => {
                    break;
                }
                Some(Event::Change(_)) => {}
            }
        }
    }
}

/// A span of time that the kernel measures, so that nobody here reads a clock.
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

    /// Whether `fd` became readable before the time was up. What is readable already counts, even when it is.
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
