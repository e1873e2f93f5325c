//! Notifications about everything that the reconciler maintains, from the two kernel interfaces that send them: rtnetlink
//! and nftables.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::netlink::{Error, Event, Family, Monitor, Topic};
use crate::nft;

/// On a node whose pods have IPv4 addresses.
const TOPICS: [Topic; 7] = [
    Topic::Links,
    Topic::Qdiscs,
    Topic::Addresses,
    Topic::Routes,
    Topic::Rules,
    Topic::Neighbours,
    Topic::Settings,
];
/// On a node whose pods have IPv6 addresses. IPv4 settings matter there too: they guard the pods' links.
const TOPICS_V6: [Topic; 8] = [
    Topic::Links,
    Topic::Qdiscs,
    Topic::AddressesV6,
    Topic::RoutesV6,
    Topic::RulesV6,
    Topic::Neighbours,
    Topic::Settings,
    Topic::SettingsV6,
];

/// On a node whose pods reach destinations of the other family, too.
const TOPICS_BOTH: [Topic; 11] = [
    Topic::Links,
    Topic::Qdiscs,
    Topic::Addresses,
    Topic::Routes,
    Topic::Rules,
    Topic::AddressesV6,
    Topic::RoutesV6,
    Topic::RulesV6,
    Topic::Neighbours,
    Topic::Settings,
    Topic::SettingsV6,
];

/// The subscriptions.
#[derive(Debug)]
pub struct HostMonitor {
    network: Monitor,
    nftables: nft::NftMonitor,
}

/// The notifications that arrived together.
#[derive(Debug, Default)]
pub struct Changes {
    /// About links, addresses, routes, rules, neighbours and settings.
    pub events: Vec<Event>,
    /// Our nftables tables were changed, by us or by others.
    pub nftables: bool,
}

impl HostMonitor {
    /// Subscribes in the calling thread's namespace. `pods` is the family of the pods' addresses; `other_family`: they reach
    /// destinations of the other one, too. Changes that are made through the route sockets with the ports `own` are not
    /// reported.
    ///
    /// # Errors
    /// If the kernel cannot create the sockets.
    pub fn open(pods: Family, other_family: bool, own: &[u32]) -> Result<Self, Error> {
        let mut network = Monitor::open(match (pods, other_family) {
            (Family::V4, false) => &TOPICS[..],
            (Family::V6, false) => &TOPICS_V6,
            (_, true) => &TOPICS_BOTH,
        })?;
        network.expect_floods();
        own.iter().for_each(|port| network.ignore(*port));
        Ok(Self {
            network,
            nftables: nft::NftMonitor::open()?,
        })
    }

    /// Does not report changes of nftables through the socket with this port.
    pub fn ignore_nftables(&mut self, port: u32) {
        self.nftables.ignore(port);
    }

    /// Waits for a notification and returns everything that is pending, as [`HostMonitor::pending`] does. The result can be
    /// empty.
    ///
    /// # Errors
    /// If a socket fails.
    pub fn wait(&mut self) -> Result<Changes, Error> {
        let mut sockets = [
            PollFd::new(self.network.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.nftables.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut sockets, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => self.pending(),
            Err(errno) => Err(Error::Socket { op: "poll", errno }),
        }
    }

    /// As [`HostMonitor::wait`], but returns at once.
    ///
    /// # Errors
    /// If a socket fails.
    pub fn pending(&mut self) -> Result<Changes, Error> {
        Ok(Changes {
            events: self.network.pending()?,
            nftables: self.nftables.touched()?,
        })
    }
}
