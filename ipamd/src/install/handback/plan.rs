//! What the AWS VPC CNI's checkpoint will say, and which pods it cannot serve. Pure.
//!
//! Its daemon keeps an entry with a pod's name only if a link of the host is called after this pod; an entry without a name it
//! keeps until the sandbox is deleted. An address without an entry it takes for free.

use std::fmt;

use datapath::{
    constants::eni_table,
    host::HandedBack,
    pod::{HostSide, upstream_host_name},
};
use planner::{EniIndex, Observed};

use crate::{
    host::names,
    state::{
        aws_node::{Allocation, Metadata},
        store::{Contents, Record},
        unknown::is_unknown,
    },
};

/// A pod that cannot be given back as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    #[error(
        "{link} has {address} and no record: the AWS VPC CNI would keep the address until the node is rebooted; delete the pod"
    )]
    NoRecord {
        link: String,
        address: std::net::IpAddr,
    },
    #[error(
        "{pod} has host ports or an address of the other family from Hawser, and the plugins of the AWS VPC CNI set these up only \
         when a pod starts: delete the pod"
    )]
    Asked { pod: String },
    #[error(
        "{pod} has {address} on {eni}, which this node does not know: start ipamd once, so that it lists its ENIs"
    )]
    UnknownEni {
        pod: String,
        address: std::net::IpAddr,
        eni: String,
    },
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub entries: Vec<Allocation>,
    pub pods: Vec<HandedBack>,
    pub obstacles: Vec<Obstacle>,
}

/// Decides for every pod that is alive. `aside` are the entries that Hawser took over, which tell since when a pod has its
/// address; for other pods it is `now`, in nanoseconds of Unix time.
#[must_use]
pub fn plan(contents: &Contents, links: &[HostSide], aside: &[Allocation], now: i64) -> Plan {
    let mut plan = Plan::default();
    for link in links {
        let Some(address) = link.address else {
            continue;
        };
        let of_link =
            |record: &&Record| record.address == address && names::is_link_of(record, link);
        let record = contents.records.iter().find(of_link);
        let known = record.filter(|record| !is_unknown(&record.sandbox));
        let entry = match known {
            Some(record) => entry(record, link, aside, now),
            None => {
                let link = link.name.clone();
                plan.obstacles.push(Obstacle::NoRecord {
                    link: link.clone(),
                    address,
                });
                nameless(&link, address, now)
            }
        };
        if let Some(record) = record.filter(|record| asks(record)) {
            let pod = name_of(record, link);
            plan.obstacles.push(Obstacle::Asked { pod });
        }
        let index = link.uplink.index();
        let table = match (index, record) {
            (EniIndex::PRIMARY, _) => None,
            (_, Some(record)) => match table(record, &contents.enis) {
                Some(table) => Some(table),
                None => {
                    plan.obstacles.push(Obstacle::UnknownEni {
                        pod: name_of(record, link),
                        address,
                        eni: record.eni.to_string(),
                    });
                    None
                }
            },
            // Card 0, where the index is that of the device.
            (index, None) => Some(eni_table(0, u32::from(index.get()))),
        };
        plan.entries.push(entry);
        plan.pods.push(HandedBack {
            host_index: link.ifindex,
            address,
            table,
        });
    }
    plan.entries.sort_by_key(Allocation::address);
    plan
}

/// Whether the pod has something that ends with Hawser's rules. Limits of its bandwidth are on its link, and stay.
const fn asks(record: &Record) -> bool {
    !record.asked.ports.is_empty() || record.egress.is_some()
}

fn name_of(record: &Record, link: &HostSide) -> String {
    let name = record.pod.full_name();
    name.unwrap_or_else(|| link.name.clone())
}

fn table(record: &Record, enis: &[Observed]) -> Option<u32> {
    let eni = enis.iter().find(|eni| eni.eni == record.eni)?;
    let attachment = eni.attached.as_ref()?;
    Some(eni_table(attachment.card.into(), attachment.device.into()))
}

fn entry(record: &Record, link: &HostSide, aside: &[Allocation], now: i64) -> Allocation {
    let sandbox = &record.sandbox;
    let before = aside.iter().find(|entry| {
        entry.container_id == sandbox.container_id && entry.address() == Some(record.address)
    });
    let bare = Allocation {
        network: sandbox.network.clone(),
        container_id: sandbox.container_id.clone(),
        ifname: sandbox.ifname.clone(),
        since: before.map_or(now, |entry| entry.since),
        ..nameless(&link.name, record.address, now)
    };
    let (Some(namespace), Some(name)) = (&record.pod.namespace, &record.pod.name) else {
        return bare;
    };
    // An older sandbox of the same pod has another name, and so have links of Hawser's first releases.
    let is_found = link
        .name
        .ends_with(&upstream_host_name("", namespace, name));
    if !is_found {
        return bare;
    }
    Allocation {
        metadata: Metadata {
            namespace: namespace.clone(),
            name: name.clone(),
            interfaces: 1,
        },
        ..bare
    }
}

fn nameless(link: &str, address: std::net::IpAddr, now: i64) -> Allocation {
    Allocation {
        network: proto::names::NETWORK.to_owned(),
        container_id: link.to_owned(),
        ifname: "eth0".to_owned(),
        ipv4: Some(address).filter(std::net::IpAddr::is_ipv4),
        ipv6: Some(address).filter(std::net::IpAddr::is_ipv6),
        since: now,
        metadata: Metadata::default(),
    }
}

/// For people, before it is carried out.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pods: {}", self.pods.len())?;
        for entry in &self.entries {
            let address = entry.address().map(|a| a.to_string()).unwrap_or_default();
            let name = match entry.pod() {
                Some((namespace, name)) => format!("{namespace}/{name}"),
                None => format!("container {}", entry.container_id),
            };
            writeln!(f, "  give back  {address:<16} {name}")?;
        }
        for obstacle in &self.obstacles {
            writeln!(f, "  obstacle   {obstacle}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
