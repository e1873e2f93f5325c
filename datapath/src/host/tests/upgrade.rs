//! A node of the version whose primary ENI had no table becomes one of this version under traffic.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// What the earlier version left: marks that are the ENI's index, and the primary's packets routed by main.
const EARLIER: &str = "ip rule add pref 512 lookup 27392 proto 107; \
    ip rule add pref 1024 fwmark 0x80/0x80 lookup main proto 107; \
    ip rule add pref 1536 fwmark 0x1/0x7f lookup 2 proto 107; \
    ip rule add pref 32765 from 10.0.0.20 lookup 2 proto 107; \
    ip link set eth1 up; ip addr add 10.0.0.20/24 dev eth1 noprefixroute; \
    ip route add 10.0.0.1 dev eth1 scope link table 2 proto 107; \
    ip route add default via 10.0.0.1 dev eth1 table 2 proto 107; sysctl -qw net.ipv4.ip_forward=1; \
    sysctl -qw net.ipv4.conf.eth0.rp_filter=2 net.ipv4.conf.eth1.rp_filter=2; \
    nft 'table ip hawser { chain choose_eni { type filter hook prerouting priority dstnat + 10; \
        iifgroup & 0xffffff80 != 0x6b00 return; meta mark set meta mark & 0xffffff00; \
        iifgroup 0x6b01 meta mark set meta mark | 1; fib daddr type local return; }; }'";

#[test]
fn a_node_of_the_earlier_version_becomes_one_of_this_version() {
    let mut lab = Lab::new();
    lab.show(EARLIER);
    lab.on_host(|_| {
        let mut reconciler = Reconciler::take_over(Socket::open().unwrap(), config()).unwrap();
        reconciler.add_eni(eni()).unwrap();
    });
    let upgraded = sorted(&lab);
    let mut fresh = Lab::new();
    fresh.set_up();
    assert_eq!(upgraded, sorted(&fresh));
}

fn sorted(lab: &Lab) -> Vec<String> {
    let mut lines =
        lab.show("ip rule; ip route show table 1; ip route show table 2; nft list ruleset");
    lines.sort();
    lines
}

/// Every packet leaves by the ENI of its pod while the marks change their meaning.
#[test]
fn no_packet_goes_astray_while_the_marks_change() {
    for _ in 0..5 {
        let mut lab = Lab::new();
        lab.show(EARLIER);
        let pods = [(11, 0), (21, 1)].map(|(i, index)| (lab.add_pod(i, index), i));
        lab.show(
            "nft 'table ip eye { chain c { type filter hook forward priority 0; \
             ip saddr 10.0.0.11 oifname != eth0 counter; ip saddr 10.0.0.21 oifname != eth1 counter; \
             ip saddr 10.0.0.11 oifname eth0 counter; ip saddr 10.0.0.21 oifname eth1 counter; }; }'",
        );
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for (pod, i) in &pods {
                scope.spawn(|| pod.run(|| send_until(&stop, *i)).unwrap());
            }
            thread::sleep(Duration::from_millis(50));
            lab.on_host(|socket| {
                prepare(socket, &config()).unwrap();
                add_eni(socket, &eni(), MARKS, PATIENCE).unwrap();
            });
            thread::sleep(Duration::from_millis(50));
            stop.store(true, Ordering::Relaxed);
        });
        let eye = lab.show("nft list table ip eye").join(" ");
        for (pod, eni) in [("10.0.0.11", "eth0"), ("10.0.0.21", "eth1")] {
            let none = "counter packets 0 bytes 0";
            let wrong = format!("ip saddr {pod} oifname != \"{eni}\" {none}");
            let right = format!("ip saddr {pod} oifname \"{eni}\" {none}");
            assert!(eye.contains(&wrong) && !eye.contains(&right), "{eye}");
        }
    }
}

fn send_until(stop: &AtomicBool, i: u8) {
    let socket = UdpSocket::bind((Ipv4Addr::new(10, 0, 0, i), 0)).unwrap();
    while !stop.load(Ordering::Relaxed) {
        // The kernel refuses packets while the router's address is being resolved.
        drop(socket.send_to(b"?", "10.0.9.9:9"));
    }
}
