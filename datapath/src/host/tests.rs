//! Tests the node's network: a real host namespace with two ENIs, each on its own wire.

mod foreign;
mod ipv6;
mod reconciler;
mod traffic;
mod upgrade;

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use nettypes::EniIndex;

use super::*;
use crate::constants::eni_table;
use crate::marks::Marks;
use crate::netlink::addr::{self, Address};
use crate::netlink::link;
use crate::netlink::link::End;
use crate::netlink::route::{MAIN, Route};
use crate::netlink::{Error, Family, Mac, Socket};
use crate::netlink::{Monitor, Topic};
use crate::netns::Netns;
use crate::nft::{Egress, Snat, SourcePorts};
use crate::pod::{self, PodLink};
use crate::testing::{keep_only_net_admin, netns, run_in, snapshot, socket_in};
use crate::uplink::Uplink;

const MARKS: Marks = Marks::DEFAULT;
const PATIENCE: Duration = Duration::from_secs(5);

struct Lab {
    host: Netns,
    socket: Socket,
    /// The wires, with the VPC's router at the far end of each.
    wires: [Netns; 2],
}

fn mac(i: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, i])
}

fn config() -> HostConfig {
    HostConfig {
        pods: Family::V4,
        block_metadata: false,
        primary: EniLink {
            mac: mac(0),
            address: Ipv4Addr::new(10, 0, 0, 10),
            table: eni_table(0, 0),
            index: EniIndex::PRIMARY,
            ..eni()
        },
        egress: Egress {
            local: vec!["10.0.0.0/16".parse().unwrap()],
            snat: Some(Snat {
                to: Ipv4Addr::new(10, 0, 0, 10),
                ports: SourcePorts::Random,
            }),
            node_ports: true,
            ..Egress::default()
        },
    }
}

fn eni() -> EniLink {
    EniLink {
        mac: mac(1),
        address: Ipv4Addr::new(10, 0, 0, 20),
        subnet: "10.0.0.0/24".parse().unwrap(),
        table: eni_table(0, 1),
        index: EniIndex::new(1).unwrap(),
        mtu: 9001,
    }
}

impl Lab {
    /// `eth0` has its address and default route, as after boot; `eth1` was just attached and is down.
    fn new() -> Self {
        let host = netns();
        let mut socket = socket_in(&host);
        let wires = [netns(), netns()];
        for (i, wire) in (0..).zip(&wires) {
            let name = format!("eth{i}");
            let near = End {
                name: &name,
                mtu: None,
                mac: Some(mac(i)),
                group: 0,
                up: i == 0,
            };
            let far = End {
                name: "wire",
                mac: None,
                up: false,
                ..near
            };
            socket
                .apply(&link::add_veth(&near, &far, Some(wire.as_fd())))
                .unwrap();
            let router = "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.wire.rp_filter=0; \
                          ip link set wire mtu 9001 up; ip addr add 10.0.0.1/24 dev wire";
            run_in(wire, &["sh", "-ec", router]);
        }
        let boot = "sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.rp_filter=0; \
                    ip addr add 10.0.0.10/24 dev eth0; ip route add default via 10.0.0.1";
        run_in(&host, &["sh", "-ec", boot]);
        Self {
            host,
            socket,
            wires,
        }
    }

    /// Runs in the host's namespace, as the daemon does.
    fn on_host<R: Send>(&mut self, f: impl FnOnce(&mut Socket) -> R + Send) -> R {
        let socket = &mut self.socket;
        self.host.run(|| f(socket)).unwrap()
    }

    fn set_up(&mut self) {
        self.on_host(|socket| {
            prepare(socket, &config()).unwrap();
            add_eni(socket, &eni(), MARKS, PATIENCE).unwrap();
        });
    }

    fn show(&self, command: &str) -> Vec<String> {
        let text = run_in(&self.host, &["sh", "-ec", command]);
        text.lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }

    fn add_pod(&mut self, i: u8, index: u16) -> Netns {
        let netns = netns();
        let link = pod_link(i, index);
        pod::add(
            &mut self.socket,
            &mut socket_in(&netns),
            netns.as_fd(),
            &link,
            Some([10, 0, 0, 10].into()),
        )
        .unwrap();
        netns
    }
}

fn pod_link(i: u8, index: u16) -> PodLink {
    PodLink {
        host_name: pod::upstream_host_name("eni", "lab", &format!("pod-{i}")),
        owner: format!("hawser lab/sandbox-{i}/eth0"),
        pod_name: "eth0".to_owned(),
        address: [10, 0, 0, i].into(),
        mtu: 9001,
        uplink: Uplink::Eni(EniIndex::new(index).unwrap()),
        host_mac: Mac::local([0, 0, 0, 0, 0, i]),
        pod_mac: Mac::local([4, 0, 0, 0, 0, i]),
        secondary: false,
        asked: nettypes::Asked::default(),
        egress: None,
    }
}

#[test]
fn a_node_is_set_up_as_designed() {
    let mut lab = Lab::new();
    lab.set_up();
    assert_eq!(
        lab.show("ip rule"),
        [
            "0: from all lookup local",
            "512: from all lookup 27392 proto 107",
            "1020: from all iif lo goto 1540 proto 107",
            "1022: from all fwmark 0x80/0x80 lookup main suppress_prefixlength 7 suppress_ifgroup 27646 proto 107",
            "1024: from all fwmark 0x80/0x80 lookup 1 proto 107",
            "1536: from all fwmark 0x7f/0x7f lookup 1 proto 107",
            "1536: from all fwmark 0x7e/0x7f lookup 2 proto 107",
            "1540: from all nop proto 107",
            "32765: from 10.0.0.20 lookup 2 proto 107",
            "32766: from all lookup main",
            "32767: from all lookup default",
        ]
    );
    for (table, eni) in [(1, "eth0"), (2, "eth1")] {
        assert_eq!(
            lab.show(&format!("ip route show table {table}")),
            [
                format!("default via 10.0.0.1 dev {eni} proto 107"),
                format!("10.0.0.1 dev {eni} proto 107 scope link"),
            ]
        );
    }
    assert_eq!(
        lab.show("ip route"),
        [
            "default via 10.0.0.1 dev eth0",
            "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.10"
        ]
    );
    let settings = "cd /proc/sys/net/ipv4; cat ip_forward conf/eth0/rp_filter conf/eth1/rp_filter; \
                    cat /sys/class/net/eth0/mtu 2>/dev/null || true";
    assert_eq!(lab.show(settings)[..3], ["1", "2", "2"]);
    let links = lab.socket.links().unwrap();
    let mtus: Vec<_> = links
        .iter()
        .filter(|l| l.name.starts_with("eth"))
        .map(|l| (l.mtu, l.up))
        .collect();
    assert_eq!(mtus, [(9001, true), (9001, true)]);
    let marks = lab.show("nft list chain ip hawser choose_eni").join(" ");
    assert!(marks.contains("jump mark_eni"), "{marks}");
}

#[test]
fn disabled_settings_are_removed_and_restored() {
    let mut lab = Lab::new();
    lab.set_up();
    let on = lab.show("ip rule; nft list ruleset");
    let off = HostConfig {
        egress: Egress::default(),
        ..config()
    };
    lab.on_host(|socket| prepare(socket, &off).unwrap());
    let rules = lab.show("ip rule; nft list ruleset").join("\n");
    for gone in ["source_nat", "nodeport_in", "10.0.0.0/16", "ct state"] {
        assert!(!rules.contains(gone), "{gone} in {rules}");
    }
    // Host ports mark connections with every setting.
    for there in ["jump mark_eni", "1022:", "1024:", "ct mark"] {
        assert!(rules.contains(there), "{there} is not in {rules}");
    }
    lab.set_up();
    assert_eq!(lab.show("ip rule; nft list ruleset"), on);
}

#[test]
fn another_mark_takes_the_place_of_the_first() {
    let mut lab = Lab::new();
    lab.show("ip rule add pref 1024 fwmark 0x80/0x80 lookup 77");
    lab.set_up();
    let egress = Egress {
        marks: Marks::new(0x100, 0x7f).unwrap(),
        ..config().egress
    };
    let moved = HostConfig { egress, ..config() };
    lab.on_host(|socket| prepare(socket, &moved).unwrap());
    let rules = lab.show("ip rule | grep ^1024");
    let wanted = [
        "1024: from all fwmark 0x80/0x80 lookup 77",
        "1024: from all fwmark 0x100/0x100 lookup 1 proto 107",
    ];
    assert_eq!(rules, wanted, "somebody else's rule stays");
}

#[test]
fn the_local_destinations_change_alone_and_heal() {
    let mut lab = Lab::new();
    lab.set_up();
    let mut prepared = config();
    let mut update = |lab: &mut Lab, local: &[&str]| {
        let local = local.iter().map(|net| net.parse().unwrap()).collect();
        lab.on_host(|socket| update_local(socket, &mut prepared, local).unwrap());
    };
    let handles = "for chain in choose_eni source_nat nodeport_in; do nft -a list chain ip hawser $chain; done";
    let before = lab.show(handles);
    update(&mut lab, &["10.0.0.0/16", "100.64.0.0/16"]);
    let local = |lab: &Lab| {
        ["leaving", "translated"].map(|chain| {
            let rules = lab.show(&format!("nft list chain ip hawser {chain}"));
            rules
                .into_iter()
                .filter(|rule| rule.starts_with("ip daddr "))
                .collect::<Vec<_>>()
        })
    };
    let two = [
        "ip daddr 10.0.0.0/16 return",
        "ip daddr 100.64.0.0/16 return",
    ];
    assert_eq!(local(&lab), [two, two]);
    assert_eq!(lab.show(handles), before);
    // Another program was faster, or undid the change, or removed everything.
    for meddle in [
        "insert rule ip hawser leaving ip daddr 100.65.0.0/16 return",
        "flush chain ip hawser translated",
        "delete table ip hawser",
    ] {
        lab.show(&format!("nft '{meddle}'"));
        update(&mut lab, &["100.64.0.0/10"]);
        update(&mut lab, &["10.0.0.0/16"]);
        let one = ["ip daddr 10.0.0.0/16 return"];
        assert_eq!(local(&lab), [one, one], "after {meddle}");
    }
}

#[test]
fn setting_up_again_changes_nothing_and_takes_nothing_away_in_between() {
    let mut lab = Lab::new();
    lab.set_up();
    let before = snapshot(&lab.host);
    let topics = [Topic::Links, Topic::Addresses, Topic::Routes, Topic::Rules];
    let mut monitor = Monitor::open_in(&lab.host, &topics).unwrap();
    lab.set_up();
    assert_eq!(
        monitor.next(Duration::ZERO).unwrap(),
        None,
        "not even a notification"
    );
    assert_eq!(snapshot(&lab.host), before);
}

#[test]
fn differences_are_repaired() {
    let mut lab = Lab::new();
    lab.set_up();
    let right = snapshot(&lab.host);
    let meddle = "ip rule del pref 512; ip rule add pref 512 lookup 500 proto 107; \
                  ip rule del pref 1536 fwmark 0x7e/0x7f; ip rule add pref 1536 fwmark 0x7e/0x7f lookup 7 proto 107; \
                  ip rule add pref 32765 from 10.0.0.99 lookup 2 proto 107; \
                  ip route replace default via 10.0.0.1 dev eth1 mtu 1200 proto static table 2; \
                  ip route add 10.9.0.0/16 dev eth1 proto 107 table 2; \
                  ip addr del 10.0.0.20/24 dev eth1; ip addr add 10.0.0.33/24 dev eth1; \
                  ip addr add 10.0.0.20/24 dev eth1; ip link set eth1 mtu 1500; \
                  sysctl -qw net.ipv4.conf.eth1.rp_filter=1 net.ipv4.ip_forward=0; nft delete table ip hawser";
    lab.show(meddle);
    assert_ne!(snapshot(&lab.host), right);
    lab.set_up();
    assert_eq!(snapshot(&lab.host), right);
    assert_eq!(
        lab.show("cat /proc/sys/net/ipv4/conf/eth1/rp_filter"),
        ["2"]
    );
}

#[test]
fn objects_of_others_stay() {
    let mut lab = Lab::new();
    let foreign = "ip rule add pref 512 to 10.0.0.200 lookup main; ip rule add pref 1536 from 10.0.0.200 lookup 2; \
                   ip route add 192.0.2.0/24 dev eth0 table 2; nft add table ip theirs";
    lab.show(foreign);
    lab.set_up();
    lab.on_host(|socket| remove_eni(socket, eni().table).unwrap());
    let rules = lab.show("ip rule");
    assert!(
        rules.contains(&"512: from all to 10.0.0.200 lookup main".to_owned()),
        "{rules:?}"
    );
    assert!(
        rules.contains(&"1536: from 10.0.0.200 lookup 2".to_owned()),
        "{rules:?}"
    );
    assert_eq!(
        lab.show("ip route show table 2"),
        ["192.0.2.0/24 dev eth0 scope link"]
    );
    assert_eq!(
        lab.show("nft list table ip theirs"),
        ["table ip theirs {", "}"]
    );
}

#[test]
fn a_removed_eni_leaves_nothing_but_its_link() {
    let mut lab = Lab::new();
    lab.on_host(|socket| prepare(socket, &config()).unwrap());
    let rules = lab.show("ip rule; nft list ruleset");
    lab.on_host(|socket| {
        add_eni(socket, &eni(), MARKS, PATIENCE).unwrap();
        remove_eni(socket, eni().table).unwrap();
        remove_eni(socket, eni().table).unwrap();
    });
    assert_eq!(lab.show("ip rule; nft list ruleset"), rules);
    assert_eq!(
        lab.socket.routes(Family::V4, Some(eni().table)).unwrap(),
        []
    );
}

#[test]
fn an_eni_that_is_still_being_attached_is_waited_for() {
    let mut lab = Lab::new();
    let late = EniLink {
        mac: mac(9),
        ..eni()
    };
    lab.on_host(|socket| {
        prepare(socket, &config()).unwrap();
        let error = add_eni(socket, &late, MARKS, Duration::from_millis(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no network interface with MAC 02:00:00:00:01:09"
        );
    });
    let Lab { host, socket, .. } = &mut lab;
    let host: &Netns = host;
    std::thread::scope(|scope| {
        let add = || {
            host.run(|| add_eni(&mut Socket::open().unwrap(), &late, MARKS, PATIENCE))
                .unwrap()
        };
        let waiter = scope.spawn(add);
        let near = End {
            name: "eth9",
            mtu: None,
            mac: Some(late.mac),
            group: 0,
            up: false,
        };
        let far = End {
            name: "far9",
            mac: None,
            ..near
        };
        socket.apply(&link::add_veth(&near, &far, None)).unwrap();
        waiter.join().unwrap().unwrap();
    });
    assert!(
        !lab.socket
            .routes(Family::V4, Some(late.table))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_failed_setup_is_reported() {
    let mut lab = Lab::new();
    lab.on_host(|socket| {
        let no_primary = HostConfig { primary: EniLink { mac: mac(7), ..config().primary }, ..config() };
        assert!(matches!(prepare(socket, &no_primary), Err(HostError::LinkMissing { mac: m }) if m == mac(7)));
        let narrow = Marks::new(0x80, 0x0f).unwrap();
        let index = EniIndex::new(15).unwrap();
        let error = add_eni(socket, &EniLink { index, ..eni() }, narrow, PATIENCE).unwrap_err();
        assert!(matches!(error, HostError::Index { index: i, .. } if i == index));
        let elsewhere = EniLink { subnet: "10.1.0.0/24".parse().unwrap(), ..eni() };
        assert!(matches!(add_eni(socket, &elsewhere, MARKS, PATIENCE), Err(HostError::Subnet { .. })));
    });
    // On a thread in another namespace, nftables and sysctls would belong to another host.
    let error = update_local(&mut lab.socket, &mut config(), Vec::new()).unwrap_err();
    assert!(
        matches!(
            error,
            HostError::Netlink {
                source: Error::ForeignNamespace { .. },
                ..
            }
        ),
        "{error}"
    );
}

/// For the calling thread, in its own mount namespace, as in a container.
fn write_protect_settings() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(none, "/", none, private, none).unwrap();
    let bind = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some("/proc/sys"), "/proc/sys", none, bind, none).unwrap();
    let remount = bind | nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY;
    nix::mount::mount(none, "/proc/sys", none, remount, none).unwrap();
}

#[test]
fn read_only_sysctls_matter_only_where_forwarding_is_off() {
    let mut lab = Lab::new();
    let read_only = |socket: &mut Socket| {
        write_protect_settings();
        prepare(socket, &config()).map(|_| ())
    };
    let error = lab.on_host(read_only).unwrap_err();
    assert!(matches!(error, HostError::ForwardingOff { .. }), "{error}");
    lab.show("sysctl -qw net.ipv4.ip_forward=1");
    lab.on_host(read_only).unwrap();
}

/// The daemon has only this capability.
#[test]
fn net_admin_is_enough() {
    let mut lab = Lab::new();
    lab.on_host(|socket| {
        keep_only_net_admin();
        prepare(socket, &config()).unwrap();
        add_eni(socket, &eni(), MARKS, PATIENCE).unwrap();
        remove_eni(socket, eni().table).unwrap();
    });
}
