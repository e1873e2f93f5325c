//! A view of a node without a running daemon, from its state file.
//!
//! The file contains which pod had which address, but not EC2's state or waiting pods; nothing is guessed.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use planner::{Mono, Observed};
use proto::{asked, v1};

use crate::{
    rpc::view::{Address, Eni, Source, View, human_duration},
    state::store::{Contents, Record},
};

/// `now` is in the clock of the boot that wrote the file.
#[must_use]
pub fn view(contents: &Contents, now: Mono) -> View {
    let mut enis: Vec<Eni> = contents
        .enis
        .iter()
        .map(|eni| known(eni, contents, now))
        .collect();
    let listed = |record: &&Record| !contents.enis.iter().any(|eni| eni.eni == record.eni);
    let mut strays: BTreeMap<&str, Vec<Address>> = BTreeMap::new();
    for record in contents.records.iter().filter(listed) {
        strays
            .entry(record.eni.0.as_str())
            .or_default()
            .push(assigned(record));
    }
    enis.extend(
        strays
            .into_iter()
            .map(|(id, addresses)| stray(id, addresses)),
    );
    let me = contents.identity.as_ref();
    View {
        source: Source::File,
        instance: me.map(|me| me.instance.clone()).unwrap_or_default(),
        instance_type: me.map(|me| me.instance_type.clone()).unwrap_or_default(),
        pod_limit: 0,
        pod_limit_why: String::new(),
        totals: totals(&enis),
        decision: None,
        waiting: Vec::new(),
        calls: Vec::new(),
        obstacles: Vec::new(),
        refused: Vec::new(),
        places: None,
        enis,
        unmanaged: Vec::new(),
        cordoned: false,
        stopping: false,
        settings: Vec::new(),
    }
}

fn known(eni: &Observed, contents: &Contents, now: Mono) -> Eni {
    let primary = eni
        .attached
        .as_ref()
        .is_some_and(|attachment| attachment.device == 0);
    let hosts = eni.prefixes.iter().flat_map(|prefix| {
        let of = prefix.to_string();
        let members = members(prefix, contents).into_iter();
        members.map(move |address| (address, of.clone()))
    });
    let singles = eni.addresses.iter().map(|a| (*a, String::new()));
    let addresses = singles.chain(hosts).map(|(address, prefix)| {
        let record = contents.records.iter().find(|r| r.address == address);
        let rest = contents.cooling.iter().find(|(a, _)| *a == address);
        let mut shown = match (record, rest) {
            (Some(record), _) => assigned(record),
            (None, Some((_, until))) => resting(*until, now),
            (None, None) => plain("free"),
        };
        shown.address = Some(address);
        shown.prefix = prefix;
        shown
    });
    let attachment = eni.attached.as_ref();
    Eni {
        id: eni.eni.to_string(),
        phase: "ready".to_owned(),
        phase_age_ms: None,
        card: attachment.map_or(0, |attachment| attachment.card.into()),
        device: attachment.map(|attachment| attachment.device.into()),
        primary,
        address: Some(IpAddr::V4(eni.primary)),
        mac: eni.mac.to_string(),
        subnet: eni.subnet.to_string(),
        missing: false,
        closed: String::new(),
        prefixes: eni.prefixes.iter().map(ToString::to_string).collect(),
        addresses: addresses.collect(),
    }
}

/// The addresses of a prefix to show: all sixteen of an IPv4 prefix, because EC2 routes it as a whole; of an IPv6
/// prefix, those in the file.
fn members(prefix: &IpNet, contents: &Contents) -> Vec<IpAddr> {
    match prefix {
        IpNet::V4(net) => {
            let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
            let all = (first..=last).map(|host| IpAddr::V4(host.into()));
            all.collect()
        }
        IpNet::V6(_) => {
            let held = contents.records.iter().map(|record| record.address);
            let resting = contents.cooling.iter().map(|(address, _)| *address);
            let known = held.chain(resting);
            known.filter(|address| prefix.contains(address)).collect()
        }
    }
}

/// An ENI with pods that was not ready when the file was last written.
fn stray(id: &str, addresses: Vec<Address>) -> Eni {
    Eni {
        id: id.to_owned(),
        phase: "unknown".to_owned(),
        phase_age_ms: None,
        card: 0,
        device: None,
        primary: false,
        address: None,
        mac: String::new(),
        subnet: String::new(),
        missing: true,
        closed: String::new(),
        prefixes: Vec::new(),
        addresses,
    }
}

fn plain(state: &str) -> Address {
    Address {
        address: None,
        state: state.to_owned(),
        age_ms: None,
        pod: String::new(),
        sandbox: String::new(),
        prefix: String::new(),
        reason: String::new(),
        host_ports: Vec::new(),
        bandwidth: None,
        egress_address: None,
        host_uses: false,
        foreign_rule: 0,
    }
}

fn assigned(record: &Record) -> Address {
    Address {
        address: Some(record.address),
        pod: record.pod.full_name().unwrap_or_default(),
        sandbox: format!("{}/{}", record.sandbox.container_id, record.sandbox.ifname),
        host_ports: record
            .asked
            .ports
            .iter()
            .map(|port| (*port).into())
            .collect(),
        bandwidth: asked::message(record.asked.bandwidth),
        egress_address: record.egress,
        ..plain("assigned")
    }
}

fn resting(until: Mono, now: Mono) -> Address {
    let left = until.since(now);
    if left.is_zero() {
        return plain("free");
    }
    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    Address {
        reason: format!("free again in {}", human_duration(left)),
        ..plain("cooling")
    }
}

fn totals(enis: &[Eni]) -> v1::Totals {
    let count = |state: &str| {
        let all = enis.iter().flat_map(|eni| &eni.addresses);
        u32::try_from(all.filter(|address| address.state == state).count()).unwrap_or(u32::MAX)
    };
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    v1::Totals {
        enis: number(enis.len()),
        free: count("free"),
        assigned: count("assigned"),
        cooling: count("cooling"),
        prefixes: number(enis.iter().map(|eni| eni.prefixes.len()).sum()),
        ..v1::Totals::default()
    }
}
