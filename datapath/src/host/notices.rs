//! Word of everything on a node that the keeper cares for, from the two places where the kernel tells of it.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::netlink::{Error, Event, Family, Monitor, Topic};
use crate::nft;

const TOPICS: [Topic; 6] = [
    Topic::Links,
    Topic::Addresses,
    Topic::Routes,
    Topic::Rules,
    Topic::Neighbours,
    Topic::Settings,
];
/// Where pods have IPv6 addresses. Their links are guarded in IPv4 too, by its settings.
const TOPICS_V6: [Topic; 7] = [
    Topic::Links,
    Topic::AddressesV6,
    Topic::RoutesV6,
    Topic::RulesV6,
    Topic::Neighbours,
    Topic::Settings,
    Topic::SettingsV6,
];

/// The subscriptions.
#[derive(Debug)]
pub struct Notices {
    network: Monitor,
    nftables: nft::Watch,
}

/// What was told at one time.
#[derive(Debug, Default)]
pub struct News {
    /// Of links, addresses, routes, rules, neighbours and settings.
    pub events: Vec<Event>,
    /// Our nftables were touched, by whomever.
    pub nftables: bool,
}

impl Notices {
    /// Subscribes in the calling thread's namespace, of a node whose pods have addresses of the family `pods`. What is changed through the route sockets with the ports `own` is
    /// not told.
    ///
    /// # Errors
    /// When the kernel has no sockets to give.
    pub fn open(pods: Family, own: &[u32]) -> Result<Self, Error> {
        let mut network = Monitor::open(match pods {
            Family::V4 => &TOPICS[..],
            Family::V6 => &TOPICS_V6,
        })?;
        network.expect_floods();
        own.iter().for_each(|port| network.ignore(*port));
        Ok(Self {
            network,
            nftables: nft::Watch::open()?,
        })
    }

    /// Waits until the kernel tells of something, and takes what it has told, as [`Monitor::pending`] does. It may be nothing
    /// to the point.
    ///
    /// # Errors
    /// When a socket fails.
    pub fn wait(&mut self) -> Result<News, Error> {
        let mut sockets = [
            PollFd::new(self.network.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.nftables.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut sockets, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => self.pending(),
            Err(errno) => Err(Error::Socket { op: "poll", errno }),
        }
    }

    /// As [`Notices::wait`], without waiting.
    ///
    /// # Errors
    /// When a socket fails.
    pub fn pending(&mut self) -> Result<News, Error> {
        Ok(News {
            events: self.network.pending()?,
            nftables: self.nftables.touched()?,
        })
    }
}
