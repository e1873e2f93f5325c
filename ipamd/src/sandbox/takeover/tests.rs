//! The classification of every address, and what is refused.

use std::net::IpAddr;

use datapath::{
    host::ForeignPod,
    netlink::link::Link,
    pod::{HostSide, upstream_host_name},
    uplink::Uplink,
};
use planner::{
    Config, EniAttachment, EniId, EniIndex, Event, Family, Mac, Mono, Observed, Placement, Planner,
    Restored, SubnetId,
};

use super::plan::{Evidence, Plan, Refusal, indices, plan};
use crate::state::{
    aws_node::{Allocation, Checkpoint, MIGRATED_NETWORK, Metadata, VERSION},
    unknown::is_unknown,
};

const A: [u8; 4] = [10, 0, 0, 11];
const B: [u8; 4] = [10, 0, 0, 12];
const C: [u8; 4] = [10, 0, 0, 21];

fn eni(id: &str, card: u16, device: u16, addresses: &[[u8; 4]]) -> Observed {
    Observed {
        eni: EniId::from(id),
        mac: Mac([
            2,
            0,
            0,
            0,
            u8::try_from(card).unwrap(),
            u8::try_from(device).unwrap(),
        ]),
        subnet: SubnetId::from("subnet-1"),
        subnet_cidr: Some("10.0.0.0/24".parse().unwrap()),
        security_groups: Vec::new(),
        primary: [10, 0, 0, 100 + u8::try_from(device).unwrap()].into(),
        addresses: addresses.iter().map(|a| IpAddr::from(*a)).collect(),
        prefixes: Vec::new(),
        attached: Some(EniAttachment {
            id: planner::AttachmentId::from(format!("attach-{id}").as_str()),
            card,
            device,
            settled: true,
        }),
        managed: true,
        tagged_ours: true,
    }
}

fn enis() -> Vec<Observed> {
    vec![eni("eni-0", 0, 0, &[A, B]), eni("eni-1", 0, 1, &[C])]
}

/// `address` is of pod `name` in a sandbox of the same name.
fn entry(name: &str, address: [u8; 4]) -> Allocation {
    Allocation {
        network: "aws-cni".to_owned(),
        container_id: format!("{name}-container"),
        ifname: "eth0".to_owned(),
        ipv4: Some(address.into()),
        ipv6: None,
        since: 1,
        metadata: Metadata {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            interfaces: 1,
        },
    }
}

fn lives(name: &str, index: u32, addresses: &[[u8; 4]]) -> ForeignPod {
    ForeignPod {
        link: Link {
            index,
            name: upstream_host_name("eni", "default", name),
            mac: Some(Mac([6, 0, 0, 0, 0, 1])),
            mtu: 9001,
            ..Link::default()
        },
        addresses: addresses.iter().map(|a| IpAddr::from(*a)).collect(),
        pod_mac: Some(Mac([6, 0, 0, 0, 0, 2])),
        inside: addresses.iter().map(|a| IpAddr::from(*a)).collect(),
        ..ForeignPod::default()
    }
}

fn checkpoint(allocations: Vec<Allocation>) -> Vec<(u16, Checkpoint)> {
    let version = VERSION.to_owned();
    vec![(
        0,
        Checkpoint {
            version,
            allocations,
        },
    )]
}

fn planned(entries: Vec<Allocation>, pods: &[ForeignPod]) -> Plan {
    plan(&Evidence {
        checkpoints: &checkpoint(entries),
        pods,
        own: &[],
        enis: &enis(),
        default_card: 0,
        family: Family::V4,
        despite_policies: false,
    })
}

fn adopted(plan: &Plan) -> Vec<(IpAddr, &str, u32)> {
    let each = plan.adopt.iter();
    each.map(|pod| {
        let record = &pod.record;
        (record.address, record.eni.0.as_str(), pod.host_index)
    })
    .collect()
}

#[test]
fn every_address_is_one_of_four() {
    let plan = planned(
        vec![entry("recorded", A), entry("dead", C)],
        &[lives("recorded", 7, &[A]), lives("unrecorded", 8, &[B])],
    );
    assert_eq!(plan.refusals, []);
    assert_eq!(
        adopted(&plan),
        [(A.into(), "eni-0", 7), (B.into(), "eni-0", 8)]
    );
    let [recorded, unrecorded] = &plan.adopt[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(recorded.record.sandbox.container_id, "recorded-container");
    assert_eq!(
        recorded.record.pod.full_name().as_deref(),
        Some("default/recorded")
    );
    assert!(!unrecorded.recorded && is_unknown(&unrecorded.record.sandbox));
    assert_eq!(plan.dead, [entry("dead", C)]);
    assert_eq!(plan.free, Vec::<IpAddr>::new());
    let nobody = planned(Vec::new(), &[]);
    assert_eq!(nobody.free, [A, B, C].map(IpAddr::from));
}

#[test]
fn a_record_keeps_the_pods_key_and_link() {
    let plan = planned(vec![entry("web", C)], &[lives("web", 7, &[C])]);
    let record = &plan.adopt[0].record;
    assert_eq!(record.sandbox.to_string(), "aws-cni/web-container/eth0");
    assert_eq!(
        record.host_name,
        upstream_host_name("eni", "default", "web")
    );
    assert_eq!(
        (record.index.get(), record.mtu, record.secondary),
        (1, Some(9001), false)
    );
    assert!(record.host_mac.is_some() && record.pod_mac.is_some());
}

#[test]
fn of_two_sandboxes_of_a_pod_the_routed_one_lives() {
    let old = Allocation {
        container_id: "old".to_owned(),
        ..entry("db-0", A)
    };
    let young = Allocation {
        since: 2,
        ..entry("db-0", B)
    };
    let routed = planned(vec![young.clone(), old.clone()], &[lives("db-0", 7, &[A])]);
    assert_eq!(routed.adopt[0].record.sandbox.container_id, "old");
    assert_eq!(routed.dead, std::slice::from_ref(&young));
    // Somebody removed the route: the younger one has the link.
    let unrouted = planned(vec![young, old.clone()], &[lives("db-0", 7, &[])]);
    assert_eq!(adopted(&unrouted), [(B.into(), "eni-0", 7)]);
    assert_eq!(unrouted.dead, [old]);
}

#[test]
fn entries_of_old_releases_are_found_by_their_address() {
    let migrated = Allocation {
        network: MIGRATED_NETWORK.to_owned(),
        ifname: "unknown".to_owned(),
        metadata: Metadata::default(),
        ..entry("web", A)
    };
    let plan = planned(vec![migrated.clone()], &[lives("web", 7, &[A])]);
    assert_eq!(
        plan.adopt[0].record.sandbox.to_string(),
        "aws-cni/web-container/eth0"
    );
    // Without a route nobody knows which link is its.
    let unclear = planned(vec![migrated], &[lives("web", 7, &[])]);
    assert!(matches!(unclear.refusals[..], [Refusal::Unclear(_)]));
}

#[test]
fn a_link_without_address_and_record_stays() {
    let plan = planned(vec![entry("other", A)], &[lives("web", 7, &[])]);
    assert_eq!(plan.refusals, []);
    assert_eq!(
        plan.unexplained,
        [upstream_host_name("eni", "default", "web")]
    );
    assert_eq!(plan.dead.len(), 1);
}

#[test]
fn contradictions_are_refused() {
    let both = planned(vec![entry("a", A), entry("b", A)], &[]);
    assert_eq!(both.refusals, [Refusal::Twice(A.into())]);
    let away = [10, 0, 9, 9];
    let gone = planned(vec![entry("a", away)], &[lives("a", 7, &[away])]);
    assert!(
        matches!(&gone.refusals[..], [Refusal::NotHere { pod, .. }] if pod == "default/a"),
        "{gone}"
    );
    // A dead pod's address may have gone anywhere.
    assert_eq!(planned(vec![entry("a", away)], &[]).refusals, []);
    let swapped = planned(vec![entry("a", A)], &[lives("b", 7, &[A])]);
    assert!(
        matches!(&swapped.refusals[..], [Refusal::OtherLink { pod, .. }] if pod == "default/a"),
        "{swapped}"
    );
    let several = planned(Vec::new(), &[lives("a", 7, &[A, B])]);
    assert!(matches!(several.refusals[..], [Refusal::Ambiguous { .. }]));
}

#[test]
fn an_address_of_our_own_pod_is_no_other_pods() {
    let own = HostSide {
        ifindex: 3,
        name: "eni0123456789a".to_owned(),
        owner: None,
        uplink: Uplink::Eni(EniIndex::PRIMARY),
        mac: None,
        address: Some(A.into()),
        egress: None,
        ports: Vec::new(),
    };
    let taken = |pods: &[ForeignPod], entries| {
        plan(&Evidence {
            checkpoints: &checkpoint(entries),
            pods,
            own: std::slice::from_ref(&own),
            enis: &enis(),
            default_card: 0,
            family: Family::V4,
            despite_policies: false,
        })
    };
    // Adopted before a crash.
    let continued = taken(&[], vec![entry("a", A)]);
    assert_eq!(
        (continued.refusals, continued.dead, continued.free),
        (vec![], vec![], vec![B.into(), C.into()])
    );
    let shared = taken(&[lives("b", 7, &[A])], vec![]);
    assert!(matches!(shared.refusals[..], [Refusal::Shared { .. }]));
}

#[test]
fn what_is_not_served_is_refused_with_the_pods() {
    let branch = ForeignPod {
        branch: true,
        ..lives("strict", 7, &[])
    };
    let refused = planned(vec![entry("strict", A)], &[branch]);
    assert_eq!(
        refused.refusals,
        [Refusal::Branch(vec!["default/strict".to_owned()])]
    );
    let filtered = [ForeignPod {
        filtered: true,
        ..lives("web", 7, &[A])
    }];
    let refused = planned(vec![entry("web", A)], &filtered);
    assert_eq!(
        refused.refusals,
        [Refusal::Policies(vec!["default/web".to_owned()])]
    );
    let despite = plan(&Evidence {
        checkpoints: &checkpoint(vec![entry("web", A)]),
        pods: &filtered,
        own: &[],
        enis: &enis(),
        default_card: 0,
        family: Family::V4,
        despite_policies: true,
    });
    assert_eq!((despite.refusals.len(), despite.adopt.len()), (0, 1));
    let cards = plan(&Evidence {
        checkpoints: &[
            (0, checkpoint(vec![entry("web", A)]).remove(0).1),
            (1, checkpoint(vec![entry("web", C)]).remove(0).1),
        ],
        pods: &[lives("web", 7, &[A]), lives("web.1", 8, &[C])],
        own: &[],
        enis: &enis(),
        default_card: 0,
        family: Family::V4,
        despite_policies: false,
    });
    assert!(
        cards
            .refusals
            .contains(&Refusal::SeveralCards(vec!["default/web".to_owned()])),
        "{cards}"
    );
}

#[test]
fn the_other_family_is_refused() {
    let six = ForeignPod {
        addresses: vec!["2600:1f14::7".parse().unwrap()],
        ..lives("web", 7, &[])
    };
    let refused = planned(Vec::new(), &[six]);
    assert!(matches!(
        refused.refusals[..],
        [Refusal::OtherFamily { .. }]
    ));
}

#[test]
fn every_address_of_a_prefix_rests() {
    let mut enis = enis();
    enis[1].prefixes = vec!["10.0.0.32/28".parse().unwrap()];
    let plan = plan(&Evidence {
        checkpoints: &checkpoint(vec![entry("web", [10, 0, 0, 33])]),
        pods: &[lives("web", 7, &[[10, 0, 0, 33]])],
        own: &[],
        enis: &enis,
        default_card: 0,
        family: Family::V4,
        despite_policies: false,
    });
    assert_eq!(plan.free.len(), 3 + 15);
    assert!(!plan.free.contains(&IpAddr::from([10, 0, 0, 33])));
}

#[test]
fn a_plan_can_be_read() {
    let shown = planned(
        vec![entry("web", A), entry("dead", C)],
        &[lives("web", 7, &[A]), lives("odd", 8, &[])],
    )
    .to_string();
    let link = upstream_host_name("eni", "default", "web");
    let odd = upstream_host_name("eni", "default", "odd");
    assert_eq!(
        shown,
        format!(
            "pods: 1 recorded and alive, 0 alive without a record, 1 recorded and dead\n\
             addresses that rest: 2\n  \
             adopt    10.0.0.11        {link:<15} eni-0 default/web\n  \
             release  10.0.0.21        default/dead\n  \
             leave    {odd}: neither an address nor a record\n"
        )
    );
}

#[test]
fn the_indices_are_those_of_the_pool() {
    let enis = vec![
        eni("eni-a", 0, 3, &[C]),
        eni("eni-b", 0, 0, &[A]),
        eni("eni-c", 1, 1, &[]),
        eni("eni-d", 1, 3, &[]),
        eni("eni-e", 0, 1, &[]),
    ];
    let expected = indices(&enis, 0);
    assert_eq!(expected.len(), 5);
    let kind = planner::limits::lookup("p4d.24xlarge").expect("it is in the table");
    let placement = Placement::like_primary(SubnetId::from("subnet-1"));
    let mut pool = Planner::new(Config::default(), kind.clone(), placement, 1);
    let restored = Restored {
        enis,
        ..Restored::default()
    };
    pool.on(Event::Restore(restored), Mono::ZERO);
    for eni in pool.snapshot(Mono::ZERO).enis {
        let id = eni.id.expect("restored ENIs have one");
        assert_eq!(eni.index, expected.get(&id).copied(), "{id}");
    }
}

#[test]
fn the_address_inside_the_pod_is_compared_and_replaces_a_lost_route() {
    let inside = |addresses: &[[u8; 4]], inside: &[[u8; 4]]| ForeignPod {
        inside: inside.iter().map(|a| IpAddr::from(*a)).collect(),
        ..lives("web", 7, addresses)
    };
    let both = || vec![entry("web", A), entry("web", C)];
    let other = planned(both(), &[inside(&[A], &[B])]);
    let [
        Refusal::OtherInside {
            address,
            inside: had,
            ..
        },
    ] = &other.refusals[..]
    else {
        panic!("{other:?}")
    };
    assert_eq!((*address, &had[..]), (A.into(), &[IpAddr::from(B)][..]));
    // One of several is enough: a pod may have added others.
    assert_eq!(planned(both(), &[inside(&[A], &[B, A])]).refusals, []);
    // Of two entries of a pod without a route, that of its own end counts, whichever is younger.
    for kept in [A, C] {
        let plan = planned(both(), &[inside(&[], &[kept])]);
        assert_eq!(adopted(&plan)[0].0, IpAddr::from(kept));
    }
    let without_record = planned(Vec::new(), &[inside(&[], &[B])]);
    assert_eq!(adopted(&without_record), [(B.into(), "eni-0", 7)]);
    let untold = planned(vec![entry("web", A)], &[inside(&[A], &[])]);
    assert_eq!(
        untold.unverified,
        [upstream_host_name("eni", "default", "web")]
    );
    assert_eq!(untold.adopt.len(), 1);
}
