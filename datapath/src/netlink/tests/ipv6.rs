//! The verbs in IPv6, where the kernel behaves differently from IPv4.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::*;

const POD: Ipv6Addr = Ipv6Addr::new(0x2600, 0x1f14, 0, 1, 2, 0, 0, 1);
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

fn net6(text: &str) -> Ipv6Net {
    text.parse().unwrap()
}

#[test]
fn a_host_address_is_usable_at_once_and_makes_no_route() {
    let (_netns, mut socket, index) = with_link();
    let address = Address::host(index, POD);
    socket.apply(&addr::add(&address)).unwrap();
    let again = socket.apply(&addr::add(&address)).unwrap_err();
    assert!(again.is(Errno::EEXIST));
    let found = socket.addresses(Family::V6, Some(index)).unwrap();
    assert!(found.contains(&address), "{found:?}");
    let routes = socket.routes(Family::V6, Some(route::MAIN)).unwrap();
    assert!(routes.iter().all(|r| r.dst != Ipv6Net::from(POD).into()));
    assert_eq!(socket.addresses(Family::V4, Some(index)).unwrap(), []);
    socket.apply(&addr::del(&address)).unwrap();
    assert!(socket.apply(&addr::del(&address)).unwrap_err().is_gone());
}

#[test]
fn routes_have_their_own_table_and_the_gateway_needs_none() {
    let (_netns, mut socket, index) = with_link();
    let host = Route::link(Ipv6Net::from(POD), index, 27_392);
    let default = Route::via(net6("::/0"), GATEWAY, index, 27_392);
    let hole = Route::nowhere(net6("2600:1f14::/56"), Kind::BlackHole, 27_392);
    for route in [&host, &default, &hole] {
        socket.apply(&route::add(route)).unwrap();
        let again = socket.apply(&route::add(route)).unwrap_err();
        assert!(again.is(Errno::EEXIST), "{again}");
    }
    let found = socket.routes(Family::V6, Some(27_392)).unwrap();
    let told = |r: &Route| {
        found
            .iter()
            .any(|f| (f.dst, f.gateway, f.kind) == (r.dst, r.gateway, r.kind))
    };
    assert!(told(&host) && told(&default) && told(&hole), "{found:?}");
    assert_eq!(socket.routes(Family::V4, Some(27_392)).unwrap(), []);
    let over = socket.routes_over(Family::V6, 27_392, index).unwrap();
    assert_eq!(over.len(), 2);
    socket.apply(&route::del(&host)).unwrap();
    assert!(socket.apply(&route::del(&host)).unwrap_err().is_gone());
}

/// This prevents that two pods have the same address: the second route is refused, on any link.
#[test]
fn a_second_route_to_one_address_is_refused() {
    let (_netns, mut socket, index) = with_link();
    socket.apply(&card("d1", B)).unwrap();
    let other = socket.link_by_name("d1").unwrap().unwrap().index;
    let route = |oif| route::add(&Route::link(Ipv6Net::from(POD), oif, 27_392));
    socket.apply(&route(index)).unwrap();
    assert!(socket.apply(&route(other)).unwrap_err().is(Errno::EEXIST));
}

#[test]
fn neighbours_and_rules_are_the_familys_own() {
    let (_netns, mut socket, index) = with_link();
    socket
        .apply(&neigh::set_permanent(index, GATEWAY, B))
        .unwrap();
    let expected = Neighbour {
        index,
        address: GATEWAY.into(),
        mac: B,
        permanent: true,
    };
    let found = socket.neighbours(Family::V6, Some(index)).unwrap();
    assert!(found.contains(&expected), "{found:?}");
    assert_eq!(socket.neighbours(Family::V4, Some(index)).unwrap(), []);

    let rule = Rule::all(Family::V6, 512, 27_392);
    socket.apply(&rule::add(&rule)).unwrap();
    assert!(socket.rules(Family::V6).unwrap().contains(&rule));
    let other = socket.rules(Family::V4).unwrap();
    assert!(other.iter().all(|r| r.priority != 512), "{other:?}");
}

#[test]
fn a_link_may_be_kept_from_addresses_of_its_own() {
    let (host, pod) = (netns(), netns());
    let mut socket = socket_in(&host);
    let pair = link::add_veth(&end("near"), &end("far"), Some(pod.as_fd()));
    let quiet = link::set_no_own_ipv6_by_name("near");
    socket.batch(&[pair, quiet]).unwrap().ok().unwrap();
    let mut inside = socket_in(&pod);
    let far = inside.link_by_name("far").unwrap().unwrap().index;
    let bring_up = [link::set_no_own_ipv6(far), link::up(far)];
    inside.batch(&bring_up).unwrap().ok().unwrap();
    let near = socket.link_by_name("near").unwrap().unwrap();
    assert!(near.up);
    assert_eq!(socket.addresses(Family::V6, Some(near.index)).unwrap(), []);
    assert_eq!(inside.addresses(Family::V6, Some(far)).unwrap(), []);
}
