//! The rates of pods: what the kernel has for them. What passes is measured with whole nodes.

use nettypes::{Bandwidth, RateLimit};

use super::*;

const MEGA: u64 = 1_000_000;

fn shaped(ingress: u64, egress: u64) -> PodLink {
    let shape = |rate| {
        (rate > 0).then_some(RateLimit {
            rate,
            burst: u32::MAX.into(),
        })
    };
    let bandwidth = Bandwidth {
        ingress: shape(ingress),
        egress: shape(egress),
    };
    PodLink {
        asked: Asked {
            bandwidth,
            ..Asked::default()
        },
        ..pod_link(5)
    }
}

fn discipline(netns: &Netns, link: &str) -> String {
    run_in(netns, &["tc", "qdisc", "show", "dev", link])
}

#[test]
fn each_direction_has_its_bucket_and_a_pod_without_rates_has_none() {
    let mut lab = Lab::new();
    let link = shaped(100 * MEGA, 40 * 1000 * MEGA);
    let wired = lab.add(&link).unwrap();
    assert_eq!(lab.check(&link), []);
    let host = discipline(&lab.host_ns, &link.host_name);
    assert!(
        host.contains("tbf 6b00: root") && host.contains("rate 100Mbit"),
        "{host}"
    );
    let pod = discipline(&lab.pod_ns, "eth0");
    assert!(
        pod.contains("tbf 6b00: root") && pod.contains("rate 40Gbit"),
        "{pod}"
    );
    unlink(&mut lab.host, wired.host_index).unwrap();

    let mut lab = Lab::new();
    lab.add(&pod_link(5)).unwrap();
    for found in [
        discipline(&lab.host_ns, &pod_link(5).host_name),
        discipline(&lab.pod_ns, "eth0"),
    ] {
        assert!(found.contains("noqueue"), "{found}");
    }
}

#[test]
fn a_missing_and_a_wrong_bucket_are_named() {
    for meddle in [
        "tc qdisc del dev LINK root",
        "tc qdisc replace dev LINK root handle 6b00: tbf rate 1gbit burst 1m limit 1m",
        "tc qdisc replace dev LINK root pfifo limit 10",
    ] {
        let mut lab = Lab::new();
        let link = shaped(50 * MEGA, 8 * MEGA);
        lab.add(&link).unwrap();
        let on = |name: &str| meddle.replace("LINK", name);
        run_in(&lab.host_ns, &["sh", "-ec", &on(&link.host_name)]);
        let host = Drift::Shaping {
            side: Side::Host,
            rate: 50 * MEGA / 8,
        };
        assert_eq!(lab.check(&link), std::slice::from_ref(&host), "{meddle}");
        run_in(&lab.pod_ns, &["sh", "-ec", &on("eth0")]);
        let pod = Drift::Shaping {
            side: Side::Pod,
            rate: MEGA,
        };
        assert_eq!(lab.check(&link), [host, pod], "{meddle}");
    }
}

/// A policy engine's programs are at another hook of the same link.
#[test]
fn a_bucket_leaves_room_for_programs_of_policy_engines() {
    let mut lab = Lab::new();
    let link = shaped(50 * MEGA, 50 * MEGA);
    lab.add(&link).unwrap();
    let attach = format!("tc qdisc add dev {} clsact", link.host_name);
    run_in(&lab.host_ns, &["sh", "-ec", &attach]);
    assert_eq!(lab.check(&link), []);
    assert!(discipline(&lab.host_ns, &link.host_name).contains("clsact"));
}
