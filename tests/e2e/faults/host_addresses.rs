//! Addresses of the pool that something configured on the host: an agent, DHCP, or a VIP manager.

use std::{net::IpAddr, time::Duration};

use datapath::netlink::{
    self, Request, Socket,
    addr::{self, Address},
};
use lab::{
    Lab,
    node::{Node, inspect::inspect},
    wait::eventually,
};
use proto::v1;
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(an_address_that_the_host_has_goes_to_no_pod_until_the_host_drops_it);

/// More than the daemon's round, in case the kernel's message was lost.
const LIMIT: Duration = Duration::from_secs(90);

fn addresses(node: &Node) -> std::io::Result<Vec<(IpAddr, v1::Address)>> {
    let snapshot = inspect(&node.socket())?;
    let all = snapshot.enis.into_iter().flat_map(|eni| eni.addresses);
    let read = |address: v1::Address| {
        let four = <[u8; 4]>::try_from(address.address.as_slice()).ok()?;
        Some((IpAddr::from(four), address))
    };
    Ok(all.filter_map(read).collect())
}

/// Whether the pool has `address` in `state`, and whether the host uses it.
fn seen(node: &Node, address: IpAddr, state: &str, host_uses: bool) -> bool {
    addresses(node).is_ok_and(|all| {
        all.iter().any(|(own, view)| {
            *own == address && view.state == state && view.host_uses == host_uses
        })
    })
}

fn on_loopback(node: &Node, address: IpAddr, request: fn(&Address) -> Request) -> Outcome {
    node.netns().run(|| -> Result<(), netlink::Error> {
        let mut socket = Socket::open()?;
        let lo = socket.link_by_name("lo")?.map_or(1, |link| link.index);
        socket.apply(&request(&Address::host(lo, address)))
    })??;
    Ok(())
}

fn an_address_that_the_host_has_goes_to_no_pod_until_the_host_drops_it() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    // The primary ENI's three addresses, and no more.
    let settings = [("WARM_IP_TARGET", "3"), ("MAX_ENI", "1")];
    let node = lab.node("t3.small", &settings)?;
    let free = || -> Vec<IpAddr> {
        let all = addresses(&node).unwrap_or_default();
        let free = all.iter().filter(|(_, view)| view.state == "free");
        free.map(|(own, _)| *own).collect()
    };
    assert!(eventually(LIMIT, || free().len() == 3));
    let own = free()[0];

    on_loopback(&node, own, addr::add)?;
    assert!(eventually(LIMIT, || seen(&node, own, "quarantined", true)));
    for name in ["a", "b"] {
        assert_ne!(node.add_pod(name)?.address(), own);
    }
    let (_netns, path) = node.sandbox("c")?;
    let refused = node
        .invocation("ADD", "c", Some(&path))
        .conf("deadlineSeconds", serde_json::json!(2))
        .run(node.netns())?;
    assert!(!refused.succeeded(), "{refused:?}");

    on_loopback(&node, own, addr::del)?;
    assert!(eventually(LIMIT, || seen(&node, own, "free", false)));
    assert_eq!(node.add_pod("d")?.address(), own);
    Ok(())
}
