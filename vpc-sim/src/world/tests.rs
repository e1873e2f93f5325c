//! The rules of the world, one test each.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    model::{AttachmentState, Change, InterfaceType},
    request::{
        AssignPrivateIpAddresses, AttachNetworkInterface, Attribute, CreateNetworkInterface,
        DetachNetworkInterface, Filter, Pick, Pick4, Query,
    },
    *,
};
use crate::ids::AttachmentId;

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
fn an_exhausted_subnet_says_so() {
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
fn xen_takes_no_prefixes() {
    let mut lab = lab_with(WorldConfig::default(), "t2.medium");
    let primary = lab.node.primary.clone();
    assert_eq!(
        code(lab.assign(&primary, Pick::PrefixCount(1))),
        "InvalidParameterValue"
    );
    let eni = lab.create(Pick::PrefixCount(1)).unwrap().id;
    assert_eq!(code(lab.attach(&eni, 1, T0)), "InvalidParameterValue");
}

#[test]
fn the_interface_limit_names_count_and_type() {
    let mut lab = lab();
    for device in 1..3 {
        let eni = lab.plain();
        lab.attach(&eni, device, T0).unwrap();
    }
    let eni = lab.plain();
    let refused = lab.attach(&eni, 3, T0).unwrap_err();
    assert_eq!(refused.code(), "AttachmentLimitExceeded");
    assert_eq!(
        refused.to_string(),
        "Interface count 4 exceeds the limit for m5.large"
    );
}

#[test]
fn every_network_card_has_its_own_limit_and_indices() {
    let mut lab = lab_with(WorldConfig::default(), "p5.48xlarge");
    let mut on = |card, device| {
        let eni = lab.plain();
        let req = AttachNetworkInterface {
            eni,
            instance: lab.node.id.clone(),
            card,
            device,
        };
        lab.world
            .attach_network_interface(&req, T0)
            .map(|a| (a.card, a.device))
    };
    assert_eq!(on(0, 1), Ok((0, 1)));
    assert_eq!(on(1, 1), Ok((1, 1)));
    assert_eq!(code(on(0, 2)), "AttachmentLimitExceeded");
    assert_eq!(code(on(1, 1)), "InvalidParameterValue");
    assert_eq!(code(on(32, 1)), "InvalidParameterValue");
}

#[test]
fn attach_checks_index_use_zone_and_state() {
    let mut lab = lab();
    let (one, two) = (lab.plain(), lab.plain());
    let taken = lab.attach(&one, 0, T0).unwrap_err();
    let expect = format!(
        "Instance '{}' already has an interface attached at device index '0'.",
        lab.node.id
    );
    assert_eq!(
        (taken.code(), taken.to_string()),
        ("InvalidParameterValue", expect)
    );
    lab.attach(&one, 1, T0).unwrap();
    assert_eq!(
        code(lab.attach(&one, 2, T0)),
        "InvalidNetworkInterface.InUse"
    );
    let far = CreateNetworkInterface::plain(lab.elsewhere.clone());
    let far = lab.world.create_network_interface(far, T0).unwrap().id;
    assert_eq!(code(lab.attach(&far, 2, T0)), "InvalidParameterCombination");
    assert_eq!(
        code(lab.attach(&EniId::from("eni-none"), 2, T0)),
        "InvalidNetworkInterfaceID.NotFound"
    );
    lab.world
        .terminate_instance(&lab.node.id.clone(), T0)
        .unwrap();
    assert_eq!(code(lab.attach(&two, 1, T0)), "IncorrectState");
}

#[test]
fn attachments_settle_by_themselves() {
    let mut lab = lab_with(slow(), "m5.large");
    let eni = lab.plain();
    let bond = lab.attach(&eni, 1, T0).unwrap();
    assert_eq!(lab.state(&eni), Some(AttachmentState::Attaching));
    assert!(lab.world.take_changes().is_empty());
    let due = lab.world.next_deadline().unwrap();
    assert!(due >= secs(1) && due <= secs(6));
    lab.world.advance(due);
    assert_eq!(lab.state(&eni), Some(AttachmentState::Attached));
    assert!(
        matches!(&lab.world.take_changes()[..], [Change::Attached { eni: e, .. }] if e.id == eni)
    );

    lab.detach(&bond, due).unwrap();
    assert_eq!(lab.state(&eni), Some(AttachmentState::Detaching));
    assert_eq!(lab.world.take_changes(), [Change::Cut { eni: eni.clone() }]);
    assert_eq!(code(lab.detach(&bond, due)), "IncorrectState");
    assert_eq!(
        code(lab.world.delete_network_interface(&eni, due)),
        "InvalidParameterValue"
    );
    lab.world.advance(due + Duration::from_secs(20));
    assert_eq!(lab.state(&eni), None);
    let gone = Change::Detached {
        eni: eni.clone(),
        instance: lab.node.id.clone(),
    };
    assert_eq!(lab.world.take_changes(), [gone]);
    assert_eq!(
        code(lab.detach(&bond, secs(60))),
        "InvalidAttachmentID.NotFound"
    );
    lab.world.delete_network_interface(&eni, secs(60)).unwrap();
    assert_eq!(
        code(lab.world.delete_network_interface(&eni, secs(60))),
        "InvalidNetworkInterfaceID.NotFound"
    );
}

#[test]
fn a_stalled_attach_never_settles_and_a_detach_ends_it() {
    let mut lab = lab();
    lab.world.stall_attaches(1);
    let eni = lab.plain();
    let bond = lab.attach(&eni, 1, T0).unwrap();
    lab.world.advance(secs(3600));
    assert_eq!(lab.state(&eni), Some(AttachmentState::Attaching));
    lab.detach(&bond, secs(3600)).unwrap();
    assert_eq!(lab.state(&eni), None);
}

#[test]
fn force_ends_a_stalled_detach() {
    let mut lab = lab();
    lab.world.stall_detaches(1);
    let eni = lab.plain();
    let attachment = lab.attach(&eni, 1, T0).unwrap();
    lab.detach(&attachment, T0).unwrap();
    lab.world.advance(secs(3600));
    assert_eq!(lab.state(&eni), Some(AttachmentState::Detaching));
    lab.world
        .detach_network_interface(
            &DetachNetworkInterface {
                attachment,
                force: true,
            },
            secs(3600),
        )
        .unwrap();
    assert_eq!(lab.state(&eni), None);
}

#[test]
fn delete_in_use_has_ec2s_words() {
    let mut lab = lab();
    let eni = lab.node.primary.clone();
    let refused = lab.world.delete_network_interface(&eni, T0).unwrap_err();
    assert_eq!(refused.code(), "InvalidParameterValue");
    assert_eq!(
        refused.to_string(),
        format!("Network interface '{eni}' is currently in use.")
    );
}

#[test]
fn the_primary_interface_stays() {
    let mut lab = lab();
    let bond = lab
        .world
        .interface(&lab.node.primary)
        .unwrap()
        .attachment
        .clone()
        .unwrap()
        .id;
    let refused = lab.detach(&bond, T0).unwrap_err();
    assert_eq!(refused.code(), "OperationNotPermitted");
    let expect =
        "The network interface at device index 0 and networkCard index 0 cannot be detached.";
    assert_eq!(refused.to_string(), expect);
}

#[test]
fn interfaces_of_aws_services_are_not_ours() {
    let mut lab = lab();
    let req = ManagedInterface {
        instance: lab.node.id.clone(),
        card: 0,
        device: 1,
    };
    let eni = lab.world.attach_managed(&req, T0).unwrap();
    let bond = eni.attachment.clone().unwrap().id;
    let refused = lab.detach(&bond, T0).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "You are not allowed to manage 'ela-attach' attachments."
    );
    assert_eq!(
        code(lab.assign(&eni.id, Pick::Count(1))),
        "OperationNotPermitted"
    );
    let q = Query::filter("requester-managed", "true");
    assert_eq!(
        lab.world
            .describe_network_interfaces(&q, T0)
            .unwrap()
            .items
            .len(),
        1
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
fn changes_follow_addresses_of_attached_interfaces_only() {
    let mut lab = lab();
    let eni = lab.plain();
    lab.assign(&eni, Pick::Count(1)).unwrap();
    assert_eq!(lab.world.take_changes(), []);
    lab.attach(&eni, 1, T0).unwrap();
    assert!(
        matches!(&lab.world.take_changes()[..], [Change::Attached { delivers, .. }] if delivers.len() == 2)
    );
    let new = lab.assign(&eni, Pick::Count(1)).unwrap();
    let net = IpAddr::from(new[0]).into();
    assert_eq!(
        lab.world.take_changes(),
        [Change::Added {
            eni: eni.clone(),
            net
        }]
    );
    lab.world
        .unassign_private_ip_addresses(&eni, &new, &[], T0)
        .unwrap();
    assert_eq!(lab.world.take_changes(), [Change::Removed { eni, net }]);
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
fn termination_deletes_what_it_was_told_to() {
    let mut lab = lab();
    let (kept, doomed) = (lab.plain(), lab.plain());
    lab.attach(&kept, 1, T0).unwrap();
    let attachment = lab.attach(&doomed, 2, T0).unwrap();
    let change = Attribute::DeleteOnTermination {
        attachment,
        value: true,
    };
    lab.world
        .modify_network_interface(&doomed, change, T0)
        .unwrap();
    lab.world
        .terminate_instance(&lab.node.id.clone(), T0)
        .unwrap();
    assert_eq!(lab.world.interface(&kept).unwrap().status(), "available");
    assert!(lab.world.interface(&doomed).is_none());
    assert!(lab.world.interface(&lab.node.primary).is_none());
    assert_eq!(lab.world.available(&lab.subnet), 251 - 1);
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
        "InvalidGroup.NotFound"
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
fn one_unknown_id_fails_the_whole_describe() {
    let mut lab = lab();
    let eni = lab.plain();
    let q = Query::ids([eni.0.as_str(), "eni-x"]);
    let refused = lab.world.describe_network_interfaces(&q, T0).unwrap_err();
    assert_eq!(refused.code(), "InvalidNetworkInterfaceID.NotFound");
    assert_eq!(
        refused.to_string(),
        "The networkInterface ID 'eni-x' does not exist"
    );
    let two = lab
        .world
        .describe_network_interfaces(&Query::ids(["eni-x", "eni-y"]), T0)
        .unwrap_err();
    assert_eq!(
        two.to_string(),
        "The networkInterface IDs 'eni-x, eni-y' do not exist"
    );
    let by_filter = Query::filter("network-interface-id", "eni-x");
    assert_eq!(
        lab.world
            .describe_network_interfaces(&by_filter, T0)
            .unwrap()
            .items,
        []
    );
}

#[test]
fn filters_are_anded_and_their_values_ored() {
    let mut lab = lab();
    let mut req = CreateNetworkInterface::plain(lab.subnet.clone());
    req.tags = Tags::from([("owner".to_owned(), "me".to_owned())]);
    req.interface_type = InterfaceType::Efa;
    let efa = lab.world.create_network_interface(req, T0).unwrap().id;
    let mut count = |filters: &[(&str, &[&str])]| {
        let filter = |(n, v): &(&str, &[&str])| Filter {
            name: (*n).to_owned(),
            values: v.iter().map(|s| (*s).to_owned()).collect(),
        };
        let q = Query {
            filters: filters.iter().map(filter).collect(),
            ..Query::default()
        };
        lab.world
            .describe_network_interfaces(&q, T0)
            .map(|p| p.items.len())
    };
    assert_eq!(count(&[("interface-type", &["efa", "interface"])]), Ok(2));
    assert_eq!(
        count(&[("interface-type", &["efa"]), ("status", &["in-use"])]),
        Ok(0)
    );
    assert_eq!(count(&[("tag:owner", &["m*"])]), Ok(1));
    assert_eq!(count(&[("tag-key", &["owner"])]), Ok(1));
    assert_eq!(
        count(&[("attachment.instance-id", &[lab.node.id.0.as_str()])]),
        Ok(1)
    );
    assert_eq!(count(&[("network-interface-id", &[efa.0.as_str()])]), Ok(1));
    assert_eq!(
        count(&[("attachment.colour", &["red"])]).map_err(|e| e.code().to_owned()),
        Err("InvalidParameterValue".into())
    );
}

#[test]
fn pages_cover_everything_once() {
    let mut lab = lab();
    for _ in 0..11 {
        lab.plain();
    }
    let (mut seen, mut token, mut pages) = (Vec::new(), None, 0);
    loop {
        let q = Query {
            max_results: Some(5),
            next_token: token,
            ..Query::default()
        };
        let page = lab.world.describe_network_interfaces(&q, T0).unwrap();
        seen.extend(page.items.into_iter().map(|e| e.id));
        pages += 1;
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!((seen.len(), pages), (12, 3));
    seen.dedup();
    assert_eq!(seen.len(), 12);
}

#[test]
fn paging_has_rules() {
    let mut lab = lab();
    let eni = lab.plain();
    let mut ask = |q: Query| code(lab.world.describe_network_interfaces(&q, T0));
    let with_ids = Query {
        max_results: Some(10),
        ..Query::ids([&eni])
    };
    assert_eq!(ask(with_ids), "InvalidParameterCombination");
    for n in [0, 4, 1001] {
        assert_eq!(
            ask(Query {
                max_results: Some(n),
                ..Query::default()
            }),
            "InvalidParameterValue"
        );
    }
    assert_eq!(
        ask(Query {
            next_token: Some("zz".into()),
            ..Query::default()
        }),
        "InvalidNextToken"
    );
}

#[test]
fn tags_are_limited_checked_and_all_or_nothing() {
    let mut lab = lab();
    let eni = lab.plain();
    let ids = [eni.0.clone(), lab.subnet.0.clone(), lab.node.id.0.clone()];
    let tags = |n: usize| {
        (0..n)
            .map(|i| (format!("k{i}"), "v".to_owned()))
            .collect::<Tags>()
    };
    lab.world.create_tags(&ids, &tags(50), T0).unwrap();
    let one_more = Tags::from([("x".to_owned(), "v".to_owned())]);
    assert_eq!(
        code(lab.world.create_tags(&ids, &one_more, T0)),
        "TagLimitExceeded"
    );
    let reserved = Tags::from([("aws:x".to_owned(), "v".to_owned())]);
    assert_eq!(
        code(lab.world.create_tags(&ids, &reserved, T0)),
        "InvalidParameterValue"
    );
    let unknown = [lab.vpc.0.clone(), "eni-x".to_owned()];
    assert_eq!(
        code(lab.world.create_tags(&unknown, &one_more, T0)),
        "InvalidNetworkInterfaceID.NotFound"
    );
    assert!(lab.world.vpc(&lab.vpc).unwrap().tags.is_empty());
    let gone = [
        ("k0".to_owned(), None),
        ("k1".to_owned(), Some("other".to_owned())),
    ];
    lab.world.delete_tags(&ids, &gone, T0).unwrap();
    assert_eq!(
        lab.world.interface(&eni).unwrap().tags.len(),
        49,
        "k1 has another value"
    );
    let rows = lab
        .world
        .describe_tags(&Query::filter("resource-type", "network-interface"), T0)
        .unwrap();
    assert_eq!(rows.items.len(), 49);
}

#[test]
fn quotas_hold() {
    let quotas = Quotas {
        interfaces: 2,
        ..Quotas::default()
    };
    let mut lab = lab_with(
        WorldConfig {
            quotas,
            ..WorldConfig::default()
        },
        "m5.large",
    );
    lab.plain();
    assert_eq!(
        code(lab.create(Pick::Nothing)),
        "NetworkInterfaceLimitExceeded"
    );
}

#[test]
fn buckets_empty_and_refill() {
    let mut lab = lab_with(
        WorldConfig {
            throttling: true,
            ..WorldConfig::default()
        },
        "m5.large",
    );
    let mut read = |now| {
        lab.world
            .describe_network_interfaces(&Query::default(), now)
            .map(drop)
    };
    for _ in 0..50 {
        read(T0).unwrap();
    }
    assert_eq!(code(read(T0)), "RequestLimitExceeded");
    for _ in 0..10 {
        read(secs(1)).unwrap();
    }
    assert_eq!(code(read(secs(1))), "RequestLimitExceeded");
    // Filtered reads, and other APIs, have buckets of their own.
    let q = Query::filter("status", "in-use");
    assert!(lab.world.describe_network_interfaces(&q, secs(1)).is_ok());
    assert!(
        lab.world
            .describe_subnets(&Query::default(), secs(1))
            .is_ok()
    );
    lab.world.set_throttling(false);
    assert!(
        lab.world
            .describe_network_interfaces(&Query::default(), secs(1))
            .is_ok()
    );
}

#[test]
fn imds_lags_as_told() {
    let mut lab = lab();
    let ms = Duration::from_millis;
    lab.world.set_imds_lag(ImdsLag {
        listed: ms(100),
        populated: ms(200),
        addresses: ms(500),
        gone: ms(900),
    });
    let eni = lab.plain();
    let bond = lab.attach(&eni, 1, T0).unwrap();
    let node = lab.node.id.clone();
    let view = |lab: &mut Lab, at: u64| {
        let all = lab.world.imds_interfaces(&node, T0 + ms(at));
        let mine = lab.world.interface(&eni).map(|e| e.mac);
        all.into_iter()
            .find(|i| Some(i.mac) == mine)
            .map(|i| i.facts.map(|f| f.ipv4.len()))
    };
    assert_eq!(view(&mut lab, 50), None);
    assert_eq!(view(&mut lab, 100), Some(None));
    assert_eq!(view(&mut lab, 300), Some(Some(1)));
    lab.assign(&eni, Pick::Count(3)).unwrap();
    assert_eq!(view(&mut lab, 499), Some(Some(1)));
    assert_eq!(view(&mut lab, 500), Some(Some(4)));
    lab.detach(&bond, T0 + ms(1000)).unwrap();
    assert_eq!(view(&mut lab, 1899), Some(Some(4)));
    assert_eq!(view(&mut lab, 1900), None);
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
