//! Any change by others makes the state doubtful, and a repair restores the same state as before.

mod asked;
mod ipv6;
mod names;
mod ports;
mod sctp;

use super::*;
use crate::constants::GROUP_DYING;
use crate::netlink::{Kind, Socket};
use crate::pod::WiredPod;

/// A managed node with a pod on each of its ENIs.
struct Kept {
    lab: Lab,
    reconciler: Reconciler,
    monitor: HostMonitor,
    /// The state that must exist after each repair.
    right: String,
    show: fn(&Netns) -> String,
    _pods: Vec<Netns>,
}

fn listen(lab: &Lab, reconciler: &mut Reconciler, pods: Family) -> HostMonitor {
    let own = [reconciler.socket().port()];
    let open = || HostMonitor::open(pods, false, &own);
    let mut monitor = lab.host.run(open).unwrap().unwrap();
    monitor.ignore_nftables(reconciler.ports_socket());
    monitor
}

impl Kept {
    fn new() -> Self {
        let mut lab = Lab::new();
        let mut reconciler = lab.on_host(|_| {
            let mut reconciler = Reconciler::take_over(Socket::open().unwrap(), config()).unwrap();
            reconciler.add_eni(eni()).unwrap();
            reconciler
        });
        let pods: Vec<_> = [(11, 0), (21, 1)]
            .map(|(i, index)| {
                let netns = netns();
                let mut pod = socket_in(&netns);
                reconciler
                    .add_pod(&mut pod, netns.as_fd(), &pod_link(i, index))
                    .unwrap();
                netns
            })
            .into();
        let monitor = listen(&lab, &mut reconciler, Family::V4);
        let right = snapshot(&lab.host);
        Self {
            lab,
            reconciler,
            monitor,
            right,
            show: snapshot,
            _pods: pods,
        }
    }

    fn index_of(&mut self, link: &PodLink) -> u32 {
        let found = self.reconciler.socket().link_by_name(&link.host_name);
        found.unwrap().expect("the link has its name").index
    }

    /// What became doubtful since the last call.
    fn mark_dirty(&mut self) -> DirtySet {
        self.mark_dirty_after(DirtySet::default())
    }

    fn mark_dirty_after(&mut self, before: DirtySet) -> DirtySet {
        self.reconciler
            .mark_dirty(&self.monitor.pending().unwrap(), before)
    }

    fn repair(&mut self, dirty: &DirtySet) -> Vec<Kind> {
        let reconciler = &mut self.reconciler;
        let repaired = self.lab.host.run(|| reconciler.repair(dirty)).unwrap();
        assert!(repaired.failures.is_empty(), "{:?}", repaired.failures);
        repaired.changed.iter().map(|(kind, _)| kind).collect()
    }

    /// Damages the node, checks that notifications arrive, repairs, and returns what was changed.
    fn after(&mut self, meddle: &str) -> Vec<Kind> {
        self.lab.show(meddle);
        let dirty = self.mark_dirty();
        assert!(dirty.needs_repair(), "{meddle} was not told");
        let changed = self.repair(&dirty);
        assert_eq!((self.show)(&self.lab.host), self.right, "after {meddle}");
        // Changes by the daemon itself may be reported if the sender is unknown. They are checked, and nothing is
        // changed.
        let next = self.mark_dirty();
        assert_eq!(self.repair(&next), [], "after {meddle}");
        assert_eq!(self.mark_dirty(), DirtySet::default(), "after {meddle}");
        changed
    }
}

#[test]
fn our_own_changes_cause_no_doubt() {
    let mut kept = Kept::new();
    assert_eq!(kept.mark_dirty(), DirtySet::default());
    assert_eq!(kept.repair(&DirtySet::all()), []);
    let mut another = pod_link(12, 1);
    another.host_name = "eni12".to_owned();
    let netns = netns();
    let mut pod = socket_in(&netns);
    let wired = kept
        .reconciler
        .add_pod(&mut pod, netns.as_fd(), &another)
        .unwrap();
    assert_eq!(kept.mark_dirty(), DirtySet::default());
    let gone = pod::PodRef {
        host_index: wired.host_index,
        address: another.address,
        egress: None,
        ports: Vec::new(),
    };
    kept.reconciler.remove_pod(&gone).1.unwrap();
    pod::unlink(kept.reconciler.socket(), gone.host_index).unwrap();
    assert_eq!(kept.mark_dirty(), DirtySet::default());
}

/// As before Linux 6.2 for every new pod: each step is reported, without the sender.
#[test]
fn the_last_notification_of_a_link_counts() {
    let mut kept = Kept::new();
    let link = pod_link(21, 1).host_name;
    kept.lab.show(&format!("ip link set {link} mtu 1400"));
    let between = kept.mark_dirty();
    assert!(between.needs_repair());
    kept.lab.show(&format!("ip link set {link} mtu 9001"));
    assert_eq!(kept.mark_dirty_after(between), DirtySet::default());
    let both = format!("ip link set {link} mtu 1400; ip link set {link} mtu 9001");
    kept.lab.show(&both);
    assert_eq!(kept.mark_dirty(), DirtySet::default());
}

#[test]
fn rules_come_back() {
    let mut kept = Kept::new();
    let flush = "for p in 512 1536 1536 32765; do ip rule del pref $p; done";
    assert_eq!(kept.after(flush), [Kind::Rule]);
}

#[test]
fn an_enis_routes_come_back() {
    let mut kept = Kept::new();
    assert_eq!(kept.after("ip route flush table 2"), [Kind::Route]);
}

#[test]
fn an_enis_address_is_restored() {
    let mut kept = Kept::new();
    // When a link loses its last address, its routes are removed.
    let kinds = kept.after("ip addr flush dev eth1");
    assert_eq!(kinds, [Kind::Address, Kind::Route]);
}

#[test]
fn enis_with_a_link_are_found_with_and_without_their_address() {
    let mut kept = Kept::new();
    let missing = (mac(9), Ipv4Addr::new(10, 0, 0, 99));
    let asked = [(eni().mac, eni().address), missing];
    let find = |kept: &mut Kept| kept.reconciler.enis_with_link(&asked).unwrap();
    assert_eq!(find(&mut kept), [eni().mac].into());
    assert!(kept.reconciler.add_present_eni(eni()).unwrap());
    kept.lab.show("ip addr flush dev eth1");
    assert_eq!(find(&mut kept), [eni().mac].into());
    assert!(!kept.reconciler.add_present_eni(eni()).unwrap());
}

#[test]
fn an_address_that_is_not_ours_goes_from_an_eni() {
    let mut kept = Kept::new();
    let kinds = kept.after("ip addr add 10.0.0.33/32 dev eth1");
    assert_eq!(kinds, [Kind::Address]);
}

/// An own change, also one in tables of others, that comes between the damage and its repair.
#[test]
fn an_own_change_does_not_hide_damage() {
    let own: [fn(&mut Reconciler); 4] = [
        |host| drop(host.release_egress_cni().unwrap()),
        |host| drop(host.remove_leftovers(&[]).unwrap()),
        |host| drop(host.remove_traces(Predecessor::AwsNode).unwrap()),
        |host| host.update_local(config().egress.local).unwrap(),
    ];
    for change in own {
        let mut kept = Kept::new();
        kept.lab.show("nft flush chain ip hawser choose_eni");
        let reconciler = &mut kept.reconciler;
        kept.lab.host.run(|| change(reconciler)).unwrap();
        let dirty = kept.mark_dirty();
        assert_eq!(kept.repair(&dirty), [Kind::Nftables]);
        assert_eq!((kept.show)(&kept.lab.host), kept.right);
    }
}

#[test]
fn nftables_come_back() {
    for meddle in [
        "nft flush ruleset",
        "nft delete table ip hawser",
        "nft flush chain ip hawser choose_eni",
        "nft insert rule ip hawser choose_eni accept",
        "nft flush chain ip hawser mark_eni",
    ] {
        assert_eq!(Kept::new().after(meddle), [Kind::Nftables], "{meddle}");
    }
}

#[test]
fn settings_come_back() {
    let mut kept = Kept::new();
    let conf = "/proc/sys/net/ipv4/conf";
    let pod = pod_link(21, 1).host_name;
    for (path, wrong, right) in [
        (format!("{conf}/eth1/rp_filter"), 1, "2"),
        (format!("{conf}/eth0/rp_filter"), 0, "2"),
        (format!("{conf}/{pod}/rp_filter"), 0, "1"),
        (format!("{conf}/eth1/forwarding"), 0, "1"),
        (format!("{conf}/{pod}/forwarding"), 0, "1"),
    ] {
        assert_eq!(
            kept.after(&format!("echo {wrong} > {path}")),
            [Kind::Setting],
            "{path}"
        );
        assert_eq!(kept.lab.show(&format!("cat {path}")), [right], "{path}");
    }
}

#[test]
fn forwarding_that_is_switched_off_is_switched_on() {
    let mut kept = Kept::new();
    // Through /proc/sys for all links at once, as it was disabled: nothing is left to do for single links.
    kept.after("echo 0 > /proc/sys/net/ipv4/ip_forward");
    assert_eq!(kept.lab.show("cat /proc/sys/net/ipv4/ip_forward"), ["1"]);
}

/// The global setting turns the pods' strict check into a loose one: nftables take over, and return the task later.
#[test]
fn the_source_check_follows_the_machines_setting() {
    let mut kept = Kept::new();
    let strict = kept.right.clone();
    kept.lab.show("sysctl -qw net.ipv4.conf.all.rp_filter=2");
    let dirty = kept.mark_dirty();
    assert_eq!(kept.repair(&dirty), [Kind::Nftables]);
    assert!(snapshot(&kept.lab.host).contains("fib saddr . iif oif missing drop"));
    kept.lab.show("sysctl -qw net.ipv4.conf.all.rp_filter=0");
    let dirty = kept.mark_dirty();
    assert_eq!(kept.repair(&dirty), [Kind::Nftables]);
    assert_eq!(snapshot(&kept.lab.host), strict);
}

#[test]
fn pods_links_are_put_right() {
    let mut kept = Kept::new();
    let pod = pod_link(21, 1).host_name;
    for (meddle, kinds) in [
        ("ip route flush table 27392".to_owned(), vec![Kind::Route]),
        (
            format!("ip neigh flush dev {pod} nud permanent"),
            vec![Kind::Neighbour],
        ),
        (format!("ip link set {pod} group 0"), vec![Kind::Link]),
        (
            format!("ip link set {pod} down"),
            vec![Kind::Link, Kind::Neighbour, Kind::Route],
        ),
    ] {
        assert_eq!(kept.after(&meddle), kinds, "{meddle}");
    }
}

#[test]
fn links_of_enis_are_repaired() {
    let mut kept = Kept::new();
    assert_eq!(kept.after("ip link set eth1 mtu 1400"), [Kind::Link]);
    // When a link is set down, its routes are removed, but not its address.
    assert_eq!(
        kept.after("ip link set eth1 down"),
        [Kind::Link, Kind::Route]
    );
}

#[test]
fn everything_at_once_is_restored() {
    let mut kept = Kept::new();
    let pod = pod_link(21, 1).host_name;
    let all = format!(
        "for p in 512 1536 1536 32765; do ip rule del pref $p; done; ip route flush table 2; \
         ip route flush table 27392; nft flush ruleset; ip neigh flush dev {pod} nud permanent; \
         ip addr flush dev eth1; ip link set {pod} group 0; echo 0 > /proc/sys/net/ipv4/ip_forward"
    );
    let kinds = kept.after(&all);
    // No pod here asked for a rate.
    let all = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Qdisc);
    assert_eq!(kinds, all.collect::<Vec<_>>());
}

#[test]
fn lost_notifications_put_everything_dirty() {
    let kept = Kept::new();
    let overrun = Changes {
        events: vec![crate::netlink::Event::Overrun],
        nftables: false,
    };
    let dirty = kept.reconciler.mark_dirty(&overrun, DirtySet::default());
    assert!(dirty.node && dirty.pods && dirty.nftables && dirty.ended);
}

#[test]
fn an_ended_pod_is_reported_and_a_deleted_one_is_not() {
    let mut kept = Kept::new();
    drop(kept._pods.pop());
    let mut dirty = DirtySet::default();
    // The kernel deletes namespaces asynchronously.
    let told = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        dirty = kept.mark_dirty_after(std::mem::take(&mut dirty));
        dirty.ended
    });
    assert!(told);
    let gone = pod::PodRef {
        host_index: kept.index_of(&pod_link(11, 0)),
        address: pod_link(11, 0).address,
        egress: None,
        ports: Vec::new(),
    };
    kept.reconciler.remove_pod(&gone).1.unwrap();
    // As in the daemon: another socket removes the link.
    pod::unlink(&mut socket_in(&kept.lab.host), gone.host_index).unwrap();
    assert!(!kept.mark_dirty().ended);
}

#[test]
fn a_detached_eni_is_reported() {
    let mut kept = Kept::new();
    kept.lab.show("ip link del eth1");
    let dirty = kept.mark_dirty();
    assert!(!dirty.ended);
    let reconciler = &mut kept.reconciler;
    // This is not a failure of a repair, and is reported once.
    for gone in [vec![eni().mac], vec![]] {
        let repaired = kept.lab.host.run(|| reconciler.repair(&dirty)).unwrap();
        assert!(repaired.failures.is_empty(), "{:?}", repaired.failures);
        assert_eq!(repaired.gone, gone);
    }
}

/// EC2 takes its time, and what waits for it is told of the end.
#[test]
fn the_end_of_a_detachment_is_reported() {
    let mut kept = Kept::new();
    let leaving = eni();
    let reconciler = &mut kept.reconciler;
    let removed = reconciler.remove_eni(leaving.index, leaving.table);
    removed.unwrap();
    let all = DirtySet::all();
    let repaired = kept.lab.host.run(|| reconciler.repair(&all)).unwrap();
    assert_eq!(repaired.detached, [], "the link is still there");
    drop(kept.mark_dirty());
    kept.lab.show("ip link del eth1");
    let dirty = kept.mark_dirty();
    let reconciler = &mut kept.reconciler;
    for detached in [vec![leaving.mac], vec![]] {
        let repaired = kept.lab.host.run(|| reconciler.repair(&dirty)).unwrap();
        assert_eq!(repaired.detached, detached);
        assert_eq!(repaired.gone, []);
    }
}

#[test]
fn a_software_link_is_not_an_unknown_eni() {
    let mut kept = Kept::new();
    kept.lab
        .show("ip link add d0 type veth peer name d1; ip link set d0 up");
    let dirty = kept.mark_dirty();
    assert!(dirty.unknown_links.is_empty(), "{dirty:?}");
    // Hardware links have no kind.
    let mac = kept
        .reconciler
        .socket()
        .link_by_name("d0")
        .unwrap()
        .unwrap()
        .mac
        .unwrap();
    let one = [mac].into();
    assert!(kept.reconciler.has_unknown_links(&one).unwrap());
    assert!(
        !kept
            .reconciler
            .has_unknown_links(&[eni().mac, config().primary.mac].into())
            .unwrap()
    );
    kept.lab.show("ip link del d0");
    assert!(!kept.reconciler.has_unknown_links(&one).unwrap());
}

#[test]
fn pods_of_a_previous_process_are_kept_too() {
    let mut kept = Kept::new();
    let mut reconciler = kept
        .lab
        .on_host(|_| Reconciler::take_over(Socket::open().unwrap(), config()).unwrap());
    for (i, index) in [(11, 0), (21, 1)] {
        let link = pod_link(i, index);
        reconciler.keep_pod(WiredPod::of(&link, kept.index_of(&link)));
    }
    reconciler = kept.lab.on_host(|_| {
        reconciler.add_eni(eni()).unwrap();
        reconciler
    });
    kept.reconciler = reconciler;
    assert_eq!(snapshot(&kept.lab.host), kept.right);
    kept.monitor = listen(&kept.lab, &mut kept.reconciler, Family::V4);
    assert_eq!(kept.after("ip route flush table 27392"), [Kind::Route]);
}

#[test]
fn leftovers_of_a_previous_process_are_removed_and_others_stay() {
    let mut lab = Lab::new();
    // Rules of a removed ENI; a priority that is no longer used; a table without a rule.
    let leave = "ip rule add pref 1536 fwmark 0x76/0x7f lookup 10 proto 107; ip rule add pref 32765 from 10.0.0.9 lookup 10 proto 107; \
                 ip rule add pref 600 from all lookup 27392 proto 107; ip route add 10.0.0.1 dev eth0 table 11 proto 107";
    let foreign = "ip rule add pref 600 to 10.0.0.200 lookup main; ip route add 192.0.2.0/24 dev eth0 table 11; \
                   ip rule add pref 1536 fwmark 8/0x7f lookup 12";
    lab.show(foreign);
    let before = lab.show("ip rule; ip route show table 11");
    lab.show(leave);
    lab.show(&format!(
        "ip link add d0 group {GROUP_DYING} type veth peer name d1"
    ));
    lab.on_host(|_| Reconciler::take_over(Socket::open().unwrap(), config()).unwrap());
    let mut after = lab.show("ip rule; ip route show table 11");
    let ours = [
        "512:",
        "1020:",
        "1022:",
        "1024:",
        "1536: from all fwmark 0x7f/",
        "1540:",
    ];
    after.retain(|line| !ours.iter().any(|start| line.starts_with(start)));
    assert_eq!(after, before);
    assert_eq!(lab.socket.link_by_name("d0").unwrap(), None);
}
