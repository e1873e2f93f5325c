//! The numbers that AWS publishes, and edge cases.

use super::*;
use crate::limits::max_pods::{reserved_cpu, reserved_memory, subnet_addresses};

fn limit(name: &str, config: &Config) -> PodLimit {
    pod_limit(require(name).unwrap(), config, true)
}

/// An instance as used in the reference tests: a number of ENIs with a number of addresses each.
fn instance(enis: u16, addresses: u16) -> InstanceType {
    InstanceType {
        name: "test.large".into(),
        max_enis: enis,
        ipv4_per_eni: addresses,
        default_card: 0,
        cards: vec![enis],
        hypervisor: Hypervisor::Nitro,
        bare_metal: false,
        trunking: None,
        branch_enis: None,
        vcpus: Some(2),
    }
}

fn uncapped() -> Question {
    Question {
        capped: false,
        ..Question::default()
    }
}

fn figure(instance: &InstanceType, question: &Question) -> u32 {
    max_pods(instance, question).unwrap().max_pods
}

#[test]
fn derivation_of_single_addresses() {
    let limit = limit("m5.large", &Config::default());
    assert_eq!(limit.addresses, 27);
    assert_eq!(
        limit.derivation,
        "m5.large: 3 ENIs × (10 − 1) addresses = 27 pod addresses"
    );
}

#[test]
fn max_eni_caps_and_is_named() {
    let limit = limit(
        "m5.large",
        &Config {
            max_eni: Some(1),
            ..Config::default()
        },
    );
    assert_eq!(limit.addresses, 9);
    assert_eq!(
        limit.derivation,
        "m5.large: 1 ENI (MAX_ENI; the instance could hold 3) × (10 − 1) addresses = 9 pod addresses"
    );
}

#[test]
fn max_eni_beyond_the_hardware_or_zero_changes_nothing() {
    for max_eni in [Some(0), Some(99), None] {
        let config = Config {
            max_eni,
            ..Config::default()
        };
        assert_eq!(limit("m5.large", &config).addresses, 27);
    }
}

/// ec2-and-faults §3.3: c5.large supports nine prefixes per ENI, which are 144 pod addresses.
#[test]
fn prefixes_multiply_by_sixteen() {
    let config = Config {
        prefix_delegation: true,
        max_eni: Some(1),
        ..Config::default()
    };
    assert_eq!(limit("c5.large", &config).addresses, 144);
}

#[test]
fn prefix_mode_falls_back_where_the_hypervisor_cannot() {
    let config = Config {
        prefix_delegation: true,
        ..Config::default()
    };
    assert_eq!(limit("c4.large", &config).addresses, 27);
    assert!(
        require("m5.metal").unwrap().prefix_mode(&config),
        "bare metal publishes no hypervisor but can"
    );
}

#[test]
fn many_cards_count_the_default_one_only() {
    assert_eq!(limit("p5.48xlarge", &Config::default()).addresses, 2 * 49);
}

#[test]
fn every_type_follows_the_plain_formula() {
    for t in all() {
        let expect = u32::from(t.max_enis) * (u32::from(t.ipv4_per_eni) - 1) + 2;
        let answer = max_pods(t, &uncapped()).unwrap();
        assert_eq!(answer.max_pods, expect, "{}", t.name);
        assert_eq!(
            pod_limit(t, &Config::default(), true).addresses,
            expect - 2,
            "what is printed is what is enforced: {}",
            t.name
        );
    }
}

/// upstream-datapath §8.5, rows 1 and 2.
#[test]
fn the_standard_figure() {
    assert_eq!(figure(&instance(3, 6), &uncapped()), 17);
    assert_eq!(figure(&instance(6, 12), &uncapped()), 68);
}

/// Rows 10 and 11: m4.xlarge plain, and with one ENI reserved.
#[test]
fn m4_xlarge() {
    let m4 = require("m4.xlarge").unwrap();
    let plain = max_pods(m4, &Question::default()).unwrap();
    assert_eq!((plain.max_pods, plain.reserved_memory), (58, 893));
    let mut reserved = Question::default();
    reserved.usage.custom_networking = true;
    let reserved = max_pods(m4, &reserved).unwrap();
    assert_eq!((reserved.max_pods, reserved.reserved_memory), (44, 739));
}

/// Rows 12, 13 and 19, and the CPU figures of upstream-datapath §8.4.
#[test]
fn kube_reserved() {
    for (pods, mebibytes) in [(0, 255), (29, 574), (60, 915), (110, 1465)] {
        assert_eq!(reserved_memory(pods), mebibytes);
    }
    for (vcpus, millis) in [
        (0, 0),
        (1, 60),
        (2, 70),
        (4, 80),
        (8, 90),
        (32, 150),
        (64, 230),
        (96, 310),
    ] {
        assert_eq!(reserved_cpu(vcpus), millis, "{vcpus} vCPUs");
    }
}

/// Rows 15 to 17.
#[test]
fn caps_follow_the_vcpus() {
    let m5 = require("m5.8xlarge").unwrap();
    assert_eq!(figure(m5, &Question::default()), 234);
    let mut prefixes = Question::default();
    prefixes.usage.prefixes = true;
    let answer = max_pods(m5, &prefixes).unwrap();
    assert_eq!((answer.max_pods, answer.uncapped), (250, 3714));
    assert_eq!(figure(require("m5.large").unwrap(), &prefixes), 110);
    assert_eq!(figure(require("c6in.32xlarge").unwrap(), &uncapped()), 394);
    assert_eq!(
        figure(require("c7i.32xlarge").unwrap(), &prefixes),
        110,
        "no vCPUs published: the smaller cap"
    );
}

/// Row 18, from AWS's published list; p5 and trn1 have many cards.
#[test]
fn the_published_list() {
    for (name, expect) in [
        ("t3.nano", 4),
        ("t3.small", 11),
        ("t3.medium", 17),
        ("m5.large", 29),
        ("m5.xlarge", 58),
        ("c5.4xlarge", 234),
        ("m5.24xlarge", 737),
        ("p5.48xlarge", 100),
        ("trn1.32xlarge", 247),
        ("a1.medium", 8),
        ("u-12tb1.metal", 147),
    ] {
        assert_eq!(
            figure(require(name).unwrap(), &uncapped()),
            expect,
            "{name}"
        );
    }
}

/// Row 20: t3.small supports nine prefixes.
#[test]
fn prefixes_of_t3_small() {
    let usage = Usage {
        prefixes: true,
        ..Usage::default()
    };
    let limit = pod_addresses(require("t3.small").unwrap(), &usage);
    assert_eq!(limit.addresses, 9 * PREFIX_SIZE);
}

#[test]
fn custom_networking_and_max_eni_combine_with_either_unit() {
    let usage = Usage {
        max_eni: Some(3),
        custom_networking: true,
        prefixes: true,
        trunk: false,
    };
    let limit = pod_addresses(require("m5.xlarge").unwrap(), &usage);
    assert_eq!(
        limit.derivation,
        "m5.xlarge: 2 ENIs (MAX_ENI, the primary one serves no pods; the instance could hold 4) × (15 − 1) prefixes × \
         16 addresses = 448 pod addresses"
    );
    let nothing = Usage {
        max_eni: Some(1),
        custom_networking: true,
        ..Usage::default()
    };
    assert_eq!(
        pod_addresses(require("m5.xlarge").unwrap(), &nothing).addresses,
        0
    );
}

#[test]
fn security_groups_for_pods_cost_an_eni_and_bring_branches() {
    let mut question = uncapped();
    question.usage.trunk = true;
    let answer = max_pods(require("m5.large").unwrap(), &question).unwrap();
    assert_eq!(
        (answer.addresses, answer.branch_pods, answer.max_pods),
        (18, 9, 29)
    );
    let t3 = max_pods(require("t3.small").unwrap(), &question).unwrap();
    assert_eq!(
        (t3.addresses, t3.branch_pods),
        (9, 0),
        "no trunk, no ENI lost to it"
    );
}

#[test]
fn ipv6_is_bounded_by_the_cap_alone() {
    let question = Question {
        ipv6: true,
        ..Question::default()
    };
    assert_eq!(figure(require("m5.large").unwrap(), &question), 110);
    assert_eq!(figure(require("m5.24xlarge").unwrap(), &question), 250);
    assert_eq!(
        max_pods(require("c4.large").unwrap(), &question).unwrap_err(),
        Unanswerable::Ipv6NeedsPrefixes {
            name: "c4.large".into()
        }
    );
}

#[test]
fn a_full_node_takes_its_enis_addresses_too() {
    let takes = |name: &str, question: &Question| {
        let t = require(name).unwrap();
        subnet_addresses(t, question, &max_pods(t, question).unwrap())
    };
    assert_eq!(takes("m5.large", &Question::default()), 3 * 10);
    let mut prefixes = Question::default();
    prefixes.usage.prefixes = true;
    // 108 pods on seven prefixes, which fit on one ENI with nine slots.
    assert_eq!(takes("m5.large", &prefixes), 1 + 7 * 16);
    let mut custom = Question::default();
    custom.usage.custom_networking = true;
    assert_eq!(takes("m5.large", &custom), 2 * 10);
    let ipv6 = Question {
        ipv6: true,
        ..Question::default()
    };
    assert_eq!(takes("m5.large", &ipv6), 1);
}

/// The daemon's limit and the kubelet's number are one calculation, in every way of choosing subnets. The rows are those of
/// the modes that take ENIs from pods.
#[test]
fn every_mode_has_its_limit_and_max_pods_agrees_with_the_daemon() {
    let usage = |custom_networking, prefixes, max_eni| Usage {
        max_eni,
        prefixes,
        custom_networking,
        trunk: false,
    };
    #[rustfmt::skip]
    let rows = [
        // type, usage: pod addresses, max-pods without and with the recommended cap
        ("m5.large",   usage(false, false, None),    27,  29,  29),
        // Custom networking, or a primary subnet that a tag excludes.
        ("m5.large",   usage(true,  false, None),    18,  20,  20),
        ("m5.xlarge",  usage(true,  false, None),    42,  44,  44),
        ("t3.small",   usage(true,  false, None),     6,   8,   8),
        ("m5.large",   usage(false, true,  None),   432, 434, 110),
        ("m5.large",   usage(true,  true,  None),   288, 290, 110),
        ("t3.small",   usage(true,  true,  None),    96,  98,  98),
        // An ENI that the pool does not manage: the operator lowers MAX_ENI.
        ("m5.large",   usage(false, false, Some(2)), 18,  20,  20),
        ("m5.large",   usage(true,  false, Some(2)),  9,  11,  11),
        ("m5.large",   usage(true,  false, Some(1)),  0,   2,   2),
        // Only card 0 counts.
        ("p4d.24xlarge", usage(false, false, None), 735, 737, 250),
        ("p4d.24xlarge", usage(true,  false, None), 686, 688, 250),
    ];
    for (name, usage, addresses, uncapped, capped) in rows {
        let kind = require(name).unwrap();
        let question = Question {
            usage,
            ..Question::default()
        };
        let answer = max_pods(kind, &question).unwrap();
        let case = format!("{name} {usage:?}");
        assert_eq!(answer.uncapped, uncapped, "{case}");
        assert_eq!(answer.max_pods, capped, "{case}");
        let config = Config {
            max_eni: usage.max_eni,
            prefix_delegation: usage.prefixes,
            ..Config::default()
        };
        let limit = pod_limit(kind, &config, !usage.custom_networking);
        assert_eq!(limit.addresses, addresses, "{case}");
    }
}

/// Both take one ENI, and a type with two ENIs has none left.
#[test]
fn a_trunk_and_custom_networking_together_cost_two_enis() {
    let usage = Usage {
        custom_networking: true,
        trunk: true,
        ..Usage::default()
    };
    let two = InstanceType {
        trunking: Some(true),
        ..instance(2, 10)
    };
    assert_eq!(pod_addresses(&two, &usage).addresses, 0);
    assert_eq!(
        pod_addresses(require("m5.large").unwrap(), &usage).addresses,
        9
    );
}
