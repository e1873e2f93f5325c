//! VPCs with several subnets, route tables and security groups.

use ipnet::Ipv4Net;

use super::*;
use crate::world::{
    describe::TagRow,
    model::{
        Route,
        security::{Allowed, Guard, Peer, Peers, Protocol, Rule},
    },
};

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

/// A secondary block with two subnets in the node's zone.
fn with_pod_subnets(lab: &mut Lab) -> [SubnetId; 2] {
    let vpc = lab.vpc.clone();
    assert!(lab.world.associate_block(&vpc, net("100.64.0.0/16")));
    ["100.64.0.0/24", "100.64.1.0/26"].map(|cidr| lab.world.add_subnet(&vpc, net(cidr), None, 'a'))
}

fn create_in(lab: &mut Lab, subnet: &SubnetId, ipv4: Pick4) -> Result<NetworkInterface, ApiError> {
    let req = CreateNetworkInterface {
        ipv4,
        ..CreateNetworkInterface::plain(subnet.clone())
    };
    lab.world.create_network_interface(req, T0)
}

#[test]
fn every_subnet_counts_its_own_addresses() {
    let mut lab = lab();
    let [large, small] = with_pod_subnets(&mut lab);
    let eni = create_in(&mut lab, &large, Pick::Count(9)).unwrap();
    assert!(eni.ipv4.iter().all(|a| net("100.64.0.0/24").contains(a)));
    create_in(&mut lab, &small, Pick::PrefixCount(1)).unwrap();
    let of = |lab: &mut Lab, filters: &[(&str, &str)]| {
        let filter = |(name, value): &(&str, &str)| Filter {
            name: (*name).to_owned(),
            values: vec![(*value).to_owned()],
        };
        let q = Query {
            filters: filters.iter().map(filter).collect(),
            ..Query::default()
        };
        let page = lab.world.describe_subnets(&q, T0).unwrap();
        let rows = page.items.into_iter().map(|(s, free)| (s.cidr, free));
        rows.collect::<BTreeMap<_, _>>()
    };
    let zone_a = [
        (net("10.0.1.0/24"), 256 - 5 - 1),
        (net("100.64.0.0/24"), 256 - 5 - 10),
        (net("100.64.1.0/26"), 64 - 5 - 17),
    ];
    assert_eq!(
        of(&mut lab, &[("availability-zone", "us-west-2a")]),
        BTreeMap::from(zone_a)
    );
    let vpc = lab.vpc.0.clone();
    assert_eq!(of(&mut lab, &[("vpc-id", vpc.as_str())]).len(), 4);
    let tags = Tags::from([("kubernetes.io/role/cni".to_owned(), "1".to_owned())]);
    lab.world.tag(&[small.to_string()], &tags).unwrap();
    for tagged in [
        ("tag-key", "kubernetes.io/role/cni"),
        ("tag:kubernetes.io/role/cni", "1"),
    ] {
        assert_eq!(of(&mut lab, &[tagged]), BTreeMap::from([zone_a[2]]));
        assert_eq!(
            of(&mut lab, &[tagged, ("subnet-id", large.0.as_str())]).len(),
            0
        );
    }
    assert_eq!(
        of(&mut lab, &[("tag:kubernetes.io/role/cni", "0")]).len(),
        0
    );
}

#[test]
fn an_exhausted_subnet_exhausts_no_other_one() {
    let mut lab = lab();
    let [large, small] = with_pod_subnets(&mut lab);
    lab.world.crowd(&small, 3);
    assert_eq!(lab.world.available(&small), 3);
    assert_eq!(
        code(create_in(&mut lab, &small, Pick::Count(3))),
        "InsufficientFreeAddressesInSubnet"
    );
    create_in(&mut lab, &small, Pick::Count(2)).unwrap();
    assert_eq!(lab.world.available(&small), 0);
    create_in(&mut lab, &large, Pick::Count(3)).unwrap();
}

#[test]
fn a_fragmented_subnet_fragments_no_other_one() {
    let mut lab = lab();
    let [large, small] = with_pod_subnets(&mut lab);
    lab.world.fragment(&large);
    assert_eq!(lab.world.available(&large), 256 - 5 - 14);
    assert_eq!(
        code(create_in(&mut lab, &large, Pick::PrefixCount(1))),
        "InsufficientCidrBlocks"
    );
    create_in(&mut lab, &large, Pick::Count(1)).unwrap();
    create_in(&mut lab, &small, Pick::PrefixCount(1)).unwrap();
}

#[test]
fn an_unknown_subnet_and_one_of_another_zone_are_refused() {
    let mut lab = lab();
    let unknown = SubnetId::from("subnet-none");
    assert_eq!(
        code(create_in(&mut lab, &unknown, Pick::Nothing)),
        "InvalidSubnetID.NotFound"
    );
    let elsewhere = lab.elsewhere.clone();
    let far = create_in(&mut lab, &elsewhere, Pick::Nothing).unwrap();
    let refused = lab.attach(&far.id, 1, T0).unwrap_err().to_string();
    assert!(
        refused.contains("not in the same availability zone"),
        "{refused}"
    );
}

#[test]
#[should_panic(expected = "overlaps another subnet")]
fn subnets_of_a_vpc_do_not_overlap() {
    let mut lab = lab();
    lab.world
        .add_subnet(&lab.vpc.clone(), net("10.0.1.128/25"), None, 'a');
}

#[test]
#[should_panic(expected = "in none of the VPC's blocks")]
fn a_subnet_lies_in_a_block_of_its_vpc() {
    let mut lab = lab();
    lab.world
        .add_subnet(&lab.vpc.clone(), net("100.64.0.0/24"), None, 'a');
}

#[test]
fn a_subnet_without_a_route_table_has_the_main_one() {
    let mut lab = lab();
    let [large, small] = with_pod_subnets(&mut lab);
    let nat = vec![Route::new(net("0.0.0.0/0").into(), "nat-1")];
    let own = lab.world.add_route_table(&lab.vpc.clone(), nat);
    assert!(lab.world.associate_route_table(&own, &large));
    let table = |subnet: &SubnetId| lab.world.route_table_of(subnet).unwrap();
    assert_eq!(
        (table(&large).id.clone(), table(&large).main),
        (own.clone(), false)
    );
    assert!(table(&small).main && table(&lab.subnet).main);
    let mut found = |name: &str, value: &str| {
        let q = Query::filter(name, value);
        lab.world.describe_route_tables(&q, T0).unwrap().items
    };
    let by_subnet = found("association.subnet-id", &large.0);
    let targets = |t: &crate::world::model::RouteTable| {
        let rows = t
            .routes
            .iter()
            .map(|r| format!("{} {}", r.destination, r.target));
        rows.collect::<Vec<_>>()
    };
    assert_eq!(by_subnet.len(), 1);
    assert_eq!(
        targets(&by_subnet[0]),
        [
            "10.0.0.0/16 local",
            "100.64.0.0/16 local",
            "2600:1f14::/56 local",
            "0.0.0.0/0 nat-1"
        ]
    );
    assert_eq!(found("association.subnet-id", &small.0), []);
    let main = found("association.main", "true");
    assert_eq!(main.len(), 1);
    assert!(main[0].routes.last().unwrap().target.starts_with("igw-"));
    assert_eq!(found("route.nat-gateway-id", "nat-1"), by_subnet);
    assert_eq!(found("vpc-id", "vpc-none"), []);
    assert_eq!(
        code(
            lab.world
                .describe_route_tables(&Query::ids(["rtb-none"]), T0)
        ),
        "InvalidRouteTableID.NotFound"
    );
    // Another association replaces the first one.
    let other = lab.world.add_route_table(&lab.vpc.clone(), Vec::new());
    assert!(lab.world.associate_route_table(&other, &large));
    assert_eq!(lab.world.route_table_of(&large).unwrap().id, other);
    let foreign = lab.world.add_vpc(vec![net("10.9.0.0/16")], Vec::new());
    let foreign = lab.world.add_route_table(&foreign, Vec::new());
    assert!(!lab.world.associate_route_table(&foreign, &large));
}

#[test]
fn route_tables_have_tags() {
    let mut lab = lab();
    let id = lab.world.route_tables().next().unwrap().id.to_string();
    lab.world
        .create_tags(
            std::slice::from_ref(&id),
            &Tags::from([("k".into(), "v".into())]),
            T0,
        )
        .unwrap();
    let rows = lab
        .world
        .describe_tags(&Query::filter("key", "k"), T0)
        .unwrap()
        .items;
    let row = TagRow {
        resource: id,
        resource_type: "route-table",
        key: "k".into(),
        value: "v".into(),
    };
    assert_eq!(rows, [row]);
    let q = Query::filter("tag:k", "v");
    assert_eq!(
        lab.world.describe_route_tables(&q, T0).unwrap().items.len(),
        1
    );
}

#[test]
fn a_group_of_another_vpc_is_refused() {
    let mut lab = lab();
    let foreign = lab.world.add_vpc(vec![net("10.9.0.0/16")], Vec::new());
    let group = lab.world.add_group(&foreign, "pods", "pods");
    let req = CreateNetworkInterface {
        groups: vec![group.clone()],
        ..CreateNetworkInterface::plain(lab.subnet.clone())
    };
    let refused = lab.world.create_network_interface(req, T0).unwrap_err();
    let expect = format!(
        "Security group {group} and subnet {} belong to different networks.",
        lab.subnet
    );
    assert_eq!(
        (refused.code(), refused.to_string()),
        ("InvalidParameter", expect)
    );
    let eni = lab.plain();
    let attribute = Attribute::Groups(vec![group]);
    let refused = lab.world.modify_network_interface(&eni, attribute, T0);
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), "InvalidGroup.NotFound");
    assert!(refused.to_string().contains("different networks"));
}

#[test]
fn a_new_group_lets_everything_out_and_nothing_in() {
    let mut lab = lab();
    let group = lab.world.add_group(&lab.vpc.clone(), "pods", "pods");
    let found = lab.world.group(&group).unwrap();
    assert_eq!(found.ingress, []);
    assert_eq!(found.egress, Rule::anything(true));
    let default = lab.world.vpc(&lab.vpc).unwrap().default_group.clone();
    assert_eq!(
        lab.world.group(&default).unwrap().ingress,
        Rule::anything(true)
    );
    let rules = vec![Rule::new(Protocol::tcp(80), Peer::Group(default))];
    lab.world.set_ingress(&group, rules.clone());
    assert_eq!(lab.world.group(&group).unwrap().ingress, rules);
}

/// A group with one rule, and the node's second interface in it.
fn guarded(lab: &mut Lab) -> (GroupId, EniId) {
    let pods = lab.world.add_group(&lab.vpc.clone(), "pods", "pods");
    let default = lab.world.vpc(&lab.vpc).unwrap().default_group.clone();
    let rules = vec![Rule::new(Protocol::tcp(80), Peer::Group(default))];
    lab.world.set_ingress(&pods, rules);
    let req = CreateNetworkInterface {
        groups: vec![pods.clone()],
        ..CreateNetworkInterface::plain(lab.subnet.clone())
    };
    let eni = lab.world.create_network_interface(req, T0).unwrap().id;
    (pods, eni)
}

#[test]
fn the_fabric_learns_of_a_guard_before_the_interface() {
    let mut lab = lab();
    assert_eq!(lab.world.guards(), []);
    let (pods, eni) = guarded(&mut lab);
    assert_eq!(lab.world.take_changes(), [], "nothing is attached");
    lab.attach(&eni, 1, T0).unwrap();
    let from_node = Allowed {
        protocol: Protocol::tcp(80),
        peer: Peers::Interfaces(vec![lab.node.primary.clone()]),
    };
    let guard = Guard {
        eni: eni.clone(),
        ingress: Some(vec![from_node]),
        egress: None,
    };
    let changes = lab.world.take_changes();
    let guards = vec![guard];
    assert_eq!(changes[0], Change::Guarded { guards });
    assert_eq!(changes[1].attached().map(|e| &e.id), Some(&eni));
    // The same rules again are no change.
    let rules = lab.world.group(&pods).unwrap().ingress.clone();
    lab.world.set_ingress(&pods, rules);
    assert_eq!(lab.world.take_changes(), []);
    lab.world.set_ingress(&pods, Rule::anything(true));
    let open = Change::Guarded { guards: Vec::new() };
    assert_eq!(lab.world.take_changes(), [open]);
}

#[test]
fn one_open_group_of_several_is_enough() {
    let mut lab = lab();
    let (pods, eni) = guarded(&mut lab);
    lab.attach(&eni, 1, T0).unwrap();
    assert_eq!(lab.world.guards().len(), 1);
    let default = lab.world.vpc(&lab.vpc).unwrap().default_group.clone();
    let both = Attribute::Groups(vec![pods, default]);
    lab.world.modify_network_interface(&eni, both, T0).unwrap();
    assert_eq!(lab.world.guards(), []);
}

#[test]
fn a_guard_ends_with_its_attachment() {
    let mut lab = lab();
    let (_, eni) = guarded(&mut lab);
    let bond = lab.attach(&eni, 1, T0).unwrap();
    lab.world.take_changes();
    lab.detach(&bond, T0).unwrap();
    let last = lab.world.take_changes().pop();
    assert_eq!(last, Some(Change::Guarded { guards: Vec::new() }));
}
