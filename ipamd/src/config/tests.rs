//! What settings are read as, and which mistakes are named.

use super::*;

fn read(pairs: &[(&'static str, &'static str)]) -> Result<Config, Mistakes> {
    Config::read(&pairs.iter().copied().collect::<BTreeMap<_, _>>())
}

#[test]
fn an_empty_environment_gives_upstreams_defaults() {
    let config = read(&[]).unwrap();
    assert_eq!(config.pool, planner::Config::default());
    assert_eq!(
        config.network,
        Network {
            eni_mtu: 9001,
            pod_mtu: 9001,
            veth_prefix: "eni".into(),
            block_pod_imds: false,
        }
    );
    assert_eq!(
        config.paths.socket(),
        PathBuf::from("/run/hawser/ipamd.sock")
    );
    assert_eq!(config.metrics, Some("0.0.0.0:61678".parse().unwrap()));
}

#[test]
fn every_mistake_is_named_at_once() {
    let Mistakes(lines) = read(&[
        ("WARM_ENI_TARGET", "one"),
        ("AWS_VPC_ENI_MTU", "100"),
        ("AWS_VPC_K8S_CNI_VETHPREFIX", "vlan"),
        ("DISABLE_METRICS", "yes"),
        ("ENABLE_IPv6", "true"),
        ("ENABLE_IPv4", "true"),
    ])
    .unwrap_err();
    let all = lines.join("\n");
    for name in [
        "WARM_ENI_TARGET",
        "AWS_VPC_ENI_MTU",
        "VETHPREFIX",
        "DISABLE_METRICS",
        "ENABLE_IPv6",
    ] {
        assert!(all.contains(name), "{name} is missing from:\n{all}");
    }
}

#[test]
fn pods_have_addresses_of_one_family() {
    let six = [
        ("ENABLE_IPv6", "true"),
        ("ENABLE_IPv4", "false"),
        ("ENABLE_PREFIX_DELEGATION", "true"),
    ];
    assert_eq!(read(&six).unwrap().pool.family, Family::V6);
    assert_eq!(read(&[six[0], six[2]]).unwrap().pool.family, Family::V6);
    assert_eq!(read(&[]).unwrap().pool.family, Family::V4);
    for (wrong, named) in [
        (&[six[1]][..], "ENABLE_IPv4=false"),
        (&[six[0], six[1]], "ENABLE_PREFIX_DELEGATION=false"),
        (
            &[six[0], six[2], ("ENABLE_IPv4", "true")],
            "ENABLE_IPv6=true",
        ),
        (
            &[six[0], six[2], ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "1")],
            "CUSTOM_NETWORK_CFG",
        ),
    ] {
        let Mistakes(lines) = read(wrong).unwrap_err();
        assert!(lines.len() == 1 && lines[0].contains(named), "{lines:?}");
    }
}

#[test]
fn a_link_of_ipv6_carries_1280_bytes() {
    let six = [
        ("ENABLE_IPv6", "true"),
        ("ENABLE_PREFIX_DELEGATION", "true"),
    ];
    let mtu = |bytes: &'static str, more: &[(&'static str, &'static str)]| {
        let all: Vec<_> = more.iter().copied().chain([("POD_MTU", bytes)]).collect();
        read(&all)
    };
    assert_eq!(mtu("576", &[]).unwrap().network.pod_mtu, 576);
    assert_eq!(mtu("1280", &six).unwrap().network.pod_mtu, 1280);
    let Mistakes(lines) = mtu("1279", &six).unwrap_err();
    assert_eq!(
        lines,
        ["POD_MTU=1279: expected bytes from 1280 to 9001 with IPv6"]
    );
}

#[test]
fn zero_means_unset_for_the_ip_targets_and_max_eni() {
    let pool = read(&[
        ("WARM_IP_TARGET", "0"),
        ("MINIMUM_IP_TARGET", "0"),
        ("MAX_ENI", "0"),
    ])
    .unwrap()
    .pool;
    assert_eq!(
        (pool.warm_ip_target, pool.minimum_ip_target, pool.max_eni),
        (None, None, None)
    );
}

/// If unset, the pool sizes itself; zero is an ordinary target.
#[test]
fn warm_eni_and_prefix_targets_tell_unset_from_zero() {
    let set = read(&[("WARM_ENI_TARGET", "1"), ("WARM_PREFIX_TARGET", "0")])
        .unwrap()
        .pool;
    assert_eq!(
        (set.warm_eni_target, set.warm_prefix_target),
        (Some(1), Some(0))
    );
    let unset = read(&[]).unwrap().pool;
    assert_eq!(
        (unset.warm_eni_target, unset.warm_prefix_target),
        (None, None)
    );
}

#[test]
fn pod_mtu_follows_the_enis_unless_set() {
    assert_eq!(
        read(&[("AWS_VPC_ENI_MTU", "1500")])
            .unwrap()
            .network
            .pod_mtu,
        1500
    );
    assert_eq!(
        read(&[("AWS_VPC_ENI_MTU", "1500"), ("POD_MTU", "1400")])
            .unwrap()
            .network
            .pod_mtu,
        1400
    );
}

#[test]
fn extra_tags_cannot_forge_ownership() {
    let tags = read(&[(
        "ADDITIONAL_ENI_TAGS",
        r#"{"team":"net","node.k8s.amazonaws.com/instance_id":"i-0"}"#,
    )])
    .unwrap()
    .cloud
    .extra_tags;
    assert_eq!(
        tags,
        BTreeMap::from([("team".to_owned(), "net".to_owned())])
    );
}
