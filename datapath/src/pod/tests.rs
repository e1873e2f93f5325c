//! Tests with real pods. iproute2, not our own code, checks that nothing is left over.

mod bandwidth;
mod egress;
mod names;
mod refused;
mod repair;
mod secondary;

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use ipnet::IpNet;
use nettypes::EniIndex;

use super::*;
use crate::constants::{GATEWAY, GROUP_BASE, GROUP_DYING, PODS_TABLE, RULE_PODS};
use crate::netlink::link::{Change, InetConf};
use crate::netlink::rule::Rule;
use crate::netlink::{Errno, Mac, Socket, addr, link, route, rule};
use crate::netns::Netns;
use crate::testing::{keep_only_net_admin, netns, run_in, snapshot, socket_in};
use crate::uplink::Uplink;

/// A host, and one pod that is not wired yet.
struct Lab {
    host_ns: Netns,
    host: Socket,
    pod_ns: Netns,
    pod: Socket,
}

impl Lab {
    fn new() -> Self {
        let host_ns = netns();
        let host = socket_in(&host_ns);
        let (pod_ns, pod) = pod();
        Self {
            host_ns,
            host,
            pod_ns,
            pod,
        }
    }

    fn add(&mut self, link: &PodLink) -> Result<Wiring, AddError> {
        add(
            &mut self.host,
            &mut self.pod,
            self.pod_ns.as_fd(),
            link,
            None,
        )
    }

    /// Of the link that has the pod's name.
    fn check(&mut self, link: &PodLink) -> Vec<Drift> {
        let named = self.host.link_by_name(&link.host_name).unwrap();
        self.check_at(link, named.map_or(4711, |named| named.index))
    }

    fn check_at(&mut self, link: &PodLink, host_index: u32) -> Vec<Drift> {
        check(&mut self.host, &mut self.pod, link, host_index).unwrap()
    }

    fn snapshot(&self) -> (String, String) {
        (snapshot(&self.host_ns), snapshot(&self.pod_ns))
    }

    /// `add` must fail and leave both namespaces unchanged.
    fn refuses(&mut self, link: &PodLink) -> AddError {
        let before = self.snapshot();
        let error = self.add(link).unwrap_err();
        assert_eq!(self.snapshot(), before, "after {error}");
        error
    }
}

fn pod() -> (Netns, Socket) {
    let netns = netns();
    let socket = socket_in(&netns);
    (netns, socket)
}

fn pod_link(i: u8) -> PodLink {
    PodLink {
        host_name: upstream_host_name("eni", "lab", &format!("pod-{i}")),
        owner: format!("hawser lab/sandbox-{i}/eth0"),
        pod_name: "eth0".to_owned(),
        address: [10, 0, 0, i].into(),
        mtu: 9001,
        uplink: Uplink::Eni(EniIndex::new(1).unwrap()),
        host_mac: Mac::local([0, 0, 0, 0, 0, i]),
        pod_mac: Mac::local([4, 0, 0, 0, 0, i]),
        secondary: false,
        asked: nettypes::Asked::default(),
        egress: None,
    }
}

fn reference(link: &PodLink, wired: &Wiring) -> PodRef {
    PodRef {
        host_index: wired.host_index,
        address: link.address,
        egress: None,
        ports: Vec::new(),
    }
}

/// Lines without their padding.
fn lines(text: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(words).collect()
}

#[test]
fn a_wired_pod_looks_right_to_iproute2() {
    let mut lab = Lab::new();
    let link = pod_link(5);
    let wired = lab.add(&link).unwrap();
    assert_eq!(lab.check(&link), []);

    let in_pod = run_in(
        &lab.pod_ns,
        &[
            "sh",
            "-c",
            "ip -o -4 a show eth0 | cut -d'\\' -f1; ip r; ip n",
        ],
    );
    let peer = lab.host.link_by_index(wired.host_index).unwrap().unwrap();
    assert_eq!(peer.peer, Some(wired.pod_index));
    assert_eq!(
        lines(&in_pod),
        [
            &format!(
                "{}: eth0 inet 10.0.0.5/32 scope global eth0",
                wired.pod_index
            ),
            "default via 169.254.1.1 dev eth0 proto 107",
            "169.254.1.1 dev eth0 proto 107 scope link",
            "169.254.1.1 dev eth0 lladdr 02:00:00:00:00:05 PERMANENT",
        ]
    );
    let show = format!("ip r show table 27392; ip n show dev {}", link.host_name);
    assert_eq!(
        lines(&run_in(&lab.host_ns, &["sh", "-c", &show])),
        [
            &format!("10.0.0.5 dev {} proto 107 scope link", link.host_name),
            "10.0.0.5 lladdr 06:00:00:00:00:05 PERMANENT",
        ]
    );
}

/// The same is true for a kernel that was started with `ipv6.disable=1`: in both cases the kernel has no IPv6 to
/// configure.
#[test]
fn a_link_that_is_too_small_for_ipv6_is_wired_for_ipv4() {
    let mut lab = Lab::new();
    let link = PodLink {
        mtu: 1000,
        ..pod_link(5)
    };
    let wired = lab.add(&link).unwrap();
    assert_eq!(lab.check(&link), []);
    unroute(&mut lab.host, &reference(&link, &wired)).unwrap();
    unlink(&mut lab.host, wired.host_index).unwrap();

    let link = PodLink {
        address: "fd00::5".parse().unwrap(),
        ..link
    };
    let before = lab.snapshot();
    let error = lab.add(&link).unwrap_err();
    assert!(
        matches!(
            error,
            AddError::Refused {
                step: Step::PodSide,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn add_then_del_leaves_nothing() {
    let mut lab = Lab::new();
    let before = lab.snapshot();
    let link = pod_link(5);
    let wired = lab.add(&link).unwrap();
    assert_ne!(lab.snapshot(), before);

    unroute(&mut lab.host, &reference(&link, &wired)).unwrap();
    assert_eq!(
        lab.check(&link),
        [Drift::HostRouteMissing {
            address: link.address
        }]
    );
    unlink(&mut lab.host, wired.host_index).unwrap();
    assert_eq!(lab.snapshot(), before);

    // Again, and for a pod that never existed: a missing object is a success.
    for host_index in [wired.host_index, 4711] {
        let never = PodRef {
            host_index,
            address: link.address,
            egress: None,
            ports: Vec::new(),
        };
        unroute(&mut lab.host, &never).unwrap();
        unlink(&mut lab.host, host_index).unwrap();
        unlink_many(&mut lab.host, &[host_index]).unwrap();
    }
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn a_late_repetition_of_del_does_not_cut_off_the_next_owner() {
    let mut lab = Lab::new();
    let first = pod_link(5);
    let late = reference(&first, &lab.add(&first).unwrap());
    unroute(&mut lab.host, &late).unwrap();

    // Of the same pod, so with the same name.
    let (second_ns, mut second_pod) = pod();
    let second = PodLink {
        owner: "hawser lab/second/eth0".to_owned(),
        ..first.clone()
    };
    let wired = add(
        &mut lab.host,
        &mut second_pod,
        second_ns.as_fd(),
        &second,
        None,
    )
    .unwrap();
    unroute(&mut lab.host, &late).unwrap();
    unlink(&mut lab.host, late.host_index).unwrap();
    unlink_many(&mut lab.host, &[late.host_index]).unwrap();
    unroute(&mut lab.host, &late).unwrap();
    let found = check(&mut lab.host, &mut second_pod, &second, wired.host_index);
    assert_eq!(found.unwrap(), []);
}

#[test]
fn many_links_go_together_and_only_they() {
    let mut lab = Lab::new();
    let stays = pod_link(1);
    lab.add(&stays).unwrap();
    let pods: Vec<_> = (2..6).map(|i| (pod(), pod_link(i))).collect();
    let mut indices = vec![4711];
    for ((ns, _), link) in &pods {
        let wired = add(&mut lab.host, &mut socket_in(ns), ns.as_fd(), link, None);
        indices.push(wired.unwrap().host_index);
    }
    unlink_many(&mut lab.host, &indices).unwrap();
    let left: Vec<_> = list(&mut lab.host)
        .unwrap()
        .into_iter()
        .map(|s| s.name)
        .collect();
    assert_eq!(left, std::slice::from_ref(&stays.host_name));
    assert_eq!(lab.check(&stays), []);
}

#[test]
fn links_doomed_before_a_crash_are_no_pods_and_go_with_the_next() {
    let mut lab = Lab::new();
    let link = pod_link(5);
    let wired = lab.add(&link).unwrap();
    let doom = Change {
        group: Some(GROUP_DYING),
        ..Change::default()
    };
    lab.host.apply(&link::set(wired.host_index, &doom)).unwrap();
    assert_eq!(list(&mut lab.host).unwrap(), []);
    unlink_many(&mut lab.host, &[]).unwrap();
    assert_eq!(lab.host.link_by_index(wired.host_index).unwrap(), None);
}

#[test]
fn the_end_of_the_namespace_takes_everything_along() {
    let mut lab = Lab::new();
    let before = snapshot(&lab.host_ns);
    let mut monitor =
        crate::netlink::Monitor::open_in(&lab.host_ns, &[crate::netlink::Topic::Links]).unwrap();
    lab.add(&pod_link(5)).unwrap();
    let Lab {
        host_ns,
        mut host,
        pod_ns,
        pod,
    } = lab;
    drop((pod_ns, pod));
    while !list(&mut host).unwrap().is_empty() {
        monitor
            .next(Duration::from_secs(10))
            .unwrap()
            .expect("the kernel cleans up within seconds");
    }
    assert_eq!(snapshot(&host_ns), before);
}

#[test]
fn every_drift_is_named() {
    let mut lab = Lab::new();
    let want = pod_link(5);
    let wired = lab.add(&want).unwrap();
    let (host, pod) = (wired.host_index, wired.pod_index);
    let address = want.address;

    // The kernel removes a link's neighbours when its MAC address changes.
    let mac = Mac([2, 9, 9, 9, 9, 9]);
    let change = Change {
        mtu: Some(1500),
        mac: Some(mac),
        group: Some(GROUP_BASE),
        alias: Some("uplink"),
        ..Change::default()
    };
    lab.host.apply(&link::set(host, &change)).unwrap();
    lab.host
        .apply(&link::set_inet_conf(host, &[(InetConf::RpFilter, 0)]))
        .unwrap();
    lab.host
        .apply(&route::del_by_dst(IpNet::from(address), PODS_TABLE))
        .unwrap();
    let side = Side::Host;
    let on_host = vec![
        Drift::Mtu {
            side,
            want: 9001,
            have: 1500,
        },
        Drift::Mac {
            side,
            want: want.host_mac,
            have: Some(mac),
        },
        Drift::Group {
            want: GROUP_BASE + 1,
            have: GROUP_BASE,
        },
        Drift::Owner,
        Drift::RpFilter { have: 0 },
        Drift::HostRouteMissing { address },
        Drift::NeighbourMissing { side, address },
    ];
    assert_eq!(lab.check(&want), on_host);

    lab.pod
        .apply(&addr::del(&addr::Address::host(pod, address)))
        .unwrap();
    lab.pod
        .apply(&link::set(
            pod,
            &Change {
                up: Some(false),
                ..Change::default()
            },
        ))
        .unwrap();
    let side = Side::Pod;
    let on_pod = [
        Drift::LinkDown { side },
        Drift::AddressMissing { address },
        Drift::GatewayRouteMissing,
        Drift::DefaultRouteMissing,
        Drift::NeighbourMissing {
            side,
            address: GATEWAY.into(),
        },
    ];
    let drift = lab.check(&want);
    assert!(
        on_pod.iter().chain(&on_host).all(|d| drift.contains(d)),
        "{drift:?}"
    );
    assert_eq!(drift.len(), on_pod.len() + on_host.len());

    unlink(&mut lab.host, wired.host_index).unwrap();
    let both = [Side::Host, Side::Pod].map(|side| Drift::LinkMissing { side });
    assert_eq!(lab.check(&want), both);
}

#[test]
fn pods_are_found_again() {
    let mut lab = Lab::new();
    let link = pod_link(5);
    let wired = lab.add(&link).unwrap();
    let stranger = link::End {
        group: 0,
        ..pod_link(9).host_end("x")
    };
    lab.host
        .apply(&link::add_veth(
            &stranger,
            &link::End {
                name: "y",
                ..stranger
            },
            None,
        ))
        .unwrap();
    let found = HostSide {
        ifindex: wired.host_index,
        name: link.host_name.clone(),
        owner: Some(link.owner.clone()),
        uplink: Uplink::Eni(EniIndex::new(1).unwrap()),
        mac: Some(link.host_mac),
        address: Some(link.address),
        egress: None,
        ports: Vec::new(),
    };
    assert_eq!(list(&mut lab.host).unwrap(), std::slice::from_ref(&found));
    unroute(&mut lab.host, &reference(&link, &wired)).unwrap();
    assert_eq!(
        list(&mut lab.host).unwrap(),
        [HostSide {
            address: None,
            ..found
        }]
    );
}

/// This proves that the daemon needs only `CAP_NET_ADMIN`: it wires pods although `setns` fails.
#[test]
fn net_admin_is_enough() {
    let Lab {
        host_ns,
        mut host,
        pod_ns,
        mut pod,
    } = Lab::new();
    let link = pod_link(5);
    let before = snapshot(&host_ns);
    std::thread::scope(|scope| {
        let unprivileged = || {
            keep_only_net_admin();
            let refused = pod_ns.run(|| ()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
            let wired = add(&mut host, &mut pod, pod_ns.as_fd(), &link, None).unwrap();
            let found = check(&mut host, &mut pod, &link, wired.host_index);
            assert_eq!(found.unwrap(), []);
            unroute(&mut host, &reference(&link, &wired)).unwrap();
            unlink(&mut host, wired.host_index).unwrap();
        };
        scope.spawn(unprivileged).join().unwrap();
    });
    assert_eq!(snapshot(&host_ns), before);
}

/// Two pods of one host exchange packets; packets with another pod's address are dropped. The test needs no timeout:
/// the valid datagram was sent after the forged one and arrives first.
#[test]
fn a_pod_cannot_use_another_pods_address() {
    let mut lab = Lab::new();
    lab.host
        .apply(&rule::add(&Rule::all(
            crate::netlink::Family::V4,
            RULE_PODS,
            PODS_TABLE,
        )))
        .unwrap();
    // A new namespace may inherit the machine's settings.
    run_in(
        &lab.host_ns,
        &[
            "sysctl",
            "-qw",
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.rp_filter=0",
        ],
    );
    let (receiver_ns, mut receiver) = pod();
    let wired = lab.add(&pod_link(5)).unwrap();
    add(
        &mut lab.host,
        &mut receiver,
        receiver_ns.as_fd(),
        &pod_link(6),
        None,
    )
    .unwrap();
    let forged = IpAddr::from([10, 0, 0, 77]);
    lab.pod
        .apply(&addr::add(&addr::Address::host(wired.pod_index, forged)))
        .unwrap();

    let inbox = receiver_ns
        .run(|| UdpSocket::bind((pod_link(6).address, 7000)).unwrap())
        .unwrap();
    inbox
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    for source in [forged, pod_link(5).address] {
        let outbox = lab
            .pod_ns
            .run(|| UdpSocket::bind((source, 0)).unwrap())
            .unwrap();
        outbox
            .send_to(source.to_string().as_bytes(), inbox.local_addr().unwrap())
            .unwrap();
    }
    let mut text = [0; 32];
    let (length, from) = inbox.recv_from(&mut text).unwrap();
    assert_eq!(
        (&text[..length], from.ip()),
        (&b"10.0.0.5"[..], pod_link(5).address)
    );
}
