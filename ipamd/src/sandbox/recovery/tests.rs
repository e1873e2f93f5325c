//! Tests of the plan of a start.

use ipnet::Ipv4Net;
use planner::Sandbox;

use super::*;

const COOLDOWN: Duration = Duration::from_secs(30);

fn now() -> Mono {
    Mono::ZERO + Duration::from_secs(1000)
}

fn record(id: &str, address: [u8; 4]) -> Record {
    Record {
        sandbox: Sandbox {
            network: "n".into(),
            container_id: id.into(),
            ifname: "eth0".into(),
        },
        pod: Pod::default(),
        address: address.into(),
        eni: EniId::from("eni-1"),
        index: nettypes::EniIndex::new(1).unwrap(),
        host_name: format!("eni{id}"),
        host_mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        pod_mac: Some(Mac([2, 0, 0, 0, 0, 2])),
        mtu: Some(9001),
        secondary: false,
        asked: nettypes::Asked::default(),
        egress: None,
    }
}

fn link(id: &str, address: Option<[u8; 4]>) -> HostSide {
    HostSide {
        ifindex: 7,
        name: format!("eni{id}"),
        owner: None,
        uplink: datapath::uplink::Uplink::Eni(nettypes::EniIndex::new(1).unwrap()),
        mac: None,
        address: address.map(IpAddr::from),
        egress: None,
        ports: Vec::new(),
    }
}

fn contents(records: Vec<Record>) -> Contents {
    Contents {
        records,
        ..Contents::default()
    }
}

fn eni(addresses: &[[u8; 4]]) -> Observed {
    Observed {
        eni: EniId::from("eni-1"),
        mac: Mac([2, 0, 0, 0, 0, 9]),
        subnet: "subnet-1".into(),
        subnet_cidr: Ipv4Net::new_assert([10, 0, 0, 0].into(), 24).into(),
        security_groups: Vec::new(),
        primary: [10, 0, 0, 4].into(),
        addresses: addresses.iter().copied().map(IpAddr::from).collect(),
        prefixes: Vec::new(),
        attached: None,
        managed: true,
        tagged_ours: false,
    }
}

#[test]
fn a_pod_with_record_and_route_is_kept_and_nothing_is_done() {
    let (a, address) = (record("a", [10, 0, 0, 5]), [10, 0, 0, 5]);
    let links = vec![link("a", Some(address))];
    let (steps, agreed) = plan(contents(vec![a.clone()]), links, COOLDOWN, now());
    assert_eq!(steps, []);
    assert_eq!(agreed.restored.assigned.len(), 1);
    let (record, host_index) = (a, 7);
    assert_eq!(agreed.pods, [Live { record, host_index }]);
    assert!(agreed.left.is_empty());
}

#[test]
fn a_record_without_its_route_is_released_and_its_address_cools() {
    let gone = record("a", [10, 0, 0, 5]);
    let until = now() + COOLDOWN;
    // Without a link, with a link that has no route, and with a link that has another pod's address.
    let cases = [
        vec![],
        vec![link("a", None)],
        vec![link("a", Some([10, 0, 0, 6]))],
    ];
    for links in cases {
        let (steps, agreed) = plan(contents(vec![gone.clone()]), links, COOLDOWN, now());
        let release = Step::Release {
            record: Box::new(gone.clone()),
            until,
        };
        assert_eq!(steps[0], release);
        assert_eq!(agreed.restored.cooling, [(gone.address, until)]);
        assert_eq!(agreed.pods, []);
    }
}

#[test]
fn a_link_that_no_record_claims_goes_without_a_route_and_stays_with_one() {
    let mut links = vec![link("a", None), link("b", Some([10, 0, 0, 6]))];
    links[1].ifindex = 8;
    let (steps, agreed) = plan(Contents::default(), links.clone(), COOLDOWN, now());
    let (index, name) = (7, "enia".into());
    assert_eq!(steps, [Step::RemoveLink { index, name }]);
    assert_eq!(agreed.orphans, links[1..]);
}

#[test]
fn a_cooldown_that_is_over_is_not_restored_but_its_connections_are_forgotten() {
    let (over, cooling) = ([10, 0, 0, 5].into(), [10, 0, 0, 6].into());
    let contents = Contents {
        cooling: vec![(over, now()), (cooling, now() + COOLDOWN)],
        ..Contents::default()
    };
    let (_, agreed) = plan(contents, Vec::new(), COOLDOWN, now());
    assert_eq!(agreed.restored.cooling, [(cooling, now() + COOLDOWN)]);
    assert_eq!(agreed.left_empty().count(), 2);
}

#[test]
fn an_orphan_is_adopted_only_with_an_address_of_this_nodes_enis() {
    let orphan = link("b", Some([10, 0, 0, 6]));
    let nobody = |_: &Sandbox| false;
    assert_eq!(adopted(&orphan, &[eni(&[[10, 0, 0, 7]])], nobody), None);
    let record = adopted(&orphan, &[eni(&[[10, 0, 0, 6]])], nobody).expect("it is on eni-1");
    assert_eq!(record.sandbox, unknown("enib"));
    assert_eq!(record.eni, EniId::from("eni-1"));
}

#[test]
fn an_orphan_that_names_its_sandbox_is_adopted_under_it_unless_that_has_another_link() {
    let sandbox = record("b", [10, 0, 0, 6]).sandbox;
    let orphan = HostSide {
        owner: Some(names::owner(&sandbox)),
        ..link("b", Some([10, 0, 0, 6]))
    };
    let enis = [eni(&[[10, 0, 0, 6]])];
    let under = |known: bool| adopted(&orphan, &enis, |_| known).map(|record| record.sandbox);
    assert_eq!(under(false), Some(sandbox));
    assert_eq!(under(true), Some(unknown("enib")));
}

/// The links of two sandboxes of one pod: the younger one has the name that both records have.
#[test]
fn records_with_one_name_find_the_link_that_is_theirs() {
    let of = |id: &str, address, ifindex, name: &str| {
        let record = Record {
            host_name: "enipod".into(),
            ..record(id, address)
        };
        let link = HostSide {
            ifindex,
            name: name.into(),
            owner: Some(names::owner(&record.sandbox)),
            ..link(id, Some(address))
        };
        (record, link)
    };
    let (old, left) = of("old", [10, 0, 0, 5], 7, "eniold");
    let (young, right) = of("young", [10, 0, 0, 6], 8, "enipod");
    let records = vec![old.clone(), young.clone()];
    let (steps, agreed) = plan(contents(records), vec![right, left], COOLDOWN, now());
    assert_eq!(steps, []);
    let found: Vec<_> = agreed
        .pods
        .into_iter()
        .map(|pod| (pod.record, pod.host_index))
        .collect();
    assert_eq!(found, [(old.clone(), 7), (young, 8)]);

    // Even with its address, a link of another sandbox is not the record's, whatever its name is.
    let (other, link) = of("other", [10, 0, 0, 5], 9, "enipod");
    assert!(!names::is_link_of(&old, &link) && names::is_link_of(&other, &link));
}

/// An alias can be removed by anybody, and earlier releases wrote none.
#[test]
fn a_link_without_an_owner_is_known_by_its_name_or_its_mac() {
    let pod = record("a", [10, 0, 0, 5]);
    let plain = link("a", Some([10, 0, 0, 5]));
    let renamed = HostSide {
        name: "other".into(),
        owner: Some("uplink of web".into()),
        ..plain.clone()
    };
    let same_mac = HostSide {
        mac: pod.host_mac,
        ..renamed.clone()
    };
    let known = [&plain, &renamed, &same_mac].map(|link| names::is_link_of(&pod, link));
    assert_eq!(known, [true, false, true]);
}
