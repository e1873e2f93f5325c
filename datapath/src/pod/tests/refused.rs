//! Real ADDs that fail and leave nothing behind, and ADDs that find the remains of an earlier one.

use super::*;

#[test]
fn an_interface_name_in_use_is_reported() {
    let mut lab = Lab::new();
    lab.add(&pod_link(5)).unwrap();
    let error = lab.refuses(&pod_link(6));
    assert!(
        matches!(&error, AddError::InterfaceExists { name } if name == "eth0"),
        "{error}"
    );
    assert_eq!(lab.check(&pod_link(5)), []);
}

#[test]
fn an_earlier_attempts_link_is_replaced() {
    let mut lab = Lab::new();
    let link = pod_link(5);
    // The state after an ADD that died after its first step.
    let end = link.host_end(&link.host_name);
    let half = link::add_veth(&end, &link.pod_end(), Some(lab.pod_ns.as_fd()));
    lab.host.apply(&half).unwrap();
    lab.add(&link).unwrap();
    assert_eq!(lab.check(&link), []);
    // And after a complete ADD without a reply.
    let wired = lab.add(&link).unwrap();
    assert_eq!(lab.check(&link), []);
    // And after an interrupted deletion.
    let doom = Change {
        group: Some(GROUP_DYING),
        ..Change::default()
    };
    lab.host.apply(&link::set(wired.host_index, &doom)).unwrap();
    lab.add(&link).unwrap();
    assert_eq!(lab.check(&link), []);
}

#[test]
fn an_earlier_attempts_link_and_an_occupied_interface_name_at_once() {
    let mut lab = Lab::new();
    let link = pod_link(5);
    let stranger = link::End {
        group: 0,
        ..pod_link(9).host_end("eth0")
    };
    lab.pod
        .apply(&link::add_veth(
            &stranger,
            &link::End {
                name: "x",
                ..pod_link(9).pod_end()
            },
            None,
        ))
        .unwrap();
    let elsewhere = link::End {
        name: "y",
        ..link.pod_end()
    };
    lab.host
        .apply(&link::add_veth(
            &link.host_end(&link.host_name),
            &elsewhere,
            None,
        ))
        .unwrap();
    let error = lab.add(&link).unwrap_err();
    assert!(matches!(error, AddError::InterfaceExists { .. }), "{error}");
    assert_eq!(lab.host.link_by_name(&link.host_name).unwrap(), None);
}

/// A link that is not a pod's.
fn occupy(lab: &mut Lab, name: &str, other_end: &str) {
    let stranger = link::End {
        group: 0,
        ..pod_link(9).host_end(name)
    };
    let other = link::End {
        name: other_end,
        ..stranger
    };
    lab.host
        .apply(&link::add_veth(&stranger, &other, None))
        .unwrap();
}

#[test]
fn a_pod_whose_both_names_are_taken_is_refused_and_the_takers_are_not_changed() {
    let mut lab = Lab::new();
    let link = pod_link(5);
    occupy(&mut lab, &link.host_name, "x");
    occupy(&mut lab, &link.own_name(), "y");
    let error = lab.refuses(&link);
    assert!(matches!(error, AddError::HostNameTaken { .. }), "{error}");
}

#[test]
fn a_refused_pair_leaves_nothing() {
    let mut lab = Lab::new();
    let error = lab.refuses(&PodLink {
        mtu: 70_000,
        ..pod_link(5)
    });
    let AddError::Refused {
        step: Step::Pair,
        source,
        left_behind: None,
    } = error
    else {
        panic!("{error}")
    };
    assert!(source.is(Errno::EINVAL), "{source}");
}

#[test]
fn a_refused_pod_side_leaves_nothing() {
    let mut lab = Lab::new();
    // The kernel allows no IPv6 address here, and refuses it.
    let error = lab.refuses(&PodLink {
        mtu: 1000,
        address: "fd00::5".parse().unwrap(),
        ..pod_link(5)
    });
    let AddError::Refused {
        step: Step::PodSide,
        left_behind: None,
        ..
    } = error
    else {
        panic!("{error}")
    };
}

#[test]
fn an_address_that_is_routed_already_is_refused_and_stays_with_its_owner() {
    let mut lab = Lab::new();
    let owner = pod_link(5);
    let wired = lab.add(&owner).unwrap();
    let mut second = Lab {
        host_ns: lab.host_ns,
        host: lab.host,
        pod_ns: netns(),
        pod: lab.pod,
    };
    let mut owner_pod = std::mem::replace(&mut second.pod, socket_in(&second.pod_ns));

    let error = second.refuses(&PodLink {
        host_name: "enisecond".to_owned(),
        owner: "hawser lab/second/eth0".to_owned(),
        ..owner.clone()
    });
    assert!(
        matches!(error, AddError::AddressInUse { address } if address == owner.address),
        "{error}"
    );
    let found = check(&mut second.host, &mut owner_pod, &owner, wired.host_index);
    assert_eq!(found.unwrap(), []);
}

#[test]
fn an_invalid_pod_is_refused_before_any_change() {
    let mut lab = Lab::new();
    let base = pod_link(5);
    let invalid = [
        (
            "host interface name",
            PodLink {
                host_name: "sixteen-bytes-xx".to_owned(),
                ..base.clone()
            },
        ),
        (
            "owner",
            PodLink {
                owner: "o".repeat(256),
                ..base.clone()
            },
        ),
        (
            "pod interface name",
            PodLink {
                pod_name: "a/b".to_owned(),
                ..base.clone()
            },
        ),
        (
            "pod interface name",
            PodLink {
                pod_name: String::new(),
                ..base.clone()
            },
        ),
        (
            "pod address",
            PodLink {
                address: [224, 0, 0, 1].into(),
                ..base.clone()
            },
        ),
        (
            "pod address",
            PodLink {
                address: [0, 0, 0, 0].into(),
                ..base
            },
        ),
    ];
    for (what, link) in invalid {
        let error = lab.refuses(&link);
        assert!(
            matches!(error, AddError::Invalid { field, .. } if field == what),
            "{error}"
        );
    }
}

#[test]
fn a_descriptor_that_is_not_a_namespace_is_refused() {
    let mut lab = Lab::new();
    let file = std::fs::File::open("/dev/null").unwrap();
    let error = add(
        &mut lab.host,
        &mut lab.pod,
        file.as_fd(),
        &pod_link(5),
        None,
    )
    .unwrap_err();
    assert!(matches!(error, AddError::NamespaceGone), "{error}");
}

#[test]
fn a_socket_of_another_pod_is_refused() {
    let mut lab = Lab::new();
    lab.pod = socket_in(&netns());
    let error = lab.refuses(&pod_link(5));
    assert!(
        matches!(error, AddError::NamespaceMismatch { .. }),
        "{error}"
    );
}
