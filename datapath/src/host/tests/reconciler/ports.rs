//! Host ports come back, and those of no pod go.

use std::net::IpAddr;

use nettypes::{Asked, HostPort, Transport};

use super::*;

fn port(number: u16) -> HostPort {
    HostPort {
        transport: Transport::Tcp,
        port: number,
        address: None,
        pod_port: 80,
    }
}

/// A pod with these ports on the secondary ENI.
fn asking(i: u8, ports: &[HostPort]) -> PodLink {
    PodLink {
        asked: Asked {
            ports: ports.to_vec(),
            ..Asked::default()
        },
        ..pod_link(i, 1)
    }
}

fn add(kept: &mut Kept, link: &PodLink) -> Result<(Netns, pod::Wiring), pod::AddError> {
    let netns = netns();
    let mut pod = socket_in(&netns);
    let reconciler = &mut kept.reconciler;
    let add = || reconciler.add_pod(&mut pod, netns.as_fd(), link);
    let wired = kept.lab.host.run(add).unwrap()?;
    Ok((netns, wired))
}

fn reference(link: &PodLink, wired: &pod::Wiring) -> pod::PodRef {
    pod::PodRef {
        host_index: wired.host_index,
        address: link.address,
        egress: None,
        ports: link.asked.ports.clone(),
    }
}

fn check(kept: &mut Kept, netns: &Netns, link: &PodLink) -> Vec<String> {
    let index = kept.index_of(link);
    let mut pod = socket_in(netns);
    let drift = kept.reconciler.check_pod(&mut pod, link, index).unwrap();
    drift.iter().map(ToString::to_string).collect()
}

fn table(kept: &Kept) -> String {
    kept.lab
        .show("nft list table ip hawser_ports 2> /dev/null || true")
        .join("\n")
}

#[test]
fn host_ports_come_back() {
    let mut kept = Kept::new();
    let link = asking(22, &[port(8080), port(8081)]);
    let (netns, _) = add(&mut kept, &link).unwrap();
    // Our own change is not reported, except that the first one makes the table.
    let dirty = kept.mark_dirty();
    assert_eq!(kept.repair(&dirty), []);
    kept.right = snapshot(&kept.lab.host);
    assert_eq!(check(&mut kept, &netns, &link), [""; 0]);
    for meddle in [
        "nft flush map ip hawser_ports by_port",
        "nft delete element ip hawser_ports by_port '{ tcp . 8080 }'",
        "nft add element ip hawser_ports by_port '{ tcp . 9999 : 10.0.0.11 . 80 }'",
        "nft 'delete element ip hawser_ports by_port { tcp . 8080 }; \
         add element ip hawser_ports by_port { tcp . 8080 : 10.0.0.11 . 80 }'",
        "nft flush set ip hawser_ports to_itself",
        "nft flush table ip hawser_ports",
        "nft insert rule ip hawser_ports to_pod return",
        "nft delete table ip hawser_ports",
    ] {
        assert_eq!(kept.after(meddle), [Kind::Nftables], "{meddle}");
    }
    // The kernel does not report this change.
    let setting = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", link.host_name);
    kept.lab.show(&format!("echo 0 > {setting}"));
    assert_eq!(kept.repair(&DirtySet::all()), [Kind::Setting]);
    assert_eq!(kept.lab.show(&format!("cat {setting}")), ["1"]);
    assert_eq!(check(&mut kept, &netns, &link), [""; 0]);
    kept.lab
        .show("nft delete element ip hawser_ports by_port '{ tcp . 8080 }'");
    assert_eq!(
        check(&mut kept, &netns, &link),
        ["host port 8080/tcp does not lead to the pod"]
    );
}

#[test]
fn ports_come_and_go_with_their_pod_and_cause_no_doubt() {
    let mut kept = Kept::new();
    assert_eq!(table(&kept), "", "no pod has ports");
    let first = asking(22, &[port(8080)]);
    let _first = add(&mut kept, &first).unwrap();
    drop(kept.mark_dirty());
    let before = snapshot(&kept.lab.host);
    let link = asking(23, &[port(8081), port(8082)]);
    let (_netns, wired) = add(&mut kept, &link).unwrap();
    assert!(
        table(&kept).contains("tcp . 8082 : 10.0.0.23 . 80"),
        "{}",
        table(&kept)
    );
    assert_eq!(kept.mark_dirty(), DirtySet::default());
    assert_eq!(kept.repair(&DirtySet::all()), []);
    let gone = reference(&link, &wired);
    kept.reconciler.remove_pod(&gone).1.unwrap();
    // A repetition, and one whose ports are another pod's by now.
    kept.reconciler.remove_pod(&gone).1.unwrap();
    let other = asking(24, &[port(8081)]);
    let (_other, rewired) = add(&mut kept, &other).unwrap();
    kept.reconciler.remove_pod(&gone).1.unwrap();
    assert!(
        table(&kept).contains("tcp . 8081 : 10.0.0.24 . 80"),
        "{}",
        table(&kept)
    );
    kept.reconciler
        .remove_pod(&reference(&other, &rewired))
        .1
        .unwrap();
    for index in [wired.host_index, rewired.host_index] {
        pod::unlink(kept.reconciler.socket(), index).unwrap();
    }
    assert_eq!(kept.mark_dirty(), DirtySet::default());
    assert_eq!(snapshot(&kept.lab.host), before);
}

#[test]
fn an_add_that_fails_at_its_ports_leaves_nothing() {
    let mut kept = Kept::new();
    let first = asking(22, &[port(8080)]);
    let _first = add(&mut kept, &first).unwrap();
    let before = snapshot(&kept.lab.host);
    let rival = asking(23, &[port(8081), port(8080)]);
    let error = add(&mut kept, &rival).unwrap_err();
    assert!(error.to_string().starts_with("HostPorts"), "{error:?}");
    assert_eq!(snapshot(&kept.lab.host), before);
}

#[test]
fn a_port_that_a_program_uses_is_refused_and_leaves_nothing() {
    let mut kept = Kept::new();
    kept.lab.show("ip link set lo up");
    let before = snapshot(&kept.lab.host);
    let bind = || std::net::TcpListener::bind("127.0.0.1:8080").unwrap();
    let _listener = kept.lab.host.run(bind).unwrap();
    let error = add(&mut kept, &asking(22, &[port(8080)])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "host port 8080/tcp is used by a program on the node, which has 127.0.0.1:8080"
    );
    assert_eq!(snapshot(&kept.lab.host), before);
}

/// An ADD or a DEL that died may leave an element of no pod, and the next ADD may want it.
#[test]
fn an_element_of_no_pod_gives_way() {
    let mut kept = Kept::new();
    let _first = add(&mut kept, &asking(22, &[port(8080)])).unwrap();
    kept.lab
        .show("nft add element ip hawser_ports by_port '{ tcp . 8081 : 10.0.0.99 . 80 }'");
    let _second = add(&mut kept, &asking(23, &[port(8081)])).unwrap();
    assert!(
        table(&kept).contains("tcp . 8081 : 10.0.0.23 . 80"),
        "{}",
        table(&kept)
    );
}

#[test]
fn a_restart_keeps_the_ports_of_its_pods_and_removes_others() {
    let mut kept = Kept::new();
    let (kept_link, lost) = (asking(22, &[port(8080)]), asking(23, &[port(8081)]));
    let _one = add(&mut kept, &kept_link).unwrap();
    let (_two, wired) = add(&mut kept, &lost).unwrap();
    let before = table(&kept);
    let take_over = |kept: &mut Kept, pods: &[&PodLink]| {
        let pods: Vec<_> = pods
            .iter()
            .map(|link| WiredPod::of(link, kept.index_of(link)))
            .collect();
        kept.lab.on_host(|_| {
            let mut next = Reconciler::take_over(Socket::open().unwrap(), config()).unwrap();
            let listed = next.list_pods().unwrap();
            let ports: Vec<_> = listed.into_iter().flat_map(|pod| pod.ports).collect();
            pods.into_iter().for_each(|pod| next.keep_pod(pod));
            next.repair_ports().unwrap();
            next.repair_ports().unwrap();
            ports
        })
    };
    assert_eq!(take_over(&mut kept, &[&kept_link, &lost]).len(), 2);
    assert_eq!(table(&kept), before);
    assert_eq!(take_over(&mut kept, &[&kept_link]).len(), 2);
    let after = table(&kept);
    assert!(
        after.contains("tcp . 8080 : 10.0.0.22 . 80") && !after.contains("10.0.0.23"),
        "{after}"
    );
    take_over(&mut kept, &[]);
    assert_eq!(table(&kept), "");
    drop(wired);
}

#[test]
fn an_uninstallation_removes_the_table() {
    let mut kept = Kept::new();
    let _pod = add(&mut kept, &asking(22, &[port(8080)])).unwrap();
    assert_ne!(table(&kept), "");
    kept.lab.on_host(|socket| uninstall(socket).unwrap());
    assert_eq!(table(&kept), "");
}

/// kube-proxy in its mode `ipvs` adds an address for each service.
#[test]
fn addresses_of_services_are_left_out_as_they_come_and_go() {
    let mut kept = Kept::new();
    kept.lab
        .show("ip link add kube-ipvs0 type bridge; ip addr add 172.20.0.1/32 dev kube-ipvs0");
    drop(kept.mark_dirty());
    let _pod = add(&mut kept, &asking(22, &[port(80)])).unwrap();
    let services = |kept: &Kept| {
        let listed = kept.lab.show("nft list set ip hawser_ports services");
        listed.into_iter().find(|line| line.starts_with("elements"))
    };
    let one = Some("elements = { 172.20.0.1 }".to_owned());
    assert_eq!(services(&kept), one);
    for (command, wanted) in [
        (
            "ip addr add 172.20.0.2/32 dev kube-ipvs0",
            Some("elements = { 172.20.0.1, 172.20.0.2 }".to_owned()),
        ),
        ("ip addr del 172.20.0.2/32 dev kube-ipvs0", one),
        ("ip link del kube-ipvs0", None),
    ] {
        kept.lab.show(command);
        let dirty = kept.mark_dirty();
        assert_eq!(kept.repair(&dirty), [Kind::Nftables], "{command}");
        assert_eq!(services(&kept), wanted, "{command}");
    }
}

#[test]
fn an_sctp_port_leads_to_its_pod_and_its_answer_back() {
    let mut kept = Kept::new();
    let port = HostPort {
        transport: Transport::Sctp,
        ..port(9000)
    };
    let (netns, _) = add(&mut kept, &asking(22, &[port])).unwrap();
    // From outside, and from the node itself.
    for (from, seen) in [
        (&kept.lab.wires[0], [10, 0, 0, 1]),
        (&kept.lab.host, [10, 0, 0, 10]),
    ] {
        let [client, server] = [from, &netns].map(|netns| sctp::raw(netns, Family::V4));
        let init = sctp::packet(1, [5000, 9000], 0);
        client.send_to(&init, "10.0.0.10:0").unwrap();
        let (ports, from) = sctp::hear(&server, 1);
        assert_eq!((ports, from), ([5000, 80], seen.into()));
        let answer = sctp::packet(2, [80, 5000], 7);
        server.send_to(&answer, (IpAddr::from(seen), 0)).unwrap();
        let (ports, from) = sctp::hear(&client, 2);
        assert_eq!((ports, from), ([9000, 5000], [10, 0, 0, 10].into()));
    }
}
