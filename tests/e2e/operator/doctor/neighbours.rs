//! Other programs on the node, each with its real commands: what the doctor and the daemon tell of them.

use std::{io, net::IpAddr, os::unix::net::UnixListener, process::Command, time::Duration};

use lab::{traffic::ping::ping, wait::eventually};
use vpc_sim::SimConfig;

use super::{doctor_node::DoctorNode, kernel::secondary_link};
use crate::suite::{Outcome, trials};

trials!(
    case_20_a_filter_that_drops_forwarded_packets_is_told,
    case_22_a_dhcp_client_on_a_secondary_eni_is_told_with_its_drop_in,
    rules_and_marks_of_others_are_told_with_the_usual_program,
    addresses_that_the_host_keeps_from_pods_are_told,
    predecessors_that_run_or_left_rules_are_told,
    packets_in_transit_with_bits_of_enis_are_told,
);

fn in_node(examined: &DoctorNode, line: &str) -> io::Result<()> {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    let output = examined.node.netns().run(move || command.output())??;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{line}: {output:?}"))),
    }
}

fn case_20_a_filter_that_drops_forwarded_packets_is_told() -> Outcome {
    for backend in ["nft", "legacy"] {
        let mut examined = DoctorNode::start("m5.large", SimConfig::default())?;
        examined.healthy()?;
        in_node(&examined, &format!("iptables-{backend} -P FORWARD DROP"))?;
        examined.finds("filters", "a filter drops packets from pods to other nodes")?;
        examined.finds(
            "filters",
            "a filter drops packets between pods of this node",
        )?;
        // The daemon looks once a minute, and at its start.
        examined.node.stop_daemon()?;
        examined
            .node
            .start_daemon(&examined.lab.sim.ec2_endpoint())?;
        let told = || {
            examined
                .node
                .metric("hawser_forwarding_blocked")
                .is_ok_and(|n| n == 3)
        };
        assert!(
            eventually(Duration::from_secs(20), told),
            "{backend}\n{}",
            examined.node.log()
        );
        assert!(
            examined
                .node
                .log()
                .contains("a filter of another program drops pods' packets")
        );
        let pod = examined.node.add_pod("a")?;
        examined.node.delete_pod(pod)?;

        for way in ["-i", "-o"] {
            in_node(
                &examined,
                &format!("iptables-{backend} -I FORWARD {way} eni+ -j ACCEPT"),
            )?;
        }
        examined.healthy()?;
    }
    Ok(())
}

fn rules_and_marks_of_others_are_told_with_the_usual_program() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    in_node(
        &examined,
        "ip rule add priority 5210 fwmark 0x80000/0xff0000 lookup 52",
    )?;
    examined.finds("rules", "1 rules of other programs come before ours")?;
    let told = examined.told()?.findings();
    assert!(
        format!("{told:?}").contains("usually of Tailscale"),
        "{told:?}"
    );
    in_node(&examined, "ip rule del priority 5210")?;
    in_node(
        &examined,
        "ip rule add priority 40000 fwmark 0x1/0x1 lookup 77",
    )?;
    examined.finds("rules", "uses the same bits of the packet mark")?;
    in_node(&examined, "ip rule del priority 40000")?;
    examined.healthy()
}

fn case_22_a_dhcp_client_on_a_secondary_eni_is_told_with_its_drop_in() -> Outcome {
    let examined = DoctorNode::start("t3.small", SimConfig::default())?;
    let _pods: Vec<_> = (0..5)
        .map(|n| examined.node.add_pod(&format!("pod{n}")))
        .collect::<io::Result<_>>()?;
    std::fs::create_dir_all(examined.root.join("run/systemd/netif/links"))?;
    let link = secondary_link(&examined)?;
    in_node(
        &examined,
        &format!("ip route add 198.51.100.53/32 dev {link} proto dhcp scope link"),
    )?;
    examined.finds("dhcp", "systemd-networkd configures secondary ENIs")?;
    let told = format!("{:?}", examined.told()?.findings());
    assert!(
        told.contains("/etc/systemd/network/10-hawser.network"),
        "{told}"
    );
    in_node(
        &examined,
        &format!("ip route del 198.51.100.53/32 dev {link}"),
    )?;
    examined.healthy()
}

fn addresses_that_the_host_keeps_from_pods_are_told() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    let pod = examined.node.add_pod("a")?;
    let address = pod.address();
    let told = |rule: &str, what: &str| {
        let found = || examined.finds("pool", what).is_ok();
        assert!(
            eventually(Duration::from_secs(20), found),
            "{rule}\n{}",
            examined.node.log()
        );
        let findings = examined.told().map(|told| told.findings());
        let text = format!("{findings:?}");
        assert!(
            text.contains(&format!("{address}")) && text.contains("of pod lab/pod-a"),
            "{text}"
        );
        assert!(!text.contains("EC2 does not confirm"), "{text}");
    };
    in_node(&examined, &format!("ip addr add {address}/32 dev lo"))?;
    told("an address", "the node itself uses addresses of the pool");
    in_node(&examined, &format!("ip addr del {address}/32 dev lo"))?;
    in_node(
        &examined,
        &format!("ip rule add to {address} priority 100 lookup main"),
    )?;
    told(
        "a rule",
        "rules of other programs decide the way of addresses of the pool",
    );
    in_node(&examined, "ip rule del priority 100")?;
    let healthy = || examined.healthy().is_ok();
    assert!(eventually(Duration::from_secs(20), healthy));
    Ok(())
}

fn predecessors_that_run_or_left_rules_are_told() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    in_node(
        &examined,
        "ip rule add to 10.0.9.9 priority 512 lookup main",
    )?;
    in_node(&examined, "iptables-legacy -t nat -N AWS-SNAT-CHAIN-0")?;
    let path = examined.lab.dir().join("aws-node");
    std::fs::create_dir_all(&path)?;
    let socket = path.join("ipamd.sock");
    let daemon = examined
        .node
        .netns()
        .run(move || UnixListener::bind(socket))??;
    for what in [
        "aws-node runs on this node too",
        "1 rules of the AWS VPC CNI are left",
        "chains of the AWS VPC CNI are left in iptables-legacy",
    ] {
        examined.finds("predecessors", what)?;
    }
    drop(daemon);
    in_node(&examined, "ip rule del priority 512 to 10.0.9.9")?;
    in_node(&examined, "iptables-legacy -t nat -X AWS-SNAT-CHAIN-0")?;
    examined.healthy()
}

/// A container behind a bridge, whose packets a firewall marks.
fn packets_in_transit_with_bits_of_enis_are_told() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    let counts = || {
        examined
            .node
            .shell("nft list table ip hawser_transit")
            .is_ok()
    };
    assert!(
        eventually(Duration::from_secs(20), counts),
        "{}",
        examined.node.log()
    );
    let (container, path) = examined.node.sandbox("container")?;
    examined.node.shell(&format!(
        "ip link add docker0 type veth peer name c0; ip link set c0 netns {}; ip addr add 172.17.0.1/16 dev docker0; \
         ip link set docker0 up; nft 'table ip firewall {{ chain c {{ type filter hook prerouting priority -150; \
         iif docker0 meta mark set 0x4001; }}; }}'",
        path.display()
    ))?;
    let inside =
        "ip link set c0 up; ip addr add 172.17.0.2/16 dev c0; ip route add default via 172.17.0.1";
    let set_up = container.run(|| Command::new("sh").args(["-ec", inside]).status())??;
    assert!(set_up.success());
    let router = IpAddr::from([10, 0, 0, 1]);
    ping(&container, None, router, Duration::from_secs(1))?;
    examined.finds(
        "nftables",
        "packets in transit carry mark bits of ENIs although no pod sent them",
    )?;
    // The daemon looks once a minute.
    let told = || {
        let count = examined.node.metric("hawser_foreign_marked_packets_total");
        count.is_ok_and(|packets| packets > 0)
    };
    assert!(
        eventually(Duration::from_secs(90), told),
        "{}",
        examined.node.log()
    );
    let log = examined.node.log();
    assert!(
        log.contains("packets in transit carry mark bits of ENIs"),
        "{log}"
    );
    Ok(())
}
