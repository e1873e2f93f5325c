//! What operating systems and their hardening guides do to a node under running pods.

use std::{net::UdpSocket, time::Duration};

use lab::{Lab, node::host_link, traffic::ping::ping};
use vpc_sim::SimConfig;

use crate::{
    suite::{Outcome, trials},
    support::repair::DamagedNode,
};

trials!(
    hardened_settings_are_put_back_under_traffic,
    a_mac_that_udev_changed_is_put_back,
    an_mtu_that_others_lowered_is_put_back,
    pods_work_where_ipv6_is_switched_off,
    a_default_route_with_its_own_mtu_limits_no_pod,
);

const LIMIT: Duration = Duration::from_secs(10);

/// The network section of the CIS benchmark, as image builders apply it with `sysctl --system`.
fn hardened_settings_are_put_back_under_traffic() -> Outcome {
    const HARDENING: &str = "cd /proc/sys/net/ipv4; echo 0 > ip_forward; cd conf; \
        for d in all default; do echo 1 > $d/rp_filter; echo 0 > $d/send_redirects; \
        echo 0 > $d/accept_redirects; echo 0 > $d/secure_redirects; echo 0 > $d/accept_source_route; \
        echo 1 > $d/log_martians; done; \
        echo 1 > eth0/rp_filter; echo 1 > eth1/rp_filter; echo 0 > all/forwarding";
    let node = DamagedNode::ipv4()?;
    let right = node.describe()?;
    let took = node.damage(HARDENING, &right)?;
    stdout::errln!("hardening: whole after {took:?}");
    node.talks()?;
    Ok(())
}

/// systemd's `MACAddressPolicy=persistent` gives new virtual links another address.
fn a_mac_that_udev_changed_is_put_back() -> Outcome {
    let node = DamagedNode::ipv4()?;
    let right = node.describe()?;
    let [first, second] = node.talking.map(|n| host_link(&node.pods[n]));
    let took = node.damage(
        &format!("ip link set {first} address 02:11:22:33:44:55; ip link set {second} address 02:11:22:33:44:66"),
        &right,
    )?;
    stdout::errln!("MAC addresses: whole after {took:?}");
    assert!(node.repairs("link")? >= 2);
    Ok(())
}

/// A DHCP client that applies option 26 of its lease to the primary interface.
fn an_mtu_that_others_lowered_is_put_back() -> Outcome {
    let node = DamagedNode::ipv4()?;
    let right = node.describe()?;
    let took = node.damage("ip link set eth0 mtu 1500", &right)?;
    stdout::errln!("MTU: whole after {took:?}");
    Ok(())
}

fn pods_work_where_ipv6_is_switched_off() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.bare_node("t3.small", &[])?;
    node.shell(
        "for d in all default eth0; do echo 1 > /proc/sys/net/ipv6/conf/$d/disable_ipv6; done",
    )?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let (netns, path) = node.sandbox("off")?;
    netns.run(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"))??;
    let added = node
        .invocation("ADD", "off", Some(&path))
        .run(node.netns())?;
    assert!(added.succeeded(), "{added:?}\n{}", node.log());
    let other = node.add_pod("other")?;
    assert!(ping(&other.netns, None, added.address(), LIMIT)?.is_some());
    let check = node.invocation("CHECK", "off", Some(&path));
    let checked = check
        .conf("prevResult", added.json.clone())
        .run(node.netns())?;
    assert!(checked.succeeded(), "{checked:?}\n{}", node.log());
    Ok(())
}

/// Some clouds and DHCP servers put an MTU on the default route.
fn a_default_route_with_its_own_mtu_limits_no_pod() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.bare_node("t3.small", &[])?;
    node.shell("ip route replace $(ip route show default | head -1) mtu 1442")?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let (a, b) = (node.add_pod("a")?, node.add_pod("b")?);
    let receiver = b.netns.run(|| UdpSocket::bind((b.address(), 7000)))??;
    receiver.set_read_timeout(Some(LIMIT))?;
    let sender = a.netns.run(|| UdpSocket::bind((a.address(), 0)))??;
    assert!(ping(&a.netns, None, b.address(), LIMIT)?.is_some());
    sender.send_to(&[1; 8000], (b.address(), 7000))?;
    let mut packet = [0; 9000];
    assert_eq!(receiver.recv_from(&mut packet)?.0, 8000);
    Ok(())
}
