//! What the checkpoint says about each kind of pod.

use std::net::IpAddr;

use datapath::uplink::Uplink;
use nettypes::{Asked, Bandwidth, HostPort, RateLimit, Transport};
use planner::{AttachmentId, EniAttachment, EniId, Mac, Pod, Sandbox, SubnetId};

use super::*;
use crate::state::unknown::unknown;

fn record(id: &str, pod: Option<&str>, address: [u8; 4], index: EniIndex) -> Record {
    let text = |text: &str| Some(text.to_owned());
    let sandbox = Sandbox {
        network: "aws-cni".to_owned(),
        container_id: id.to_owned(),
        ifname: "eth0".to_owned(),
    };
    let pod = Pod {
        namespace: pod.and_then(|_| text("default")),
        name: pod.and_then(text),
        uid: None,
    };
    Record {
        host_name: names::host_name("eni", &sandbox, &pod),
        sandbox,
        pod,
        address: address.into(),
        eni: EniId(format!("eni-{}", index.get())),
        index,
        host_mac: None,
        pod_mac: None,
        mtu: Some(9001),
        secondary: false,
        asked: Asked::default(),
        egress: None,
    }
}

fn link(record: &Record, ifindex: u32) -> HostSide {
    HostSide {
        ifindex,
        name: record.host_name.clone(),
        owner: Some(names::owner(&record.sandbox)),
        uplink: Uplink::Eni(record.index),
        mac: None,
        address: Some(record.address),
        egress: record.egress,
        ports: Vec::new(),
    }
}

fn second() -> EniIndex {
    EniIndex::new(1).unwrap()
}

fn eni() -> Observed {
    Observed {
        eni: EniId::from("eni-1"),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        subnet: SubnetId::from("subnet-1"),
        subnet_cidr: None,
        security_groups: Vec::new(),
        primary: [10, 0, 0, 101].into(),
        addresses: Vec::new(),
        prefixes: Vec::new(),
        attached: Some(EniAttachment {
            id: AttachmentId::from("attach-1"),
            card: 0,
            device: 3,
            settled: true,
        }),
        managed: true,
        tagged_ours: true,
    }
}

fn planned(records: &[Record], links: &[HostSide]) -> Plan {
    let contents = Contents {
        records: records.to_vec(),
        enis: vec![eni()],
        ..Contents::default()
    };
    plan(&contents, links, &[], 7)
}

#[test]
fn a_pod_is_recorded_by_its_name_and_routed_by_its_eni() {
    let first = record("a", Some("web"), [10, 0, 0, 11], EniIndex::PRIMARY);
    let other = record("b", Some("db"), [10, 0, 0, 12], second());
    let plan = planned(
        &[first.clone(), other.clone()],
        &[link(&first, 4), link(&other, 5)],
    );
    assert_eq!(plan.obstacles, []);
    let tables: Vec<_> = plan.pods.iter().map(|p| (p.host_index, p.table)).collect();
    assert_eq!(tables, [(4, None), (5, Some(4))]);
    let entry = &plan.entries[0];
    assert_eq!(
        (entry.pod(), entry.since, entry.sandbox()),
        (Some(("default", "web")), 7, first.sandbox)
    );
}

#[test]
fn an_older_sandbox_of_a_pod_is_recorded_without_a_name() {
    let older = record("old", Some("db-0"), [10, 0, 0, 11], EniIndex::PRIMARY);
    let renamed = HostSide {
        name: "eni0123456789a".to_owned(),
        ..link(&older, 4)
    };
    let plan = planned(std::slice::from_ref(&older), &[renamed]);
    assert_eq!(plan.entries[0].pod(), None);
    assert_eq!(plan.entries[0].container_id, "old");
    let nomad = record("job", None, [10, 0, 0, 12], EniIndex::PRIMARY);
    let plan = planned(std::slice::from_ref(&nomad), &[link(&nomad, 5)]);
    assert_eq!((plan.entries[0].pod(), plan.obstacles.len()), (None, 0));
}

#[test]
fn a_record_without_a_link_is_no_pod() {
    let gone = record("gone", Some("web"), [10, 0, 0, 11], EniIndex::PRIMARY);
    assert_eq!(planned(&[gone], &[]), Plan::default());
}

#[test]
fn since_when_a_pod_has_its_address_is_kept() {
    let pod = record("a", Some("web"), [10, 0, 0, 11], EniIndex::PRIMARY);
    let contents = Contents {
        records: vec![pod.clone()],
        ..Contents::default()
    };
    let aside = nameless("a", pod.address, 3);
    let other = nameless("b", pod.address, 4);
    let plan = plan(&contents, &[link(&pod, 4)], &[other, aside], 7);
    assert_eq!(plan.entries[0].since, 3);
}

#[test]
fn what_nobody_knows_is_an_obstacle_and_keeps_its_address() {
    let pod = record("a", Some("web"), [10, 0, 0, 11], EniIndex::PRIMARY);
    let plan = planned(&[], &[link(&pod, 4)]);
    let address: IpAddr = pod.address;
    assert!(matches!(plan.obstacles[..], [Obstacle::NoRecord { .. }]));
    assert_eq!(plan.entries[0].address(), Some(address));
    let unrecorded = Record {
        sandbox: unknown(&pod.host_name),
        ..pod.clone()
    };
    let plain = HostSide {
        owner: None,
        ..link(&pod, 4)
    };
    let plan = planned(&[unrecorded], &[plain]);
    assert!(matches!(plan.obstacles[..], [Obstacle::NoRecord { .. }]));
    let elsewhere = Record {
        eni: EniId::from("eni-9"),
        ..record("b", Some("db"), [10, 0, 0, 12], second())
    };
    let plan = planned(std::slice::from_ref(&elsewhere), &[link(&elsewhere, 5)]);
    assert!(
        matches!(&plan.obstacles[..], [Obstacle::UnknownEni { pod, .. }] if pod == "default/db")
    );
}

#[test]
fn what_only_hawser_does_for_a_pod_is_an_obstacle() {
    let port = HostPort {
        port: 18_080,
        pod_port: 8080,
        transport: Transport::Tcp,
        address: None,
    };
    let pod = Record {
        asked: Asked {
            ports: vec![port],
            ..Asked::default()
        },
        ..record("a", Some("web"), [10, 0, 0, 11], EniIndex::PRIMARY)
    };
    let six = Record {
        asked: Asked::default(),
        egress: Some("fd00::7".parse().unwrap()),
        ..pod.clone()
    };
    for pod in [pod, six] {
        let plan = planned(std::slice::from_ref(&pod), &[link(&pod, 4)]);
        assert!(matches!(&plan.obstacles[..], [Obstacle::Asked { pod }] if pod == "default/web"));
        assert_eq!(plan.pods.len(), 1);
    }
}

#[test]
fn limits_of_bandwidth_are_no_obstacle() {
    let limit = RateLimit {
        rate: 80_000_000,
        burst: 8_000_000,
    };
    let pod = Record {
        asked: Asked {
            bandwidth: Bandwidth {
                ingress: Some(limit),
                egress: Some(limit),
            },
            ..Asked::default()
        },
        ..record("a", Some("web"), [10, 0, 0, 11], EniIndex::PRIMARY)
    };
    let plan = planned(std::slice::from_ref(&pod), &[link(&pod, 4)]);
    assert_eq!((plan.obstacles, plan.pods.len()), (Vec::new(), 1));
}
