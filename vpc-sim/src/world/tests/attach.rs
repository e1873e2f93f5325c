//! Attaching, detaching, and what follows automatically.

use super::*;

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
fn delete_of_an_eni_in_use_has_ec2s_message() {
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
fn termination_deletes_marked_interfaces() {
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
