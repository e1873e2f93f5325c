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
    }
}

fn link(id: &str, address: Option<[u8; 4]>) -> HostSide {
    HostSide {
        ifindex: 7,
        name: format!("eni{id}"),
        uplink: datapath::uplink::Uplink::Eni(nettypes::EniIndex::new(1).unwrap()),
        mac: None,
        address: address.map(IpAddr::from),
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
    assert_eq!(agreed.records, [a]);
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
        assert_eq!(agreed.records, []);
    }
}

#[test]
fn a_link_that_no_record_claims_goes_without_a_route_and_stays_with_one() {
    let links = vec![link("a", None), link("b", Some([10, 0, 0, 6]))];
    let (steps, agreed) = plan(Contents::default(), links.clone(), COOLDOWN, now());
    assert_eq!(steps, [Step::RemoveLink("enia".into())]);
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
    assert_eq!(adopted(&orphan, &[eni(&[[10, 0, 0, 7]])]), None);
    let record = adopted(&orphan, &[eni(&[[10, 0, 0, 6]])]).expect("it is on eni-1");
    assert_eq!(record.sandbox, unknown("enib"));
    assert_eq!(record.eni, EniId::from("eni-1"));
}
