//! Tests of the world's rules.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    model::{AttachmentState, Change, InterfaceType, Tags},
    request::{
        AssignPrivateIpAddresses, AttachNetworkInterface, Attribute, CreateNetworkInterface,
        DetachNetworkInterface, Filter, Pick, Pick4, Query,
    },
    *,
};
use crate::ids::AttachmentId;

mod attach;
mod describe;
mod topology;

const T0: Duration = Duration::from_secs(1_700_000_000);

fn secs(n: u64) -> Duration {
    T0 + Duration::from_secs(n)
}

/// A world with one VPC, a /24 in zone a and another in zone b, and an m5.large.
struct Lab {
    world: World,
    vpc: VpcId,
    subnet: SubnetId,
    elsewhere: SubnetId,
    node: Instance,
}

fn lab_with(config: WorldConfig, instance_type: &str) -> Lab {
    let mut world = World::new(config);
    let vpc = world.add_vpc(
        vec!["10.0.0.0/16".parse().unwrap()],
        vec!["2600:1f14::/56".parse().unwrap()],
    );
    let v6 = "2600:1f14:0:1::/64".parse().unwrap();
    let subnet = world.add_subnet(&vpc, "10.0.1.0/24".parse().unwrap(), Some(v6), 'a');
    let elsewhere = world.add_subnet(&vpc, "10.0.2.0/24".parse().unwrap(), None, 'b');
    let node = world
        .launch_instance(&LaunchInstance::plain(instance_type, subnet.clone()), T0)
        .unwrap();
    world.take_changes();
    Lab {
        world,
        vpc,
        subnet,
        elsewhere,
        node,
    }
}

fn lab() -> Lab {
    lab_with(WorldConfig::default(), "m5.large")
}

impl Lab {
    fn create(&mut self, ipv4: Pick4) -> Result<NetworkInterface, ApiError> {
        let req = CreateNetworkInterface {
            ipv4,
            ..CreateNetworkInterface::plain(self.subnet.clone())
        };
        self.world.create_network_interface(req, T0)
    }

    fn plain(&mut self) -> EniId {
        self.create(Pick::Nothing).unwrap().id
    }

    fn attach(
        &mut self,
        eni: &EniId,
        device: u32,
        now: Duration,
    ) -> Result<AttachmentId, ApiError> {
        let req = AttachNetworkInterface {
            eni: eni.clone(),
            instance: self.node.id.clone(),
            card: 0,
            device,
        };
        self.world.attach_network_interface(&req, now).map(|a| a.id)
    }

    fn detach(&mut self, attachment: &AttachmentId, now: Duration) -> Result<(), ApiError> {
        let req = DetachNetworkInterface {
            attachment: attachment.clone(),
            force: false,
        };
        self.world.detach_network_interface(&req, now)
    }

    fn assign(&mut self, eni: &EniId, ipv4: Pick4) -> Result<Vec<Ipv4Addr>, ApiError> {
        let req = AssignPrivateIpAddresses {
            eni: eni.clone(),
            ipv4,
            allow_reassignment: false,
        };
        self.world
            .assign_private_ip_addresses(&req, T0)
            .map(|a| a.addresses)
    }

    fn state(&self, eni: &EniId) -> Option<AttachmentState> {
        self.world
            .interface(eni)
            .unwrap()
            .attachment
            .as_ref()
            .map(|a| a.state)
    }
}

fn code<T: std::fmt::Debug>(outcome: Result<T, ApiError>) -> String {
    outcome.unwrap_err().code().to_owned()
}

fn slow() -> WorldConfig {
    WorldConfig {
        latency: Latency::default(),
        ..WorldConfig::default()
    }
}

#[test]
fn create_gives_primary_secondaries_and_default_group() {
    let mut lab = lab();
    let before = lab.world.available(&lab.subnet);
    let eni = lab.create(Pick::Count(3)).unwrap();
    assert_eq!(eni.ipv4.len(), 4);
    assert_eq!(
        eni.groups,
        [lab.world.vpc(&lab.vpc).unwrap().default_group.clone()]
    );
    assert_eq!(lab.world.available(&lab.subnet), before - 4);
    assert!(
        eni.ipv4
            .iter()
            .all(|a| lab.world.owner_of(*a).unwrap().id == eni.id)
    );
}

#[test]
fn create_takes_explicit_addresses() {
    let mut lab = lab();
    let wanted = [Ipv4Addr::new(10, 0, 1, 50), Ipv4Addr::new(10, 0, 1, 51)];
    let mut req = CreateNetworkInterface::plain(lab.subnet.clone());
    req.primary = Some(Ipv4Addr::new(10, 0, 1, 49));
    req.ipv4 = Pick::These(wanted.to_vec());
    let eni = lab.world.create_network_interface(req.clone(), T0).unwrap();
    assert_eq!(eni.primary(), Some(Ipv4Addr::new(10, 0, 1, 49)));
    assert_eq!(eni.ipv4[1..], wanted);
    assert_eq!(
        code(lab.world.create_network_interface(req, T0)),
        "InvalidIPAddress.InUse"
    );
}

#[test]
fn a_failed_create_takes_nothing() {
    let mut lab = lab();
    let before = lab.world.available(&lab.subnet);
    let taken = lab
        .world
        .interface(&lab.node.primary)
        .unwrap()
        .primary()
        .unwrap();
    let free = Ipv4Addr::new(10, 0, 1, if taken.octets()[3] == 77 { 78 } else { 77 });
    assert_eq!(
        code(lab.create(Pick::These(vec![free, taken]))),
        "InvalidIPAddress.InUse"
    );
    assert_eq!(
        code(lab.create(Pick::PrefixCount(15))),
        "InsufficientCidrBlocks"
    );
    assert_eq!(lab.world.available(&lab.subnet), before);
    assert_eq!(lab.world.interfaces().count(), 1);
}

#[test]
fn an_exhausted_subnet_is_reported() {
    let mut world = World::new(WorldConfig::default());
    let vpc = world.add_vpc(vec!["10.0.0.0/16".parse().unwrap()], vec![]);
    let subnet = world.add_subnet(&vpc, "10.0.3.0/28".parse().unwrap(), None, 'a');
    let mut req = CreateNetworkInterface::plain(subnet.clone());
    req.ipv4 = Pick::Count(10);
    world.create_network_interface(req.clone(), T0).unwrap();
    assert_eq!(world.available(&subnet), 0);
    assert_eq!(
        code(world.create_network_interface(req, T0)),
        "InsufficientFreeAddressesInSubnet"
    );
}

#[test]
fn fragmentation_leaves_singles_but_no_prefixes() {
    let mut lab = lab();
    for block in 0..16 {
        for host in [8, 9] {
            lab.world.occupy(
                &lab.subnet.clone(),
                Ipv4Addr::new(10, 0, 1, block * 16 + host).into(),
            );
        }
    }
    assert_eq!(
        code(lab.create(Pick::PrefixCount(1))),
        "InsufficientCidrBlocks"
    );
    assert!(lab.create(Pick::Count(5)).is_ok());
}

#[test]
fn prefixes_are_aligned_and_take_one_slot_each() {
    let mut lab = lab();
    let eni = lab.create(Pick::PrefixCount(9)).unwrap();
    assert!(
        eni.ipv4_prefixes
            .iter()
            .all(|p| p.prefix_len() == 28 && p.trunc() == *p)
    );
    lab.attach(&eni.id, 1, T0).unwrap();
    assert_eq!(
        code(lab.assign(&eni.id, Pick::Count(1))),
        "PrivateIpAddressLimitExceeded"
    );
    let member = eni.ipv4_prefixes[0].hosts().last().unwrap();
    assert_eq!(lab.world.owner_of(member).unwrap().id, eni.id);
}

#[test]
fn a_named_prefix_must_be_a_free_aligned_slash_28() {
    let mut lab = lab();
    let mut named = |p: &str| {
        lab.create(Pick::Prefixes(vec![p.parse().unwrap()]))
            .map(|e| e.ipv4_prefixes)
    };
    assert_eq!(code(named("10.0.1.32/27")), "InvalidParameterValue");
    assert_eq!(code(named("10.0.1.40/28")), "InvalidParameterValue");
    assert_eq!(code(named("10.9.1.32/28")), "InvalidParameterValue");
    let free = ["10.0.1.32/28", "10.0.1.48/28"]
        .into_iter()
        .find(|p| named(p).is_ok())
        .unwrap();
    assert_eq!(code(named(free)), "InsufficientCidrBlocks");
}

#[test]
fn the_instance_type_limits_addresses_once_attached() {
    let mut lab = lab();
    let eni = lab.plain();
    lab.attach(&eni, 1, T0).unwrap();
    assert_eq!(lab.assign(&eni, Pick::Count(9)).unwrap().len(), 9);
    let refused = lab.assign(&eni, Pick::Count(1)).unwrap_err();
    assert_eq!(refused.code(), "PrivateIpAddressLimitExceeded");
    assert_eq!(
        refused.to_string(),
        "Number of private addresses will exceed limit."
    );
    let big = lab.create(Pick::Count(10)).unwrap().id;
    assert_eq!(
        code(lab.attach(&big, 2, T0)),
        "PrivateIpAddressLimitExceeded"
    );
}

#[test]
fn a_client_token_makes_create_idempotent() {
    let mut lab = lab();
    let mut req = CreateNetworkInterface::plain(lab.subnet.clone());
    req.client_token = Some("t-1".into());
    let first = lab.world.create_network_interface(req.clone(), T0).unwrap();
    let again = lab
        .world
        .create_network_interface(req.clone(), secs(600))
        .unwrap();
    assert_eq!(first.id, again.id);
    assert_eq!(lab.world.interfaces().count(), 2, "the node's own and this");
    req.ipv4 = Pick::Count(1);
    assert_eq!(
        code(lab.world.create_network_interface(req.clone(), T0)),
        "IdempotentParameterMismatch"
    );
    req.client_token = Some("x".repeat(65));
    assert_eq!(
        code(lab.world.create_network_interface(req, T0)),
        "InvalidParameterValue"
    );
}

#[test]
fn assign_by_count_is_not_idempotent_and_answers_only_the_new() {
    let mut lab = lab();
    let eni = lab.plain();
    let first = lab.assign(&eni, Pick::Count(2)).unwrap();
    let second = lab.assign(&eni, Pick::Count(2)).unwrap();
    assert!(first.iter().all(|a| !second.contains(a)));
    assert_eq!(lab.world.interface(&eni).unwrap().ipv4.len(), 5);
    assert!(lab.assign(&eni, Pick::These(first)).unwrap().is_empty());
}

#[test]
fn explicit_addresses_move_only_when_allowed() {
    let mut lab = lab();
    let (from, to) = (lab.create(Pick::Count(1)).unwrap(), lab.plain());
    let address = from.ipv4[1];
    let refused = lab.assign(&to, Pick::These(vec![address])).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("Some of {address} are assigned, but move is not allowed")
    );
    let moved = |lab: &mut Lab, a| {
        let req = AssignPrivateIpAddresses {
            eni: to.clone(),
            ipv4: Pick::These(vec![a]),
            allow_reassignment: true,
        };
        lab.world.assign_private_ip_addresses(&req, T0)
    };
    assert_eq!(code(moved(&mut lab, from.ipv4[0])), "InvalidParameterValue");
    moved(&mut lab, address).unwrap();
    assert_eq!(lab.world.owner_of(address).unwrap().id, to);
    assert_eq!(lab.world.interface(&from.id).unwrap().ipv4, [from.ipv4[0]]);
}

#[test]
fn unassign_is_not_idempotent_and_spares_the_primary() {
    let mut lab = lab();
    let eni = lab.create(Pick::Count(2)).unwrap();
    let drop = |lab: &mut Lab, a: &[Ipv4Addr]| {
        lab.world.unassign_private_ip_addresses(&eni.id, a, &[], T0)
    };
    drop(&mut lab, &eni.ipv4[1..2]).unwrap();
    let refused = drop(&mut lab, &eni.ipv4[1..3]).unwrap_err();
    let expect = format!(
        "Some of the specified addresses are not assigned to interface {}",
        eni.id
    );
    assert_eq!(
        (refused.code(), refused.to_string()),
        ("InvalidParameterValue", expect)
    );
    assert_eq!(
        lab.world.interface(&eni.id).unwrap().ipv4.len(),
        2,
        "the call did nothing"
    );
    assert_eq!(
        code(drop(&mut lab, &eni.ipv4[..1])),
        "InvalidParameterValue"
    );
}

#[test]
fn ipv6_assigns_addresses_and_prefixes_where_the_subnet_has_them() {
    let mut lab = lab();
    let eni = lab.plain();
    let given = lab
        .world
        .assign_ipv6_addresses(&eni, &Pick::PrefixCount(2), T0)
        .unwrap();
    assert!(given.prefixes.iter().all(|p| p.prefix_len() == 80));
    let single = lab
        .world
        .assign_ipv6_addresses(&eni, &Pick::Count(1), T0)
        .unwrap()
        .addresses;
    lab.world
        .unassign_ipv6_addresses(&eni, &single, &given.prefixes, T0)
        .unwrap();
    assert_eq!(
        code(lab.world.unassign_ipv6_addresses(&eni, &single, &[], T0)),
        "InvalidParameterValue"
    );
    let far = CreateNetworkInterface::plain(lab.elsewhere.clone());
    let far = lab.world.create_network_interface(far, T0).unwrap().id;
    assert_eq!(
        code(lab.world.assign_ipv6_addresses(&far, &Pick::Count(1), T0)),
        "InvalidParameterValue"
    );
}

#[test]
fn an_assigned_address_is_usable_only_after_a_while() {
    let latency = Latency {
        usable: crate::latency::Span::millis(2000, 2000),
        ..Latency::default()
    };
    let mut lab = lab_with(
        WorldConfig {
            latency,
            ..WorldConfig::default()
        },
        "m5.large",
    );
    let primary = lab.node.primary.clone();
    let new: IpAddr = lab.assign(&primary, Pick::Count(1)).unwrap()[0].into();
    assert!(lab.world.owner_of(new).is_some());
    assert!(!lab.world.usable(new));
    lab.world.advance(secs(2));
    assert!(lab.world.usable(new));
    assert_eq!(
        lab.world.take_changes(),
        [Change::Added {
            eni: primary,
            net: new.into()
        }]
    );
}

#[test]
fn a_vpc_accepts_another_block_without_overlap() {
    let mut lab = lab();
    let mut associate = |block: &str| {
        let vpc = lab.vpc.clone();
        lab.world.associate_block(&vpc, block.parse().unwrap())
    };
    assert!(associate("100.64.0.0/16"));
    for overlapping in ["100.64.0.0/16", "100.64.9.0/24", "10.0.0.0/8"] {
        assert!(!associate(overlapping), "{overlapping}");
    }
    let block = "100.64.0.0/16".parse().unwrap();
    assert_eq!(lab.world.take_changes(), [Change::Associated { block }]);
    let blocks = &lab.world.vpc(&lab.vpc).unwrap().cidrs;
    assert_eq!(blocks[1..], [block], "after the VPC's own");
}

#[test]
fn modify_changes_one_attribute() {
    let mut lab = lab();
    let eni = lab.plain();
    let group = lab.world.add_group(&lab.vpc.clone(), "pods", "pods");
    let mut set = |a| lab.world.modify_network_interface(&eni, a, T0);
    set(Attribute::Groups(vec![group.clone()])).unwrap();
    set(Attribute::Description("d".into())).unwrap();
    set(Attribute::SourceDestCheck(false)).unwrap();
    assert_eq!(
        code(set(Attribute::Groups(vec![GroupId::from("sg-x")]))),
        "InvalidSecurityGroupID.NotFound"
    );
    assert_eq!(
        code(set(Attribute::Groups(vec![group.clone(); 6]))),
        "SecurityGroupsPerInterfaceLimitExceeded"
    );
    let unknown = Attribute::DeleteOnTermination {
        attachment: AttachmentId::from("eni-attach-x"),
        value: true,
    };
    assert_eq!(code(set(unknown)), "InvalidAttachmentID.NotFound");
    let e = lab.world.interface(&eni).unwrap();
    assert_eq!(
        (&e.groups[..], &e.description[..], e.source_dest_check),
        (&[group][..], "d", false)
    );
}

#[test]
fn a_seed_repeats_itself_and_latency_does_not_change_addresses() {
    let ids = |config: WorldConfig| {
        let mut lab = lab_with(config, "m5.large");
        let e = lab.create(Pick::Count(3)).unwrap();
        (e.id, e.ipv4)
    };
    assert_eq!(ids(WorldConfig::default()), ids(WorldConfig::default()));
    assert_eq!(ids(WorldConfig::default()), ids(slow()));
    assert_ne!(
        ids(WorldConfig::default()),
        ids(WorldConfig {
            seed: 2,
            ..WorldConfig::default()
        })
    );
}
