//! Findings in the kernel. The daemon is dead in all of them: otherwise it would repair the damage.

use std::{fs, io, process::Command};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use vpc_sim::SimConfig;

use super::doctor_node::{DoctorNode, Report};
use crate::{
    suite::{Outcome, trials},
    support::ipv6,
};

trials!(
    a_dead_daemon_and_its_state_file_are_found,
    missing_kernel_objects_are_found,
    missing_ipv6_kernel_objects_are_found,
    differences_of_a_link_are_reported,
    a_kernel_that_cannot_be_asked_is_found,
);

/// Runs a program in the node's namespace to damage it.
fn in_node(examined: &DoctorNode, program: &str, arguments: &str) -> io::Result<()> {
    let mut command = Command::new(program);
    command.args(arguments.split_whitespace());
    let output = examined.node.netns().run(move || command.output())??;
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "{program} {arguments}: {output:?}"
        )))
    }
}

/// A node with pods on two ENIs and a killed daemon.
fn dead() -> Result<(DoctorNode, Vec<lab::node::Pod>), libtest_mimic::Failed> {
    let mut examined = DoctorNode::start("t3.small", SimConfig::default())?;
    let pods: Result<Vec<_>, _> = (0..5)
        .map(|n| examined.node.add_pod(&format!("pod{n}")))
        .collect();
    let pods = pods?;
    examined.healthy()?;
    examined.node.kill_daemon()?;
    Ok((examined, pods))
}

fn a_dead_daemon_and_its_state_file_are_found() -> Outcome {
    let (examined, _pods) = dead()?;
    let told = examined.told()?;
    told.finds("daemon", "does not answer")?;
    let all = told.findings();
    assert_eq!(all.len(), 1, "the rest of the node is well: {all:#?}");
    assert!(
        all[0].1["evidence"]
            .as_str()
            .is_some_and(|text| text.contains("there is a state file"))
    );
    Ok(())
}

fn missing_kernel_objects_are_found() -> Outcome {
    let (examined, pods) = dead()?;
    let pod = pods[0].address();
    in_node(
        &examined,
        "ip",
        "rule add priority 100 from 192.0.2.1 lookup 77",
    )?;
    examined.finds("rules", "1 rules of other programs")?;
    in_node(&examined, "ip", "rule del priority 100")?;

    in_node(&examined, "ip", &format!("route del {pod}/32 table 27392"))?;
    examined.finds("routes", &format!("no route leads to {pod}"))?;

    in_node(&examined, "ip", "rule del priority 512")?;
    examined.finds("rules", "the rule 512 to the pods' table is missing")?;
    in_node(&examined, "ip", "rule del priority 1536 lookup 2")?;
    examined.finds("rules", "the rule 1536 to table 2")?;
    in_node(&examined, "ip", "rule del priority 32765 lookup 2")?;
    examined.finds("rules", "the rule 32765 to table 2")?;

    in_node(&examined, "nft", "add table ip nat")?;
    in_node(&examined, "nft", "add chain ip nat AWS-SNAT-CHAIN-0")?;
    examined.finds("nftables", "chains of the AWS VPC CNI")?;
    in_node(&examined, "nft", "flush chain ip hawser choose_eni")?;
    examined.finds("nftables", "table ip hawser is not correct")?;
    in_node(&examined, "nft", "delete table ip hawser")?;
    examined.finds("nftables", "table ip hawser is not correct")?;

    let link = secondary_link(&examined)?;
    in_node(&examined, "ip", &format!("link del {link}"))?;
    examined.finds("links", "has no link")?;

    let off = || fs::write("/proc/sys/net/ipv4/ip_forward", "0");
    examined.node.netns().run(off)??;
    examined.finds("sysctl", "does not forward")
}

fn missing_ipv6_kernel_objects_are_found() -> Outcome {
    let settings = [&ipv6::SIX[..], &[("HAWSER_BLOCK_POD_IMDS", "true")]].concat();
    let mut examined = DoctorNode::with("m5.large", SimConfig::dual_stack(), &settings)?;
    let pod = examined.node.add_pod("pod")?;
    examined.healthy()?;
    examined.node.kill_daemon()?;

    let rule = "-6 rule add priority 100 from 2001:db8::/64 lookup 77";
    in_node(&examined, "ip", rule)?;
    examined.finds("rules", "1 rules of other programs")?;
    let pod = pod.address();
    in_node(&examined, "ip", &format!("-6 route del {pod} table 27392"))?;
    examined.finds("routes", &format!("no route leads to {pod}"))?;
    in_node(&examined, "ip", "-6 rule del priority 512")?;
    examined.finds("rules", "the rule 512 to the pods' table is missing")?;

    let wrong = "table ip6 hawser is not correct";
    in_node(&examined, "nft", "flush chain ip6 hawser block_metadata")?;
    examined.finds("nftables", wrong)?;
    in_node(&examined, "nft", "delete table ip6 hawser")?;
    examined.finds("nftables", wrong)?;

    let set = |name: &str, value: &str| -> io::Result<()> {
        let path = format!("/proc/sys/net/ipv6/conf/{name}");
        examined.node.netns().run(|| fs::write(path, value))?
    };
    set("eth0/accept_ra", "1")?;
    examined.finds("sysctl", "ignores its router")?;
    set("all/forwarding", "0")?;
    examined.finds("sysctl", "does not forward")
}

fn differences_of_a_link_are_reported() -> Outcome {
    let (examined, _pods) = dead()?;
    let link = secondary_link(&examined)?;
    let evidence = |told: &Report| {
        let what = format!("{link} of eni-");
        told.finds("links", &what)?;
        let all = told.findings();
        let found = all.iter().find(|(name, _)| name == "links");
        let text = found.and_then(|(_, finding)| finding["evidence"].as_str());
        Ok::<_, libtest_mimic::Failed>(text.unwrap_or_default().to_owned())
    };
    in_node(&examined, "ip", &format!("link set {link} mtu 1400"))?;
    assert_eq!(
        evidence(&examined.told()?)?,
        "its MTU is 1400 instead of 9001"
    );
    let strict = format!("/proc/sys/net/ipv4/conf/{link}/rp_filter");
    examined.node.netns().run(|| fs::write(strict, "1"))??;
    in_node(&examined, "ip", &format!("link set {link} down"))?;
    assert_eq!(
        evidence(&examined.told()?)?,
        "it is down, its MTU is 1400 instead of 9001, rp_filter is 1 (strict)"
    );
    Ok(())
}

/// Without a privilege, and without /proc.
fn a_kernel_that_cannot_be_asked_is_found() -> Outcome {
    const WITHOUT: &[&str] = &[
        "setpriv",
        "--bounding-set",
        "-net_admin",
        "--inh-caps",
        "-net_admin",
        "--",
    ];
    const SETTINGS: &str = "/proc/sys/net";
    let (examined, _pods) = dead()?;
    let endpoint = examined.lab.sim.ec2_endpoint();
    let output = examined.doctor_under(WITHOUT, &endpoint, &["--output", "json"])?;
    Report::read(&output)?.finds("nftables", "the kernel cannot be queried")?;

    let empty = examined.root.join("empty");
    fs::create_dir(&empty)?;
    let none = None::<&str>;
    mount(Some(&empty), SETTINGS, none, MsFlags::MS_BIND, none)?;
    let told = examined.told();
    umount2(SETTINGS, MntFlags::MNT_DETACH)?;
    told?.finds("sysctl", "the node's forwarding cannot be read")
}

/// The name of the link of the ENI that is not the primary one.
pub(super) fn secondary_link(examined: &DoctorNode) -> io::Result<String> {
    let output = examined.node.ask(
        &examined.lab.sim.ec2_endpoint(),
        &["inspect", "--output", "json"],
    )?;
    let view: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let enis = view["enis"].as_array().cloned().unwrap_or_default();
    let mac = enis
        .iter()
        .find(|eni| eni["primary"] == false)
        .and_then(|eni| eni["mac"].as_str().map(str::to_owned))
        .ok_or_else(|| io::Error::other(format!("one ENI only: {view}")))?;
    let links = examined
        .node
        .netns()
        .run(|| datapath::netlink::Socket::open()?.links())?;
    let links = links.map_err(io::Error::other)?;
    let found = links
        .into_iter()
        .find(|link| link.mac.is_some_and(|m| m.to_string() == mac));
    found
        .map(|link| link.name)
        .ok_or_else(|| io::Error::other(format!("no link has {mac}")))
}
