//! Which rules of others decide, by their place and their table, and which are leftovers, by their form.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::*;
use crate::constants::{GROUP_BASE, PODS_TABLE, RULE_ENI, RULE_HOST_RESUME, RULE_PODS, eni_table};
use crate::marks::Marks;
use crate::netlink::Family;
use crate::netlink::link::Link;
use crate::netlink::route::{Kind, MAIN, Route};
use crate::netlink::rule::{Action, Rule};

const POD: &str = "10.0.3.7";
const V4: Family = Family::V4;

fn net(text: &str) -> IpNet {
    text.parse()
        .unwrap_or_else(|_| text.parse::<IpAddr>().unwrap().into())
}

fn theirs(priority: u32, table: u32) -> Rule {
    Rule {
        protocol: 0,
        ..Rule::all(V4, priority, table)
    }
}

fn to(priority: u32, dst: &str, table: u32) -> Rule {
    Rule {
        to: Some(net(dst)),
        ..theirs(priority, table)
    }
}

fn from(priority: u32, src: &str, table: u32) -> Rule {
    Rule {
        from: Some(net(src)),
        ..theirs(priority, table)
    }
}

fn route(dst: &str, table: u32) -> Route {
    Route {
        protocol: 3,
        ..Route::link(net(dst), 2, table)
    }
}

/// Ours with `more` put in where the kernel puts them: after those with the same priority.
fn rules(more: &[Rule]) -> Vec<Rule> {
    let mut all = vec![
        theirs(0, 255),
        Rule::all(V4, RULE_PODS, PODS_TABLE),
        Rule::mark(V4, RULE_ENI, 1, 0x7f, eni_table(0, 0)),
        Rule::without_table(V4, RULE_HOST_RESUME, Action::Nop),
        theirs(32_766, MAIN),
    ];
    all.extend(more.iter().cloned());
    all.sort_by_key(|rule| rule.priority);
    all
}

/// The same, with `more` added before ours.
fn rules_after(more: &[Rule]) -> Vec<Rule> {
    let mut all = more.to_vec();
    all.extend(rules(&[]));
    all.sort_by_key(|rule| rule.priority);
    all
}

/// Main with the subnet and a default route, and a table with a default route.
fn routes() -> Vec<Route> {
    ["0.0.0.0/0", "10.0.0.0/20"]
        .map(|dst| route(dst, MAIN))
        .into_iter()
        .chain([route("0.0.0.0/0", 3)])
        .collect()
}

fn decided(rules: &[Rule]) -> Vec<(IpNet, u32)> {
    steered(rules, &routes()).into_iter().collect()
}

#[test]
fn rules_that_come_before_ours_decide_for_their_addresses() {
    let pod = vec![(net(POD), 512)];
    assert_eq!(decided(&rules_after(&[to(512, POD, MAIN)])), pod);
    let source = vec![(net(POD), 1536)];
    assert_eq!(decided(&rules_after(&[from(1536, POD, 3)])), source);
    let block = decided(&rules(&[to(100, "10.0.3.0/24", MAIN)]));
    assert_eq!(block, [(net("10.0.3.0/24"), 100)]);
    // Cilium's, for packets to the VPC only.
    let both = Rule {
        to: Some(net("10.0.0.0/16")),
        ..from(111, POD, 3)
    };
    assert!(decided(&rules(&[both])).contains(&(net(POD), 111)));
}

#[test]
fn rules_that_come_after_ours_decide_nothing() {
    let late = [
        to(512, POD, MAIN),
        from(1536, POD, 3),
        to(600, POD, MAIN),
        from(5210, POD, 3),
        from(32_765, POD, 3),
    ];
    assert_eq!(decided(&rules(&late)), []);
}

#[test]
fn a_rule_decides_only_if_its_table_has_a_route() {
    let nowhere = [from(100, POD, 4), to(101, POD, 4), to(102, POD, PODS_TABLE)];
    let rules = rules(&nowhere);
    assert_eq!(decided(&rules), []);
    assert_eq!(tables(&rules), [4].into());
    let thrown = Route {
        kind: Kind::Throw,
        ..route("0.0.0.0/0", 4)
    };
    assert!(steered(&rules, &[thrown]).is_empty());
    let elsewhere = route("192.168.0.0/16", 4);
    assert!(steered(&rules, &[elsewhere]).is_empty());
    let rules = self::rules(&[to(100, "10.0.0.0/16", 4)]);
    let part: Vec<_> = steered(&rules, &[route("10.0.9.0/24", 4)])
        .into_iter()
        .collect();
    assert_eq!(part, [(net("10.0.9.0/24"), 100)]);
    let no_default = Rule {
        suppress_prefix: Some(0),
        ..from(100, POD, MAIN)
    };
    assert_eq!(decided(&self::rules(&[no_default])), []);
}

#[test]
fn rejecting_and_skipping_decide_too() {
    let reject = Rule {
        action: Action::Reject(7),
        ..to(100, POD, 0)
    };
    assert_eq!(decided(&rules(&[reject])), [(net(POD), 100)]);
    let skip = |target| Rule {
        action: Action::Goto(target),
        ..to(100, POD, 0)
    };
    assert_eq!(decided(&rules(&[skip(32_766)])), [(net(POD), 100)]);
    assert_eq!(decided(&rules(&[skip(300)])), []);
}

#[test]
fn rules_without_addresses_decide_for_all_that_their_table_routes() {
    let quick = [
        Rule {
            suppress_prefix: Some(0),
            ..theirs(510, MAIN)
        },
        Rule {
            mark: Some((0xca6c, u32::MAX)),
            inverted: true,
            ..theirs(511, 51_820)
        },
    ];
    let mut routes = routes();
    assert_eq!(
        steered(&rules(&quick), &routes)
            .into_iter()
            .collect::<Vec<_>>(),
        [(net("10.0.0.0/20"), 510)]
    );
    routes.push(route("0.0.0.0/0", 51_820));
    let all = steered(&rules(&quick), &routes);
    assert_eq!(all.get(&net("0.0.0.0/0")), Some(&511));
    // As Cilium moves it, and as wg-quick adds them where they come first.
    let late = [theirs(100, 255), theirs(32_764, 3)];
    assert_eq!(decided(&rules(&late)), []);
}

#[test]
fn rules_for_marked_packets_and_single_links_are_left_to_doctor() {
    let marked = Rule {
        mark: Some((0x200, 0xf00)),
        ..to(9, POD, MAIN)
    };
    let others = Rule {
        inverted: true,
        ..from(50, "192.168.0.0/16", 3)
    };
    let of_node = Rule {
        iif: Some("lo".to_owned()),
        ..from(60, POD, 3)
    };
    let of_link = Rule {
        iif: Some("eth5".to_owned()),
        ..theirs(70, 3)
    };
    assert_eq!(decided(&rules(&[marked, others, of_node, of_link])), []);
}

#[test]
fn on_an_ipv6_node_sources_are_routed_by_main() {
    let six = |rule: Rule| Rule {
        family: Family::V6,
        ..rule
    };
    let pod = "2600:1f14::7";
    let rules = [
        six(Rule::all(Family::V6, RULE_PODS, PODS_TABLE)),
        six(to(600, pod, 3)),
        six(from(5210, pod, 3)),
        six(theirs(32_766, MAIN)),
    ];
    let found = steered(&rules, &[route("::/0", 3)]);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [(net(pod), 5210)]);
}

fn vpc() -> Vec<Ipv4Net> {
    vec!["10.0.0.0/16".parse().unwrap()]
}

fn veth(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind: Some("veth".to_owned()),
        ..Link::default()
    }
}

/// As aws-node 1.23 leaves a node: a rule to each pod, one from each on a secondary ENI, and one for marked packets.
fn aws_node() -> Vec<Rule> {
    vec![
        to(512, "10.0.3.7", MAIN),
        to(512, "10.0.3.8", MAIN),
        Rule {
            mark: Some((0x80, 0x80)),
            ..theirs(1024, MAIN)
        },
        from(1536, "10.0.3.8", 2),
    ]
}

fn cilium() -> Vec<Rule> {
    vec![
        to(20, POD, MAIN),
        from(110, POD, 11),
        Rule {
            to: Some(net("10.0.0.0/16")),
            ..from(111, POD, 11)
        },
        Rule {
            mark: Some((0x80, 0x80)),
            ..theirs(109, MAIN)
        },
    ]
}

fn left(scene: &Scene) -> [Vec<Rule>; 2] {
    [Predecessor::AwsNode, Predecessor::CiliumEni].map(|of| scene.leftovers(of, &vpc()))
}

#[test]
fn what_a_predecessor_left_is_recognised() {
    let scene = Scene {
        rules: rules_after(&[aws_node(), cilium()].concat()),
        routes: routes(),
        // Docker's and our own.
        links: vec![
            veth(5, "veth1a2b3c4"),
            Link {
                group: GROUP_BASE,
                ..veth(6, "eni0123456789a")
            },
        ],
        ..Scene::default()
    };
    let [aws, cilium_eni] = left(&scene);
    assert_eq!(aws, aws_node());
    let by_priority = |mut rules: Vec<Rule>| {
        rules.sort_by_key(|rule| rule.priority);
        rules
    };
    assert_eq!(cilium_eni, by_priority(cilium()));
    assert!(!scene.routes_pods(Predecessor::AwsNode));
}

#[test]
fn the_rules_of_pods_that_live_stay() {
    let scene = Scene {
        rules: rules(&aws_node()),
        routes: [routes(), vec![route("10.0.3.8/32", MAIN)]].concat(),
        links: vec![veth(2, "eni0123456789a")],
        ..Scene::default()
    };
    // Only what is for the pod that is gone; the rule for marks serves the other one.
    assert_eq!(left(&scene)[0], [to(512, "10.0.3.7", MAIN)]);
    assert!(scene.has_pods(Predecessor::AwsNode) && scene.routes_pods(Predecessor::AwsNode));
}

#[test]
fn where_a_link_is_of_an_unknown_address_everything_stays() {
    let scene = Scene {
        rules: rules(&aws_node()),
        routes: routes(),
        links: vec![veth(9, "eni0123456789a")],
        ..Scene::default()
    };
    assert_eq!(left(&scene)[0], []);
}

/// As with `AWS_VPC_K8S_CNI_CONNMARK` and `AWS_EXTERNAL_SERVICE_CIDRS`.
#[test]
fn rules_for_another_mark_and_for_external_services_are_recognised() {
    let marked = |bit| Rule {
        mark: Some((bit, bit)),
        ..theirs(1024, MAIN)
    };
    let all = [
        marked(0x80),
        marked(0x1000),
        to(1535, "192.0.2.0/24", MAIN),
        to(1535, "192.0.2.0/24", 77),
    ];
    let scene = |marks| Scene {
        rules: rules(&all),
        marks,
        ..Scene::default()
    };
    let own = scene(Marks::new(0x1000, 0x7f).unwrap());
    assert_eq!(left(&own)[0], all[..3]);
    assert_eq!(own.traces(Predecessor::AwsNode, &[]).node, all[..3]);
    let default = scene(Marks::DEFAULT);
    let only_theirs = [all[0].clone(), all[2].clone()];
    assert_eq!(left(&default)[0], only_theirs);
    // A pod of the AWS VPC CNI still needs them.
    let needed = Scene {
        links: vec![veth(9, "eni0123456789a")],
        ..own
    };
    assert_eq!(left(&needed)[0], []);
    assert_eq!(needed.traces(Predecessor::AwsNode, &[]).node, []);
}

#[test]
fn rules_of_another_form_stay() {
    let others = [
        to(512, "192.168.1.1", MAIN),
        to(512, "10.0.3.0/24", MAIN),
        to(512, POD, 77),
        to(511, POD, MAIN),
        from(1536, "10.0.3.0/24", 2),
        from(1536, POD, MAIN),
        Rule {
            narrowed: true,
            ..to(512, POD, MAIN)
        },
        Rule {
            iif: Some("eth1".to_owned()),
            ..from(1536, POD, 2)
        },
        Rule {
            mark: Some((0x40, 0x40)),
            ..theirs(1024, MAIN)
        },
    ];
    let scene = Scene {
        rules: rules(&others),
        routes: routes(),
        links: Vec::new(),
        ..Scene::default()
    };
    assert_eq!(left(&scene), [Vec::new(), Vec::new()]);
}

#[test]
fn living_pods_are_listed_with_their_addresses() {
    let strict = Scene {
        rules: rules(&aws_node()),
        routes: [
            routes(),
            vec![route("10.0.3.7/32", MAIN), route("10.0.3.9/32", 105)],
        ]
        .concat(),
        links: vec![
            veth(2, "eni0123456789a"),
            veth(3, "eni0123456789b"),
            veth(4, "vlan0123456789c"),
            veth(5, "docker0"),
        ],
        ..Scene::default()
    };
    let pods = strict.pods(Predecessor::AwsNode);
    let seen: Vec<_> = pods
        .iter()
        .map(|pod| (pod.link.index, pod.addresses.len(), pod.branch))
        .collect();
    // The routes of these tests are over link 2.
    assert_eq!(seen, [(2, 1, true), (3, 0, false), (4, 0, true)]);
    let standard = Scene {
        rules: rules(&[to(512, POD, MAIN), from(1536, POD, 105)]),
        routes: vec![route("10.0.3.7/32", MAIN)],
        links: vec![veth(2, "eni0123456789a")],
        ..Scene::default()
    };
    let pods = standard.pods(Predecessor::AwsNode);
    assert!(pods[0].branch, "its source is routed by a VLAN's table");
}

#[test]
fn the_traces_of_a_pod_are_its_own_and_end_with_its_route() {
    let scene = Scene {
        rules: rules(&aws_node()),
        routes: [
            routes(),
            vec![route("10.0.3.7/32", MAIN), route("10.0.3.8/32", MAIN)],
        ]
        .concat(),
        links: vec![Link {
            group: GROUP_BASE,
            ..veth(2, "eni0123456789a")
        }],
        ..Scene::default()
    };
    let traces = scene.traces(Predecessor::AwsNode, &[("10.0.3.8".parse().unwrap(), 2)]);
    let [(of_pod, to_pod)] = &traces.pods[..] else {
        panic!("{traces:?}")
    };
    assert_eq!(
        *of_pod,
        [to(512, "10.0.3.8", MAIN), from(1536, "10.0.3.8", 2)]
    );
    assert_eq!(*to_pod, [route("10.0.3.8/32", MAIN)]);
    assert_eq!(traces.node.len(), 1);
    // Another link has the address, or another pod still needs the rule for marks.
    let elsewhere = scene.traces(Predecessor::AwsNode, &[("10.0.3.8".parse().unwrap(), 9)]);
    assert_eq!(elsewhere.pods[0].1, []);
    let with_other = Scene {
        links: vec![veth(3, "eni0123456789b")],
        ..scene
    };
    assert_eq!(with_other.traces(Predecessor::AwsNode, &[]).node, []);
}
