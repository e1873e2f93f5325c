//! Reading, tags, quotas and throttling.

use super::*;

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
    // Filtered reads and other APIs have their own buckets.
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
