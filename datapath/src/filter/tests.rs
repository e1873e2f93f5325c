//! Rulesets as iptables (both back ends), nft, docker, ufw and firewalld write them, in a namespace of their own.

use std::process::Command;

use super::*;
use crate::netns::Netns;

const POD: &str = "eni0123456789a";

fn run(netns: &Netns, commands: &[&str]) {
    for line in commands {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        let output = netns.run(|| command.output()).unwrap().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }
}

fn found(netns: &Netns, family: Family) -> Vec<String> {
    found_with(netns, family, Marks::DEFAULT)
}

fn found_with(netns: &Netns, family: Family, marks: Marks) -> Vec<String> {
    let packet = Packet {
        family,
        iif: POD,
        oif: "eth0",
        marks,
    };
    let found = netns.run(|| blocked(&packet)).unwrap().unwrap();
    found.iter().map(ToString::to_string).collect()
}

/// What each program is called for a back end.
const BACKENDS: [&str; 2] = ["nft", "legacy"];

#[test]
fn a_new_namespace_drops_nothing_and_stays_without_tables() {
    let netns = Netns::create().unwrap();
    assert_eq!(found(&netns, Family::V4), Vec::<String>::new());
    assert_eq!(found(&netns, Family::V6), Vec::<String>::new());
    let names =
        || std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    assert_eq!(netns.run(names).unwrap(), "", "looking loads no table");
}

#[test]
fn case_20_a_forward_policy_that_drops_is_found() {
    for backend in BACKENDS {
        let netns = Netns::create().unwrap();
        let drop = format!("iptables-{backend} -P FORWARD DROP");
        run(&netns, &[&drop]);
        let told = found(&netns, Family::V4);
        assert_eq!(told.len(), 1, "{backend}: {told:?}");
        assert!(
            told[0].contains("table ip filter, chain FORWARD: its policy is drop"),
            "{told:?}"
        );
        let accept = format!("iptables-{backend} -A FORWARD -i eni+ -j ACCEPT");
        run(&netns, &[&accept]);
        assert_eq!(found(&netns, Family::V4), Vec::<String>::new(), "{backend}");
    }
}

#[test]
fn docker_and_kube_proxy_let_no_pod_pass() {
    for backend in BACKENDS {
        let netns = Netns::create().unwrap();
        let iptables = format!("iptables-{backend}");
        let commands = [
            "-P FORWARD DROP",
            "-N DOCKER-USER",
            "-A DOCKER-USER -j RETURN",
            "-A FORWARD -j DOCKER-USER",
            "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
            "-N KUBE-FORWARD",
            "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
            "-A KUBE-FORWARD -m comment --comment kubernetes -m mark --mark 0x4000/0x4000 -j ACCEPT",
            "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A FORWARD -j KUBE-FORWARD",
            "-A FORWARD -p icmp -j ACCEPT",
        ];
        for command in commands {
            run(&netns, &[&format!("{iptables} {command}")]);
        }
        let told = found(&netns, Family::V4);
        assert_eq!(told.len(), 1, "{backend}: {told:?}");
        // What an administrator does about it.
        run(&netns, &[&format!("{iptables} -I DOCKER-USER -j ACCEPT")]);
        assert_eq!(found(&netns, Family::V4), Vec::<String>::new(), "{backend}");
    }
}

#[test]
fn a_rule_about_addresses_is_not_taken_for_certain() {
    for backend in BACKENDS {
        let netns = Netns::create().unwrap();
        let iptables = format!("iptables-{backend}");
        run(
            &netns,
            &[&format!("{iptables} -A FORWARD -s 192.0.2.0/24 -j DROP")],
        );
        assert_eq!(found(&netns, Family::V4), Vec::<String>::new(), "{backend}");
        run(
            &netns,
            &[
                &format!("{iptables} -P FORWARD DROP"),
                &format!("{iptables} -A FORWARD -d 10.0.0.0/8 -j ACCEPT"),
            ],
        );
        assert_eq!(found(&netns, Family::V4), Vec::<String>::new(), "{backend}");
    }
}

#[test]
fn a_reject_at_the_end_is_found_in_both_families() {
    for backend in BACKENDS {
        let netns = Netns::create().unwrap();
        for program in ["iptables", "ip6tables"] {
            run(
                &netns,
                &[&format!("{program}-{backend} -A FORWARD -j REJECT")],
            );
        }
        for family in [Family::V4, Family::V6] {
            let told = found(&netns, family);
            assert_eq!(told.len(), 1, "{backend}: {told:?}");
            assert!(told[0].ends_with("a rule drops the packet"), "{told:?}");
        }
    }
}

#[test]
fn firewalld_rejects_what_no_zone_accepts() {
    let netns = Netns::create().unwrap();
    run(
        &netns,
        &[
            "nft add table inet firewalld",
            "nft add chain inet firewalld filter_FORWARD { type filter hook forward priority 10 ; policy accept ; }",
            "nft add chain inet firewalld filter_FWD_public",
            "nft add rule inet firewalld filter_FORWARD ct state { established, related } accept",
            "nft add rule inet firewalld filter_FORWARD iifname lo accept",
            "nft add rule inet firewalld filter_FORWARD jump filter_FWD_public",
            "nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited",
        ],
    );
    for family in [Family::V4, Family::V6] {
        let told = found(&netns, family);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains("inet firewalld, chain filter_FORWARD"),
            "{told:?}"
        );
    }
    run(
        &netns,
        &["nft add rule inet firewalld filter_FWD_public iifname eni* accept"],
    );
    assert_eq!(found(&netns, Family::V4), Vec::<String>::new());
}

#[test]
fn other_hooks_on_the_way_count_and_those_beside_it_do_not() {
    let netns = Netns::create().unwrap();
    run(
        &netns,
        &[
            "nft add table ip guard",
            "nft add chain ip guard own { type filter hook input priority 0 ; policy drop ; }",
            "nft add chain ip guard arrives { type filter hook prerouting priority 0 ; policy accept ; }",
        ],
    );
    assert_eq!(found(&netns, Family::V4), Vec::<String>::new());
    run(&netns, &["nft add rule ip guard arrives iifname eni* drop"]);
    assert_eq!(found(&netns, Family::V4).len(), 1);
    assert_eq!(found(&netns, Family::V6), Vec::<String>::new());
}

/// Whether a rule about a mark can match depends on the bits that the operator has given to the ENIs.
#[test]
fn the_configured_bits_of_a_mark_may_have_any_value() {
    let others = Marks::new(0x80, 0x7f00).unwrap();
    for backend in BACKENDS {
        let netns = Netns::create().unwrap();
        let program = format!("iptables-{backend}");
        let accept = format!("{program} -A FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT");
        run(&netns, &[&format!("{program} -P FORWARD DROP"), &accept]);
        let told = found_with(&netns, Family::V4, Marks::DEFAULT);
        assert_eq!(told.len(), 1, "{backend}: no packet has this bit");
        let told = found_with(&netns, Family::V4, others);
        assert_eq!(
            told,
            Vec::<String>::new(),
            "{backend}: a packet may have it"
        );
    }
}

fn saved(netns: &Netns, tool: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for table in ["nat", "mangle", "filter"] {
        let mut command = Command::new(format!("{tool}-legacy-save"));
        command.args(["-c", "-t", table]);
        let output = netns.run(|| command.output()).unwrap().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        lines.extend(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .map(str::to_owned),
        );
    }
    lines
}

#[test]
fn chains_and_rules_are_removed_from_tables_of_the_older_iptables_and_the_others_keep_their_counters()
 {
    let wanted = OfLegacy {
        chains: &["AWS-SNAT-CHAIN-", "AWS-CONNMARK-CHAIN-"],
        comments: &["AWS,"],
    };
    for (family, tool, own) in [
        (Family::V4, "iptables", "10.0.0.10"),
        (Family::V6, "ip6tables", "2600:1f14::10"),
    ] {
        let netns = Netns::create().unwrap();
        let others = [
            "-t nat -N KUBE-SERVICES",
            "-t nat -N KUBE-MARK",
            "-t nat -A PREROUTING -j KUBE-SERVICES",
            "-t nat -A KUBE-SERVICES -p tcp --dport 80 -j KUBE-MARK -c 7 700",
            "-t nat -A KUBE-MARK -j MARK --set-xmark 0x4000/0x4000 -c 8 800",
            "-t mangle -A PREROUTING -i eth0 -j ACCEPT -c 9 900",
            "-t filter -P FORWARD DROP",
        ];
        let first = [
            "-t nat -N AWS-SNAT-CHAIN-0",
            "-t nat -N AWS-CONNMARK-CHAIN-0",
        ];
        let snat = format!(
            "-t nat -A AWS-SNAT-CHAIN-0 -m comment --comment AWS,SNAT -j SNAT --to-source {own} --random-fully"
        );
        let theirs = [
            "-t nat -I PREROUTING -i eni+ -m comment --comment AWS,out -j AWS-CONNMARK-CHAIN-0",
            "-t nat -A AWS-CONNMARK-CHAIN-0 -j CONNMARK --set-xmark 0x80/0x80",
            "-t nat -I POSTROUTING -j AWS-SNAT-CHAIN-0",
            &snat,
            "-t nat -I KUBE-MARK -m comment --comment AWS,x -j ACCEPT",
            "-t mangle -I PREROUTING -m comment --comment AWS,primary -j CONNMARK --restore-mark",
        ];
        let add = |rules: &[&str]| {
            let lines: Vec<_> = rules.iter().map(|r| format!("{tool}-legacy {r}")).collect();
            run(
                &netns,
                &lines.iter().map(String::as_str).collect::<Vec<_>>(),
            );
        };
        // The chains that go lie between those that stay.
        add(&first[..1]);
        add(&others);
        add(&first[1..]);
        let bare = |line: &String| !line.contains("AWS");
        let before: Vec<_> = saved(&netns, tool).into_iter().filter(bare).collect();
        assert!(
            before.iter().any(|line| line.starts_with("[8:800]")),
            "{before:#?}"
        );
        add(&theirs);
        let removed = netns
            .run(|| remove_legacy(family, &wanted))
            .unwrap()
            .unwrap();
        assert_eq!(saved(&netns, tool), before, "{removed:#?}");
        // Two chains with the end of each, and a rule of each line.
        assert_eq!(removed.len(), 2 + 2 + theirs.len(), "{removed:#?}");
        let again = netns
            .run(|| remove_legacy(family, &wanted))
            .unwrap()
            .unwrap();
        assert_eq!(again, Vec::<String>::new());
    }
}
