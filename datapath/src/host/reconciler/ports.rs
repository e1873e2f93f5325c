//! Host ports of the wired pods: the table, and its elements.
//!
//! The table is made with the first port. Its socket stays open, because an ADD needs it. What the kernel has is compared with
//! the pods when the daemon starts, and when somebody else has changed the table: missing elements are added, and those of no
//! pod removed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nettypes::HostPort;

use super::super::error::{During, HostError};
use crate::netlink::{Errno, Error, Family, Socket};
use crate::nft::{Fingerprint, Nft, PortEntry, PortRules};

/// The device on which kube-proxy has the addresses of services in its mode `ipvs`.
const SERVICE_LINK: &str = "kube-ipvs0";

/// The addresses that the node has for services.
pub(super) fn services(socket: &mut Socket, family: Family) -> Result<Vec<PortEntry>, Error> {
    let Some(link) = socket.link_by_name(SERVICE_LINK)? else {
        return Ok(Vec::new());
    };
    let addresses = socket.addresses(family, Some(link.index))?;
    Ok(addresses
        .iter()
        .map(|own| PortEntry::Service(own.address))
        .collect())
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ports {
    nft: Nft,
    family: Family,
    /// The rules that we wrote last, and the fingerprint that the table then had; `None` before the first pod with ports, and
    /// if it could not be read.
    left: Option<(PortRules, Fingerprint)>,
}

impl Ports {
    pub(super) const fn new(nft: Nft, family: Family) -> Self {
        Self {
            nft,
            family,
            left: None,
        }
    }

    /// The port of the socket, by which its own changes are recognised.
    pub(super) const fn socket_port(&self) -> u32 {
        self.nft.port()
    }

    /// Whether the table is known to be there.
    pub(super) const fn is_there(&self) -> bool {
        self.left.is_some()
    }

    /// Makes the table if it is not known to be there, and returns whether it did. To be called before a pod gets ports: its
    /// link needs the rules that guard the node's loopback.
    pub(super) fn prepare(&mut self, rules: PortRules) -> Result<bool, Error> {
        if self.left.as_ref().is_some_and(|(made, _)| *made == rules) {
            return Ok(false);
        }
        self.set_up(rules).map(|()| true)
    }

    fn set_up(&mut self, rules: PortRules) -> Result<(), Error> {
        if self.nft.set_up_ports(&rules).is_err() {
            // A table of this name that is not ours in every part.
            let present = self.nft.ports(self.family)?.unwrap_or_default();
            self.nft.replace_ports(&rules, &present)?;
        }
        self.remember(rules)
    }

    fn remember(&mut self, rules: PortRules) -> Result<(), Error> {
        let found = self.nft.ports_fingerprint(self.family)?;
        self.left = found.map(|found| (rules, found));
        Ok(())
    }

    /// Has these ports lead to the pod, all or none.
    pub(super) fn add(&mut self, pod: IpAddr, ports: &[HostPort]) -> Result<(), Error> {
        let entries = PortEntry::of(pod, ports);
        self.nft
            .change_ports(self.family, &entries, &BTreeSet::new())
    }

    /// Has these ports lead nowhere. Those that lead to another pod stay.
    pub(super) fn remove(&mut self, pod: IpAddr, ports: &[HostPort]) -> Result<(), Error> {
        let entries = PortEntry::of(pod, ports);
        let none = BTreeSet::new();
        match self.nft.change_ports(self.family, &none, &entries) {
            Err(e) if e.is(Errno::ENOENT) => {
                let present = self.nft.ports(self.family)?.unwrap_or_default();
                let ours = present.intersection(&entries).copied().collect();
                self.nft.change_ports(self.family, &none, &ours)
            }
            other => other,
        }
    }

    /// Those of a pod's ports that do not lead to it.
    pub(super) fn missing(
        &mut self,
        pod: IpAddr,
        ports: &[HostPort],
    ) -> Result<Vec<HostPort>, Error> {
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        let present = self.nft.ports(self.family)?.unwrap_or_default();
        let leads = |port: &&HostPort| present.contains(&PortEntry::Port(**port, pod));
        Ok(ports.iter().filter(|port| !leads(port)).copied().collect())
    }

    /// All ports that lead to a pod.
    pub(super) fn present(&mut self) -> Result<BTreeSet<PortEntry>, Error> {
        Ok(self.nft.ports(self.family)?.unwrap_or_default())
    }

    /// Corrects what differs from `wanted`, and returns whether something did.
    pub(super) fn repair(
        &mut self,
        rules: PortRules,
        wanted: &BTreeSet<PortEntry>,
    ) -> Result<bool, HostError> {
        let what = "set up host ports again";
        let found = self
            .nft
            .ports_fingerprint(self.family)
            .during("read nftables")?;
        if wanted.is_empty() && self.left.is_none() {
            return match found {
                None => Ok(false),
                // Of an earlier process.
                Some(_) => self
                    .nft
                    .remove_ports(self.family)
                    .during(what)
                    .map(|()| true),
            };
        }
        let damaged = match (&self.left, found) {
            (Some((_, left)), found) => found != Some(*left),
            (None, _) => false,
        };
        if damaged {
            self.left = None;
            self.nft.replace_ports(&rules, wanted).during(what)?;
            self.remember(rules).during(what)?;
            return Ok(true);
        }
        let _made = self.prepare(rules).during(what)?;
        let present = self.present().during("read host ports")?;
        let missing = wanted.difference(&present).copied().collect();
        let strays = present.difference(wanted).copied().collect();
        self.nft
            .change_ports(self.family, &missing, &strays)
            .during(what)?;
        Ok(!(missing.is_empty() && strays.is_empty()))
    }
}
