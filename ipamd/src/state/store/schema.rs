//! The format on disk. It is separate from the program's own types, so that these can change without changing the
//! format.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use nettypes::{Asked, Bandwidth, HostPort, RateLimit, Transport};
use planner::{
    AttachmentId, Demand, EniClass, EniId, EniIndex, Mac, Mono, Observed, Pod, Sandbox,
    SecurityGroupId, SubnetId,
    event::EniAttachment,
    placement::{Candidate, Listed, Selector, SubnetList},
};
use serde::{Deserialize, Serialize};

use super::Record;
use crate::node::identity::Identity;

#[derive(Serialize, Deserialize)]
struct StoredRecord {
    network: String,
    container_id: String,
    ifname: String,
    pod: BTreeMap<String, String>,
    address: IpAddr,
    eni: String,
    index: u16,
    host_name: String,
    /// Zero if not known, as the next two.
    host_mac: [u8; 6],
    pod_mac: [u8; 6],
    mtu: u32,
    /// Absent in files of earlier releases, which had no such pods.
    #[serde(default)]
    secondary: bool,
    /// Absent if the pod asks for none, and in files of earlier releases, as the next three.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<StoredPort>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ingress: Option<StoredLimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    egress: Option<StoredLimit>,
    /// The address for destinations of the other family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    other_family: Option<IpAddr>,
}

#[derive(Serialize, Deserialize)]
struct StoredPort {
    transport: String,
    port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    pod_port: u16,
}

/// Bits per second, and bits.
#[derive(Serialize, Deserialize)]
struct StoredLimit {
    rate: u64,
    burst: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredEni {
    eni: String,
    mac: [u8; 6],
    subnet: String,
    subnet_cidr: String,
    primary: Ipv4Addr,
    addresses: Vec<IpAddr>,
    prefixes: Vec<String>,
    attachment: String,
    card: u16,
    device: u16,
    /// Absent in files of earlier releases.
    #[serde(default)]
    groups: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredSubnets {
    zone: Option<String>,
    subnets: Vec<StoredSubnet>,
}

#[derive(Serialize, Deserialize)]
struct StoredSubnet {
    subnet: String,
    zone: Option<String>,
    cidr: String,
    free: u32,
    tags: BTreeMap<String, String>,
    route_table: Option<String>,
}

/// The class of an ENIConfig.
#[derive(Serialize, Deserialize)]
struct StoredClass {
    name: String,
    subnets: Vec<(String, u32)>,
    groups: Option<Vec<String>>,
}

#[derive(Serialize, Deserialize)]
struct StoredIdentity {
    instance: String,
    instance_type: String,
    region: String,
    mac: [u8; 6],
    address: Ipv4Addr,
    subnet: String,
    subnet_cidr: String,
    security_groups: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredDemand {
    bursts: Vec<(u32, f64)>,
    surge: f64,
    /// 0 if it was never measured.
    delivery_ms: u64,
    at_ms: u64,
}

fn text(form: &impl Serialize) -> String {
    serde_json::to_string(form).expect("plain data serialises")
}

pub fn of_record(record: &Record) -> String {
    let Sandbox {
        network,
        container_id,
        ifname,
    } = record.sandbox.clone();
    let Pod {
        namespace,
        name,
        uid,
    } = record.pod.clone();
    let pod = [("namespace", namespace), ("name", name), ("uid", uid)];
    text(&StoredRecord {
        network,
        container_id,
        ifname,
        pod: pod
            .map(|(k, v)| (k.to_owned(), v.unwrap_or_default()))
            .into(),
        address: record.address,
        eni: record.eni.0.clone(),
        index: record.index.get(),
        host_name: record.host_name.clone(),
        host_mac: record.host_mac.unwrap_or_default().0,
        pod_mac: record.pod_mac.unwrap_or_default().0,
        mtu: record.mtu.unwrap_or_default(),
        secondary: record.secondary,
        ports: record.asked.ports.iter().map(of_port).collect(),
        ingress: record.asked.bandwidth.ingress.map(of_limit),
        egress: record.asked.bandwidth.egress.map(of_limit),
        other_family: record.egress,
    })
}

pub fn to_record(text: &str) -> Option<Record> {
    let mut stored: StoredRecord = serde_json::from_str(text).ok()?;
    let mut part = |name| stored.pod.remove(name).filter(|text| !text.is_empty());
    let pod = Pod {
        namespace: part("namespace"),
        name: part("name"),
        uid: part("uid"),
    };
    Some(Record {
        sandbox: Sandbox {
            network: stored.network,
            container_id: stored.container_id,
            ifname: stored.ifname,
        },
        pod,
        address: stored.address,
        eni: EniId(stored.eni),
        index: EniIndex::new(stored.index)?,
        host_name: stored.host_name,
        host_mac: Mac(stored.host_mac).nonzero(),
        pod_mac: Mac(stored.pod_mac).nonzero(),
        mtu: Some(stored.mtu).filter(|mtu| *mtu > 0),
        secondary: stored.secondary,
        asked: Asked {
            ports: stored.ports.iter().map(to_port).collect::<Option<_>>()?,
            bandwidth: Bandwidth {
                ingress: stored.ingress.map(to_limit),
                egress: stored.egress.map(to_limit),
            },
        },
        egress: stored.other_family,
    })
}

fn of_port(port: &HostPort) -> StoredPort {
    StoredPort {
        transport: port.transport.name().to_owned(),
        port: port.port,
        address: port.address,
        pod_port: port.pod_port,
    }
}

fn to_port(stored: &StoredPort) -> Option<HostPort> {
    Some(HostPort {
        transport: Transport::of_name(&stored.transport)?,
        port: stored.port,
        address: stored.address,
        pod_port: stored.pod_port,
    })
}

const fn of_limit(limit: RateLimit) -> StoredLimit {
    let RateLimit { rate, burst } = limit;
    StoredLimit { rate, burst }
}

const fn to_limit(stored: StoredLimit) -> RateLimit {
    let StoredLimit { rate, burst } = stored;
    RateLimit { rate, burst }
}

/// ENIs that are not attached are not needed after a restart: EC2 lists them by their tag.
pub fn of_enis(enis: &[Observed]) -> String {
    let attached = enis.iter().filter_map(|eni| {
        let attachment = eni.attached.as_ref()?;
        Some(StoredEni {
            subnet_cidr: eni.subnet_cidr?.to_string(),
            eni: eni.eni.0.clone(),
            mac: eni.mac.0,
            subnet: eni.subnet.0.clone(),
            primary: eni.primary,
            addresses: eni.addresses.clone(),
            prefixes: eni.prefixes.iter().map(ToString::to_string).collect(),
            attachment: attachment.id.0.clone(),
            card: attachment.card,
            device: attachment.device,
            groups: eni
                .security_groups
                .iter()
                .map(ToString::to_string)
                .collect(),
        })
    });
    text(&attached.collect::<Vec<_>>())
}

pub fn to_enis(text: &str) -> Option<Vec<Observed>> {
    let stored: Vec<StoredEni> = serde_json::from_str(text).ok()?;
    stored.into_iter().map(to_eni).collect()
}

fn to_eni(eni: StoredEni) -> Option<Observed> {
    let prefixes: Vec<IpNet> = eni
        .prefixes
        .iter()
        .map(|net| net.parse().ok())
        .collect::<Option<_>>()?;
    Some(Observed {
        eni: EniId(eni.eni),
        mac: Mac(eni.mac),
        subnet: SubnetId(eni.subnet),
        subnet_cidr: Some(eni.subnet_cidr.parse().ok()?),
        security_groups: eni.groups.into_iter().map(SecurityGroupId).collect(),
        primary: eni.primary,
        addresses: eni.addresses,
        prefixes,
        attached: Some(EniAttachment {
            id: AttachmentId(eni.attachment),
            card: eni.card,
            device: eni.device,
            settled: true,
        }),
        // It was in the pool, so it was managed; EC2's list will show whether it still is.
        managed: true,
        tagged_ours: false,
    })
}

pub fn of_identity(me: &Identity) -> String {
    text(&StoredIdentity {
        instance: me.instance.clone(),
        instance_type: me.instance_type.clone(),
        region: me.region.clone(),
        mac: me.mac.0,
        address: me.address,
        subnet: me.subnet.0.clone(),
        subnet_cidr: me.subnet_cidr.to_string(),
        security_groups: me.security_groups.iter().map(ToString::to_string).collect(),
    })
}

pub fn to_identity(text: &str) -> Option<Identity> {
    let stored: StoredIdentity = serde_json::from_str(text).ok()?;
    Some(Identity {
        instance: stored.instance,
        instance_type: stored.instance_type,
        region: stored.region,
        mac: Mac(stored.mac),
        address: stored.address,
        subnet: SubnetId(stored.subnet),
        subnet_cidr: stored.subnet_cidr.parse().ok()?,
        security_groups: stored
            .security_groups
            .into_iter()
            .map(SecurityGroupId)
            .collect(),
    })
}

pub fn of_subnets(list: &SubnetList) -> String {
    let stored = list.subnets.iter().map(|known| StoredSubnet {
        subnet: known.subnet.0.clone(),
        zone: known.zone.clone(),
        cidr: known.cidr.to_string(),
        free: known.free,
        tags: known.tags.clone(),
        route_table: known.route_table.clone(),
    });
    text(&StoredSubnets {
        zone: list.zone.clone(),
        subnets: stored.collect(),
    })
}

pub fn to_subnets(text: &str) -> Option<SubnetList> {
    let stored: StoredSubnets = serde_json::from_str(text).ok()?;
    let candidate = |known: StoredSubnet| {
        Some(Candidate {
            subnet: SubnetId(known.subnet),
            zone: known.zone,
            cidr: known.cidr.parse().ok()?,
            free: known.free,
            tags: known.tags,
            route_table: known.route_table,
        })
    };
    Some(SubnetList {
        zone: stored.zone,
        subnets: stored
            .subnets
            .into_iter()
            .map(candidate)
            .collect::<Option<_>>()?,
    })
}

/// `None` for a class that does not name its subnets.
pub fn of_class(class: &EniClass) -> Option<String> {
    let Selector::Listed(listed) = &class.subnets else {
        return None;
    };
    let groups = class.security_groups.as_ref();
    let names = |groups: &Vec<SecurityGroupId>| groups.iter().map(ToString::to_string).collect();
    Some(text(&StoredClass {
        name: class.name.clone(),
        subnets: listed
            .iter()
            .map(|one| (one.subnet.0.clone(), one.weight))
            .collect(),
        groups: groups.map(names),
    }))
}

pub fn to_class(text: &str) -> Option<EniClass> {
    let stored: StoredClass = serde_json::from_str(text).ok()?;
    let listed = stored.subnets.into_iter().map(|(subnet, weight)| Listed {
        subnet: SubnetId(subnet),
        weight,
    });
    let groups = |names: Vec<String>| names.into_iter().map(SecurityGroupId).collect();
    Some(EniClass {
        name: stored.name,
        subnets: Selector::Listed(listed.collect()),
        security_groups: stored.groups.map(groups),
        primary_serves: false,
    })
}

pub fn of_nets(nets: &[Ipv4Net]) -> String {
    text(&nets.iter().map(ToString::to_string).collect::<Vec<_>>())
}

pub fn to_nets(text: &str) -> Option<Vec<Ipv4Net>> {
    let stored: Vec<String> = serde_json::from_str(text).ok()?;
    stored.iter().map(|net| net.parse().ok()).collect()
}

pub fn of_demand(demand: &Demand) -> String {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    text(&StoredDemand {
        bursts: demand.bursts.clone(),
        surge: demand.surge,
        delivery_ms: demand.delivery.map_or(0, millis),
        at_ms: millis(demand.at.since_epoch()),
    })
}

pub fn to_demand(text: &str) -> Option<Demand> {
    let stored: StoredDemand = serde_json::from_str(text).ok()?;
    Some(Demand {
        bursts: stored.bursts,
        surge: stored.surge,
        delivery: Some(Duration::from_millis(stored.delivery_ms)).filter(|known| !known.is_zero()),
        at: Mono::from_epoch(Duration::from_millis(stored.at_ms)),
    })
}
