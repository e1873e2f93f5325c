//! Tests every verb with the real kernel, in separate namespaces.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::addr::Address;
use super::link::{Change, End, InetConf};
use super::neigh::Neighbour;
use super::route::{Kind, Route};
use super::rule::Rule;
use super::*;
use crate::netns::Netns;
use crate::testing::{netns, run_in, socket_in};
use netlink_packet_route::RouteNetlinkMessage;

mod ipv6;

const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn end(name: &str) -> End<'_> {
    End {
        name,
        mtu: Some(1400),
        mac: None,
        group: 0,
        up: true,
    }
}

/// A pair inside one namespace: `d0`, up, and its peer.
fn card(name: &str, mac: Mac) -> Request {
    let peer = format!("{name}-far");
    link::add_veth(
        &End {
            mac: Some(mac),
            ..end(name)
        },
        &end(&peer),
        None,
    )
}

/// A namespace with a link that represents an Ethernet card.
fn with_link() -> (Netns, Socket, u32) {
    let netns = netns();
    let mut socket = socket_in(&netns);
    socket.apply(&card("d0", A)).unwrap();
    let index = socket.link_by_name("d0").unwrap().unwrap().index;
    (netns, socket, index)
}

#[test]
fn a_veth_is_made_with_its_far_end_in_place() {
    let (near, far) = (netns(), netns());
    let (mut near_socket, mut far_socket) = (socket_in(&near), socket_in(&far));
    let host = End {
        name: "eni0",
        mtu: Some(9001),
        mac: Some(A),
        group: 0x6b01,
        up: true,
    };
    let pod = End {
        name: "eth0",
        mtu: Some(9001),
        mac: Some(B),
        group: 0,
        up: true,
    };
    near_socket
        .apply(&link::add_veth(&host, &pod, Some(far.as_fd())))
        .unwrap();

    let host = near_socket.link_by_name("eni0").unwrap().unwrap();
    let pod = far_socket.link_by_name("eth0").unwrap().unwrap();
    assert_eq!(
        (host.mac, host.mtu, host.group, host.up),
        (Some(A), 9001, 0x6b01, true)
    );
    assert_eq!(
        (pod.mac, pod.mtu, pod.group, pod.up),
        (Some(B), 9001, 0, false),
        "a peer is never created up"
    );
    assert_eq!(
        (host.peer, host.kind.as_deref()),
        (Some(pod.index), Some("veth"))
    );
    assert_eq!(near_socket.link_by_name("eth0").unwrap(), None);
}

#[test]
fn a_link_changes_and_goes() {
    let (_netns, mut socket, index) = with_link();
    let change = Change {
        up: Some(false),
        mtu: Some(1300),
        mac: Some(B),
        group: Some(7),
        ..Change::default()
    };
    socket.apply(&link::set(index, &change)).unwrap();
    socket
        .apply(&link::set(
            index,
            &Change {
                name: Some("d1"),
                ..Change::default()
            },
        ))
        .unwrap();
    let link = socket.link_by_index(index).unwrap().unwrap();
    assert_eq!(
        (link.name.as_str(), link.mtu, link.mac, link.group, link.up),
        ("d1", 1300, Some(B), 7, false)
    );

    socket.apply(&link::del(index)).unwrap();
    assert_eq!(socket.link_by_index(index).unwrap(), None);
    assert!(
        socket
            .apply(&link::del(index))
            .unwrap_err()
            .is(Errno::ENODEV)
    );
}

#[test]
fn device_settings_go_over_netlink() {
    let (netns, mut socket, index) = with_link();
    let settings = [
        (InetConf::RpFilter, 2),
        (InetConf::ProxyArp, 1),
        (InetConf::Forwarding, 0),
    ];
    socket
        .apply(&link::set_inet_conf(index, &settings))
        .unwrap();
    assert_eq!(
        socket.link_by_index(index).unwrap().unwrap().rp_filter,
        Some(2)
    );
    let read = run_in(
        &netns,
        &[
            "sh",
            "-c",
            "cd /proc/sys/net/ipv4/conf/d0; cat rp_filter proxy_arp forwarding",
        ],
    );
    assert_eq!(read, "2\n1\n0\n");
}

#[test]
fn an_address_without_a_prefix_route_creates_none() {
    let (_netns, mut socket, index) = with_link();
    let address = Address {
        prefix_len: 24,
        no_prefix_route: true,
        ..Address::host(index, IP)
    };
    socket.apply(&addr::add(&address)).unwrap();
    assert!(
        socket
            .apply(&addr::add(&address))
            .unwrap_err()
            .is(Errno::EEXIST)
    );
    socket.apply(&addr::replace(&address)).unwrap();
    assert_eq!(
        socket.addresses(Family::V4, Some(index)).unwrap(),
        [address]
    );
    assert_eq!(
        socket.addresses(Family::V4, None).unwrap().len(),
        2,
        "the loopback's too"
    );
    assert_eq!(socket.routes(Family::V4, Some(route::MAIN)).unwrap(), []);

    socket.apply(&addr::del(&address)).unwrap();
    let gone = socket.apply(&addr::del(&address)).unwrap_err();
    assert!(gone.is(Errno::EADDRNOTAVAIL) && gone.is_gone());
}

#[test]
fn routes_live_in_their_table() {
    let (_netns, mut socket, index) = with_link();
    let onlink = Route::link(net("169.254.1.1/32"), index, 27_392);
    let default = Route::via(
        net("0.0.0.0/0"),
        Ipv4Addr::new(169, 254, 1, 1),
        index,
        27_392,
    );
    let hole = Route::nowhere(net("10.9.0.0/16"), Kind::BlackHole, 27_392);
    let all = [
        route::add(&onlink),
        route::add(&default),
        route::replace(&hole),
    ];
    socket.batch(&all).unwrap().ok().unwrap();

    let mut found = socket.routes(Family::V4, Some(27_392)).unwrap();
    found.sort_by_key(|r| r.dst);
    assert_eq!(found, [default, hole, onlink]);
    assert!(
        socket
            .apply(&route::add(&hole))
            .unwrap_err()
            .is(Errno::EEXIST)
    );
    let softer = Route {
        kind: Kind::Unreachable,
        ..hole
    };
    socket.apply(&route::replace(&softer)).unwrap();
    assert!(
        socket
            .routes(Family::V4, Some(27_392))
            .unwrap()
            .contains(&softer)
    );

    socket
        .apply(&route::del_by_dst(net("10.9.0.0/16"), 27_392))
        .unwrap();
    assert!(
        socket
            .apply(&route::del(&softer))
            .unwrap_err()
            .is(Errno::ESRCH)
    );
    assert_eq!(
        socket.routes(Family::V4, Some(4711)).unwrap(),
        [],
        "a table that never was is empty"
    );
}

#[test]
fn neighbours_are_permanent() {
    let (_netns, mut socket, index) = with_link();
    socket.apply(&neigh::set_permanent(index, IP, A)).unwrap();
    socket.apply(&neigh::set_permanent(index, IP, B)).unwrap();
    let expected = Neighbour {
        index,
        address: IP.into(),
        mac: B,
        permanent: true,
    };
    assert_eq!(
        socket.neighbours(Family::V4, Some(index)).unwrap(),
        [expected]
    );
    socket.apply(&neigh::del(index, IP)).unwrap();
    assert!(socket.apply(&neigh::del(index, IP)).unwrap_err().is_gone());
}

#[test]
fn rules_carry_their_match_and_their_maker() {
    let mut socket = socket_in(&netns());
    let mine = [
        Rule::all(Family::V4, 512, 27_392),
        Rule::mark(Family::V4, 1536, 1, 0x7f, 2),
        Rule {
            to: Some(net("10.1.0.0/16").into()),
            iif: Some("lo".to_owned()),
            ..Rule::all(Family::V4, 1600, 10_101)
        },
        Rule::from(32_765, IP, 2),
    ];
    for rule in &mine {
        socket.apply(&rule::add(rule)).unwrap();
        assert!(
            socket
                .apply(&rule::add(rule))
                .unwrap_err()
                .is(Errno::EEXIST)
        );
    }
    let ours: Vec<Rule> = socket
        .rules(Family::V4)
        .unwrap()
        .into_iter()
        .filter(|r| r.protocol == crate::constants::PROTOCOL)
        .collect();
    assert_eq!(ours, mine);
    socket.apply(&rule::del(&mine[1])).unwrap();
    assert!(
        socket
            .apply(&rule::del(&mine[1]))
            .unwrap_err()
            .is(Errno::ENOENT)
    );
}

#[test]
fn a_batch_reports_each_request_with_the_kernels_message() {
    let (_netns, mut socket, index) = with_link();
    let bad = Route::via(
        net("10.7.0.0/16"),
        Ipv4Addr::new(192, 0, 2, 1),
        index,
        route::MAIN,
    );
    let requests = [
        addr::add(&Address::host(index, IP)),
        route::add(&bad),
        link::set(
            index,
            &Change {
                mtu: Some(1),
                ..Change::default()
            },
        ),
        neigh::set_permanent(index, IP, A),
    ];
    let report = socket.batch(&requests).unwrap();
    let ok: Vec<bool> = report.results.iter().map(Result::is_ok).collect();
    assert_eq!(
        ok,
        [true, false, false, true],
        "the kernel goes on after a failure"
    );
    let error = report.ok().unwrap_err();
    assert!(error.is(Errno::ENETUNREACH));
    assert!(
        error.to_string().ends_with("(Nexthop has invalid gateway)"),
        "{error}"
    );
}

#[test]
fn a_batch_larger_than_the_receive_buffer_is_cut() {
    let (_netns, mut socket, index) = with_link();
    let hosts = net("10.20.0.0/16").hosts().take(1000);
    let routes: Vec<_> = hosts
        .map(|ip| route::add(&Route::link(Ipv4Net::from(ip), index, 300)))
        .collect();
    let report = socket.batch(&routes).unwrap();
    assert_eq!(report.results.len(), 1000);
    report.ok().unwrap();
    assert_eq!(socket.routes(Family::V4, Some(300)).unwrap().len(), 1000);
}

#[test]
fn a_handed_over_socket_acts_where_it_was_opened() {
    let pod = netns();
    let theirs = pod.run(|| {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            flags,
            SockProtocol::NetlinkRoute,
        )
        .unwrap();
        // Subscribed, and with an unread answer, as a careful plugin would never pass it.
        nix::sys::socket::bind(
            std::os::fd::AsRawFd::as_raw_fd(&fd),
            &nix::sys::socket::NetlinkAddr::new(0, 1),
        )
        .unwrap();
        fd
    });
    let theirs: OwnedFd = theirs.unwrap();
    socket_in(&pod).apply(&card("d0", A)).unwrap();

    let mut socket = Socket::from_fd(theirs).unwrap();
    assert_eq!(socket.netns_id().unwrap(), pod.id());
    let index = socket.link_by_name("d0").unwrap().unwrap().index;
    socket.apply(&addr::add(&Address::host(index, IP))).unwrap();
    assert_eq!(
        socket_in(&pod).addresses(Family::V4, Some(index)).unwrap(),
        [Address::host(index, IP)]
    );
}

#[test]
fn anything_but_a_route_socket_is_refused() {
    let unix = UnixDatagram::unbound().unwrap();
    assert!(matches!(
        Socket::from_fd(unix.into()),
        Err(Error::NotRouteNetlink { domain: 1, .. })
    ));
    let netfilter = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::empty(),
        SockProtocol::NetlinkNetFilter,
    )
    .unwrap();
    assert!(matches!(
        Socket::from_fd(netfilter),
        Err(Error::NotRouteNetlink {
            domain: 16,
            protocol: 12
        })
    ));
}

#[test]
fn a_monitor_reports_changes_by_others() {
    let netns = netns();
    let mut monitor = Monitor::open_in(&netns, &[Topic::Rules]).unwrap();
    assert_eq!(monitor.next(Duration::ZERO).unwrap(), None);
    let rule = Rule::all(Family::V4, 512, 27_392);
    let mut socket = socket_in(&netns);
    socket.apply(&rule::add(&rule)).unwrap();
    socket.apply(&rule::del(&rule)).unwrap();
    let mut next = || match monitor.next(Duration::from_secs(5)).unwrap() {
        Some(Event::Change(message)) => (
            matches!(*message, RouteNetlinkMessage::NewRule(_)),
            Rule::from_message(&message),
        ),
        other => panic!("{other:?}"),
    };
    assert_eq!(next(), (true, Some(rule.clone())));
    assert_eq!(next(), (false, Some(rule)));
}

#[test]
fn lost_notifications_are_reported() {
    let (netns, mut socket, index) = with_link();
    let mut monitor = Monitor::open_in(&netns, &[Topic::Routes]).unwrap();
    let hosts = net("10.20.0.0/16").hosts().take(4000);
    let routes: Vec<_> = hosts
        .map(|ip| route::add(&Route::link(Ipv4Net::from(ip), index, 300)))
        .collect();
    socket.batch(&routes).unwrap().ok().unwrap();
    let events = std::iter::from_fn(|| monitor.next(Duration::ZERO).unwrap());
    assert!(events.into_iter().any(|e| e == Event::Overrun));
}

#[test]
fn waiting_for_a_link_finds_an_existing_and_a_new_one() {
    let (netns, _socket, index) = with_link();
    netns
        .run(|| {
            let mut socket = Socket::open().unwrap();
            let there = wait_for_link_by_mac(&mut socket, A, IP, Duration::ZERO)
                .unwrap()
                .unwrap();
            assert_eq!(there.index, index);
            assert_eq!(
                wait_for_link_by_mac(&mut socket, B, IP, Duration::from_millis(1)).unwrap(),
                None
            );
            let waiting = std::thread::scope(|scope| {
                let waiter = scope.spawn(|| {
                    wait_for_link_by_mac(
                        &mut Socket::open().unwrap(),
                        B,
                        IP,
                        Duration::from_secs(10),
                    )
                    .unwrap()
                });
                socket.apply(&card("d1", B)).unwrap();
                waiter.join().unwrap()
            });
            assert_eq!(waiting.unwrap().name, "d1");
        })
        .unwrap();
}

#[test]
fn waiting_on_a_socket_of_another_namespace_is_a_mistake() {
    let (_netns, mut socket, _) = with_link();
    let error = wait_for_link_by_mac(&mut socket, B, IP, Duration::ZERO).unwrap_err();
    assert!(matches!(error, Error::ForeignNamespace { .. }), "{error}");
}
