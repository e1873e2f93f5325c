//! A node that has learned its default route from router advertisements, and becomes a router itself.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::sys::socket::sockopt::Ipv6Ttl;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, sendto,
    setsockopt, socket,
};

use super::*;

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0x0ec2, 0, 0, 0, 0, 0, 1);
const NODE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x10);
const FORWARDING: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

fn lab() -> Lab {
    let lab = Lab::new();
    run_in(
        &lab.wires[0],
        &[
            "ip",
            "addr",
            "add",
            &format!("{ROUTER}/64"),
            "dev",
            "wire",
            "nodad",
        ],
    );
    lab.show(&format!(
        "echo 0 > {FORWARDING}; echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra; \
         ip addr add {NODE}/64 dev eth0 nodad"
    ));
    lab
}

/// The advertisements that EC2's routers send every few minutes; lifetime half an hour.
fn advertise(lab: &Lab) {
    let wire = &lab.wires[0];
    let link = socket_in(wire).link_by_name("wire").unwrap().unwrap().index;
    let message = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    let send = || {
        let (family, flags) = (AddressFamily::Inet6, SockFlag::SOCK_CLOEXEC);
        let fd = socket(family, SockType::Raw, flags, SockProtocol::IcmpV6)?;
        // Advertisements from more than one hop away are ignored.
        setsockopt(&fd, Ipv6Ttl, &255)?;
        let at = |address| SockaddrIn6::from(SocketAddrV6::new(address, 0, 0, link));
        bind(fd.as_raw_fd(), &at(ROUTER))?;
        sendto(fd.as_raw_fd(), &message, &at(NODE), MsgFlags::empty())
    };
    wire.run(send).unwrap().unwrap();
}

fn has_default(lab: &Lab) -> bool {
    let routes = lab.show("ip -6 route show default");
    routes.iter().any(|r| r.contains(&format!("via {ROUTER}")))
}

fn learns(lab: &Lab) -> bool {
    advertise(lab);
    (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        has_default(lab)
    })
}

#[test]
fn the_route_outlives_forwarding_and_is_renewed() {
    let mut lab = lab();
    assert!(learns(&lab));
    lab.on_host(|socket| prepare(socket, &ipv6()).unwrap());
    assert_eq!(lab.show(&format!("cat {FORWARDING}")), ["1"]);
    assert!(has_default(&lab));
    lab.show("ip -6 route del default");
    assert!(learns(&lab), "advertisements are heard no more");
}

/// This is why the order of the settings matters.
#[test]
fn forwarding_alone_makes_the_kernel_remove_the_route() {
    let lab = lab();
    assert!(learns(&lab));
    lab.show(&format!("echo 1 > {FORWARDING}"));
    assert!(!has_default(&lab));
}

fn ipv6() -> HostConfig {
    HostConfig {
        pods: Family::V6,
        ..config()
    }
}

/// The daemon has only this capability.
#[test]
fn net_admin_is_enough() {
    let mut lab = lab();
    lab.on_host(|socket| {
        keep_only_net_admin();
        prepare(socket, &ipv6()).unwrap();
    });
    assert_eq!(lab.show(&format!("cat {FORWARDING}")), ["1"]);
}

/// As in a container without privileges: the node must already be configured, and the error names what is missing.
#[test]
fn where_settings_cannot_be_written_they_must_be_right() {
    let mut lab = lab();
    let prepared = |lab: &mut Lab| {
        lab.on_host(|socket| {
            write_protect_settings();
            prepare(socket, &ipv6()).map(drop)
        })
    };
    let refused = prepared(&mut lab).unwrap_err();
    assert!(
        matches!(&refused, HostError::Setting { path, value: "2", .. } if path.ends_with("eth0/accept_ra")),
        "{refused:?}"
    );
    lab.show("echo 2 > /proc/sys/net/ipv6/conf/eth0/accept_ra");
    let refused = prepared(&mut lab).unwrap_err();
    let told = format!("{FORWARDING} is not 1 and cannot be written: set it on the node");
    assert_eq!(refused.to_string(), told);
    lab.show(&format!("echo 1 > {FORWARDING}"));
    prepared(&mut lab).unwrap();
}
