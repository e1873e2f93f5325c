//! The keeper: what the node's network shall be, and the one socket that makes it so.
//!
//! Owns the desired state of ENIs and of the pods' host sides. Every change is noted here before or with its effect, so
//! that a repair, which is the same difference as the first set-up, can never undo what was wanted. What notifications
//! mean for it is [`Doubt`]; a doubt is only ever a reason to look.

mod doubt;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::{During, EniLink, HostConfig, HostError, News, eni};
use crate::netlink::{Error, Family, Kind, Mac, Socket, Tally};
use crate::nft::{Fingerprint, Ruleset};
use crate::pod::{self, AddError, PodLink, PodRef, Standing, Wired};

pub use doubt::Doubt;

/// See the module. Belongs to one thread, in the namespace that it keeps.
#[derive(Debug)]
pub struct Keeper {
    socket: Socket,
    desired: Desired,
    /// What nftables were told to be, and what they then were; `None` when that could not be told.
    left: Option<(Ruleset, Fingerprint)>,
}

/// What shall be.
#[derive(Debug)]
struct Desired {
    config: HostConfig,
    /// Link index of the primary ENI.
    primary: u32,
    /// Secondary ENIs by index, each with the index of its link, if that was there when last looked for.
    enis: BTreeMap<u16, (EniLink, Option<u32>)>,
    /// By name of the host end.
    pods: BTreeMap<String, Standing>,
}

/// What a repair came to.
#[derive(Debug, Default)]
pub struct Repaired {
    /// What had to be changed, by kind.
    pub changed: Tally,
    /// What could not be put right.
    pub failures: Vec<HostError>,
    /// ENIs whose link is gone since this was last looked for, by MAC address: nothing of ours brings that back.
    pub gone: Vec<Mac>,
}

impl Keeper {
    /// Takes over the calling thread's namespace; as [`prepare`](super::prepare).
    ///
    /// # Errors
    /// As [`prepare`](super::prepare).
    pub fn take_over(mut socket: Socket, config: HostConfig) -> Result<Self, HostError> {
        super::stale::remove(&mut socket)?;
        let primary = super::prepare(&mut socket, &config)?.index;
        let mut keeper = Self {
            socket,
            desired: Desired {
                config,
                primary,
                enis: BTreeMap::new(),
                pods: BTreeMap::new(),
            },
            left: None,
        };
        keeper.remember_nftables();
        Ok(keeper)
    }

    /// The socket, for questions.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// As [`update_local`](super::update_local).
    ///
    /// # Errors
    /// As [`update_local`](super::update_local).
    pub fn update_local(&mut self, local: Vec<Ipv4Net>) -> Result<(), HostError> {
        super::update_local(&mut self.socket, &mut self.desired.config, local)?;
        self.remember_nftables();
        Ok(())
    }

    /// As [`add_eni`](super::add_eni), without waiting for the link.
    ///
    /// # Errors
    /// As [`add_eni`](super::add_eni).
    pub fn add_eni(&mut self, eni: EniLink) -> Result<(), HostError> {
        let index = super::add_eni(&mut self.socket, &eni, Duration::ZERO)?;
        self.desired.enis.insert(eni.index, (eni, Some(index)));
        Ok(())
    }

    /// As [`remove_eni`](super::remove_eni).
    ///
    /// # Errors
    /// As [`remove_eni`](super::remove_eni).
    pub fn remove_eni(&mut self, index: u16, table: u32) -> Result<(), Vec<HostError>> {
        self.desired.enis.remove(&index);
        super::remove_eni(&mut self.socket, table)
    }

    /// As [`pod::add`].
    ///
    /// # Errors
    /// As [`pod::add`].
    pub fn add_pod(
        &mut self,
        pod: &mut Socket,
        netns: BorrowedFd<'_>,
        link: &PodLink,
    ) -> Result<Wired, AddError> {
        let wired = pod::add(&mut self.socket, pod, netns, link)?;
        self.stands(Standing {
            host_index: Some(wired.host_index),
            ..Standing::from(link)
        });
        Ok(wired)
    }

    /// Keeps a pod that was wired by a former life.
    pub fn stands(&mut self, pod: Standing) {
        self.desired.pods.insert(pod.host_name.clone(), pod);
    }

    /// As [`pod::unroute`]: the pod is kept no longer.
    ///
    /// # Errors
    /// As [`pod::unroute`].
    pub fn remove_pod(&mut self, pod: &PodRef) -> Result<(), Error> {
        let kept = self.desired.pods.remove(&pod.host_name);
        // Once only: a repetition looks for itself.
        match kept.and_then(|kept| kept.host_index) {
            Some(index) => pod::unroute_over(&mut self.socket, pod.address, index),
            None => pod::unroute(&mut self.socket, pod),
        }
    }

    /// What is in doubt after this news, and was before it.
    #[must_use]
    pub fn doubt(&self, news: &News, before: Doubt) -> Doubt {
        let mut doubt = before;
        doubt.nftables |= news.nftables;
        for event in &news.events {
            self.desired.doubt(event, &mut doubt);
        }
        doubt
    }

    /// Looks at what is in doubt, and puts right what is not as it shall be, by difference: traffic that has its way is
    /// not disturbed.
    pub fn repair(&mut self, doubt: &Doubt) -> Repaired {
        let before = self.socket.changed();
        let mut repaired = Repaired::default();
        if doubt.node {
            self.repair_node(&mut repaired);
        }
        if doubt.of_pods() {
            repaired.failures.extend(self.repair_ipv6_of_pods().err());
            let pods = self.desired.pods.values();
            let failure = pod::repair(&mut self.socket, pods).err();
            let failure = failure.map(|source| HostError::Netlink {
                what: "put the pods' links right",
                source,
            });
            repaired.failures.extend(failure);
        }
        // Last: the way that a mark leads is complete before anything is marked.
        if doubt.nftables || doubt.node {
            repaired.failures.extend(self.repair_nftables().err());
        }
        repaired.changed = self.socket.changed().since(before);
        repaired
    }

    /// Whether hardware with one of these MAC addresses is there and still not known.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn has_strangers(&mut self, macs: &BTreeSet<Mac>) -> Result<bool, Error> {
        let links = self.socket.links()?;
        let mut present = links.iter().filter_map(|link| link.mac);
        Ok(present.any(|mac| macs.contains(&mac) && self.desired.is_strange(mac)))
    }

    fn repair_node(&mut self, repaired: &mut Repaired) {
        let failures = &mut repaired.failures;
        match super::ensure(&mut self.socket, &self.desired.config) {
            Ok(primary) => self.desired.primary = primary.index,
            Err(failure) => failures.push(failure),
        }
        let links = match self.socket.links() {
            Ok(links) => links,
            Err(source) => {
                let what = "list links";
                return failures.push(HostError::Netlink { what, source });
            }
        };
        for (eni, index) in self.desired.enis.values_mut() {
            let Some(link) = links.iter().find(|link| link.mac == Some(eni.mac)) else {
                repaired.gone.extend(index.take().map(|_| eni.mac));
                continue;
            };
            *index = Some(link.index);
            failures.extend(eni::ensure(&mut self.socket, eni, link).err());
        }
    }

    /// First of a pod's: without IPv6 its link takes no route.
    fn repair_ipv6_of_pods(&mut self) -> Result<(), HostError> {
        if self.desired.config.pods != Family::V6 {
            return Ok(());
        }
        let links = self.socket.links().during("list links")?;
        let pods = &self.desired.pods;
        let of_pods = links.iter().filter(|link| pods.contains_key(&link.name));
        for _ in 0..super::ipv6::ensure_pod_links(of_pods)? {
            self.socket.count(Kind::Setting);
        }
        Ok(())
    }

    /// Nothing is written when they are as we left them, and we would leave them so again.
    fn repair_nftables(&mut self) -> Result<(), HostError> {
        let wanted = self.ruleset()?;
        let mut nft = super::nft(&self.socket)?;
        let what = "look at nftables";
        let found = nft.fingerprint().during(what)?;
        let as_left = |(made, left): &(Ruleset, Fingerprint)| *made == wanted && found == *left;
        if self.left.as_ref().is_some_and(as_left) {
            return Ok(());
        }
        nft.replace(&wanted).during("set up nftables again")?;
        self.socket.count(Kind::Nftables);
        self.left = Some((wanted, nft.fingerprint().during(what)?));
        Ok(())
    }

    /// To be called after each change of ours, so that it is not taken for somebody else's. If it fails, the next repair
    /// replaces what may be right, which costs nothing but the work.
    fn remember_nftables(&mut self) {
        self.left = self.look_at_nftables();
    }

    fn ruleset(&self) -> Result<Ruleset, HostError> {
        super::ruleset(&self.desired.config, self.desired.primary)
    }

    fn look_at_nftables(&self) -> Option<(Ruleset, Fingerprint)> {
        let made = self.ruleset().ok()?;
        let fingerprint = super::nft(&self.socket).ok()?.fingerprint().ok()?;
        Some((made, fingerprint))
    }
}
