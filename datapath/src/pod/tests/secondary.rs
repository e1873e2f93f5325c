//! A further attachment of a pod: its own address works, and nothing else of the pod changes.

use super::*;

/// The second attachment of a pod that has `pod_link(5)` or another plugin's interface.
fn net1() -> PodLink {
    PodLink {
        pod_name: "net1".to_owned(),
        secondary: true,
        ..pod_link(6)
    }
}

fn routes(lab: &Lab) -> Vec<String> {
    lines(&run_in(&lab.pod_ns, &["ip", "route"]))
}

/// What another plugin made before.
fn other_plugin(lab: &Lab, default: &str) {
    let make = format!(
        "ip link add eth0 type veth peer name other; ip link set eth0 up; ip link set other up; \
         ip addr add 192.0.2.2/24 dev eth0; ip route add default via 192.0.2.1 {default}"
    );
    run_in(&lab.pod_ns, &["sh", "-ec", &make]);
}

#[test]
fn a_second_attachment_beside_our_own_leaves_the_default_route_alone() {
    let mut lab = Lab::new();
    let first = lab.add(&pod_link(5)).unwrap();
    let before = routes(&lab);
    let second = lab.add(&net1()).unwrap();
    assert!(second.secondary && !first.secondary);
    let mut after = routes(&lab);
    let more = format!(
        "169.254.1.1 dev net1 proto 107 scope link metric {}",
        second.pod_index
    );
    assert!(after.contains(&more), "{after:?}");
    after.retain(|line| *line != more);
    assert_eq!(after, before);
    assert_eq!(lab.check_at(&pod_link(5), first.host_index), []);
    assert_eq!(lab.check_at(&net1(), second.host_index), []);
    let way = |from: &str| {
        run_in(
            &lab.pod_ns,
            &["ip", "route", "get", "10.9.9.9", "from", from],
        )
    };
    assert!(way("10.0.0.5").contains("dev eth0"));
    assert!(way("10.0.0.6").contains("dev net1"));

    // DEL removes net1 alone.
    unroute(&mut lab.host, &reference(&net1(), &second)).unwrap();
    unlink(&mut lab.host, second.host_index).unwrap();
    assert_eq!(routes(&lab), before);
    assert_eq!(lab.check_at(&pod_link(5), first.host_index), []);
}

#[test]
fn a_default_route_of_another_plugin_stays_the_only_one() {
    for default in ["", "metric 100"] {
        let mut lab = Lab::new();
        other_plugin(&lab, default);
        let before = routes(&lab);
        let wired = lab.add(&net1()).unwrap();
        assert!(wired.secondary, "{default}");
        let defaults = |lines: &[String]| lines.iter().filter(|l| l.starts_with("default")).count();
        assert_eq!(defaults(&routes(&lab)), 1, "{default}");
        assert_eq!(lab.check_at(&net1(), wired.host_index), []);
        unlink(&mut lab.host, wired.host_index).unwrap();
        assert_eq!(routes(&lab), before, "{default}");
    }
}

/// Not every plugin creates its interface in the pod: one that was moved there leaves low indices free.
#[test]
fn a_default_route_is_noticed_without_being_looked_for() {
    let mut lab = Lab::new();
    let make = "ip route add unreachable default";
    run_in(&lab.pod_ns, &["sh", "-ec", make]);
    let before = routes(&lab);
    let wired = lab.add(&net1()).unwrap();
    assert!(wired.secondary);
    assert_eq!(lab.check_at(&net1(), wired.host_index), []);
    unlink(&mut lab.host, wired.host_index).unwrap();
    assert_eq!(routes(&lab), before);
}

#[test]
fn rules_of_attachments_that_ended_do_not_pile_up() {
    let mut lab = Lab::new();
    lab.add(&pod_link(5)).unwrap();
    for i in 6..12 {
        let link = PodLink {
            pod_name: "net1".to_owned(),
            secondary: true,
            ..pod_link(i)
        };
        let wired = lab.add(&link).unwrap();
        let rules = run_in(&lab.pod_ns, &["ip", "rule"]);
        assert_eq!(rules.matches("32765:").count(), 1, "{rules}");
        unlink(&mut lab.host, wired.host_index).unwrap();
    }
}

#[test]
fn a_second_attachment_that_fails_leaves_nothing() {
    let mut lab = Lab::new();
    let first = lab.add(&pod_link(5)).unwrap();
    let taken = PodLink {
        address: pod_link(5).address,
        ..net1()
    };
    let error = lab.refuses(&taken);
    assert!(matches!(error, AddError::AddressInUse { .. }), "{error}");
    assert_eq!(lab.check_at(&pod_link(5), first.host_index), []);
}

#[test]
fn what_is_missing_of_a_second_attachment_is_named() {
    let mut lab = Lab::new();
    lab.add(&pod_link(5)).unwrap();
    let wired = lab.add(&net1()).unwrap();
    let address = net1().address;
    let missing = [Drift::SourceRoutingMissing { address }];
    run_in(&lab.pod_ns, &["ip", "rule", "del", "pref", "32765"]);
    assert_eq!(lab.check_at(&net1(), wired.host_index), missing);
}

#[test]
fn a_second_attachment_works_with_ipv6_too() {
    let six = |link: PodLink, last: u8| PodLink {
        address: format!("fd00::{last}").parse().unwrap(),
        ..link
    };
    let (first, second) = (six(pod_link(5), 5), six(net1(), 6));
    let mut lab = Lab::new();
    let forward = ["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"];
    run_in(&lab.host_ns, &forward);
    let one = lab.add(&first).unwrap();
    let two = lab.add(&second).unwrap();
    assert!(two.secondary && !one.secondary);
    assert_eq!(lab.check_at(&first, one.host_index), []);
    assert_eq!(lab.check_at(&second, two.host_index), []);
    let way = |from: &str| {
        run_in(
            &lab.pod_ns,
            &["ip", "-6", "route", "get", "2001:db8::1", "from", from],
        )
    };
    assert!(way("fd00::5").contains("dev eth0"));
    assert!(way("fd00::6").contains("dev net1"));
}

#[test]
fn an_attachment_that_ends_takes_its_rule_along() {
    for six in [false, true] {
        let at = |link: PodLink, last: u8| PodLink {
            address: match six {
                false => link.address,
                true => format!("fd00::{last}").parse().unwrap(),
            },
            ..link
        };
        let mut lab = Lab::new();
        lab.add(&at(pod_link(5), 5)).unwrap();
        let rules = |lab: &Lab| run_in(&lab.pod_ns, &["sh", "-ec", "ip rule; ip -6 rule"]);
        let before = rules(&lab);
        let link = at(net1(), 6);
        lab.add(&link).unwrap();
        // Another program's rule for the same address.
        let family = if six { "-6" } else { "-4" };
        let from = link.address.to_string();
        let theirs = [
            "ip", family, "rule", "add", "from", &from, "pref", "100", "lookup", "100",
        ];
        run_in(&lab.pod_ns, &theirs);
        for _ in 0..2 {
            forget_attachment(&mut lab.pod, &link).unwrap();
            let left = rules(&lab);
            assert!(
                !left.contains("32765:") && left.contains("lookup 100"),
                "{left}"
            );
        }
        run_in(&lab.pod_ns, &["ip", family, "rule", "del", "pref", "100"]);
        assert_eq!(rules(&lab), before);
    }
}
