//! Times every step of `pod::add` over many fresh namespaces, for comparison with a bare netlink program in C.
//!
//! Run as root: `cargo run --release -p datapath --example floor [namespaces]`. Works in a namespace of its own.

use std::time::Instant;

use datapath::netlink::Socket;
use datapath::netns::Netns;
use datapath::pod::{self, PodLink};

fn main() {
    let count: u32 = std::env::args()
        .nth(1)
        .map_or(500, |n| n.parse().expect("a number of namespaces"));
    let host = Netns::create().expect("a namespace; run as root");
    host.run(|| measure(count)).expect("entering the namespace");
}

fn measure(count: u32) {
    let mut host = Socket::open().expect("a netlink socket");
    let mut times: [Vec<f64>; 6] = Default::default();
    let mut names = Vec::new();
    let pods: Vec<Netns> = (0..count)
        .map(|_| Netns::create().expect("a namespace"))
        .collect();
    for (i, netns) in (1..).zip(&pods) {
        let link = pod_link(i);
        let raw = Socket::open_in(netns).expect("a socket in the pod");
        let fd = std::os::fd::AsFd::as_fd(&raw)
            .try_clone_to_owned()
            .expect("a copy");
        let start = now();
        let mut socket = Socket::from_fd(fd).expect("the handed-over socket");
        let adopted = now();
        let mut marks = vec![adopted];
        let fd = std::os::fd::AsFd::as_fd(netns);
        pod::add_observed(&mut host, &mut socket, fd, &link, |_| marks.push(now())).expect("wired");
        times[0].push(micros(start, adopted));
        for step in 0..3 {
            times[step + 1].push(micros(marks[step], marks[step + 1]));
        }
        times[4].push(micros(start, marks[3]));
        names.push((link.host_name, link.address));
    }
    for (host_name, address) in &names {
        let start = now();
        let pod = pod::PodRef {
            host_name: host_name.clone(),
            address: *address,
        };
        pod::unroute(&mut host, &pod).expect("unrouted");
        times[5].push(micros(start, now()));
    }
    let labels = [
        "adopt socket",
        "pair",
        "pod side",
        "host side",
        "whole add",
        "unroute",
    ];
    for (label, times) in labels.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times[times.len() * percent / 100];
        println!("{label:<14} p50 {:7.1} us   p99 {:7.1} us", at(50), at(99));
    }
    delete(
        &mut host,
        &names
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
    );
}

/// One by one, then fifty at a time.
fn delete(host: &mut Socket, names: &[&str]) {
    let (single, batched) = names.split_at(names.len().min(10));
    for (label, chunk) in [("unlink", 1), ("unlink_many/50", 50)] {
        let names = if chunk == 1 { single } else { batched };
        let start = now();
        for chunk in names.chunks(chunk) {
            pod::unlink_many(host, chunk).expect("unlinked");
        }
        println!(
            "{label:<14} {:7.1} us each",
            micros(start, now()) / names.len().max(1) as f64
        );
    }
}

fn pod_link(i: u32) -> PodLink {
    let mac = |kind| pod::local_mac([kind, 0, 0, 0, (i >> 8) as u8, i as u8]);
    PodLink {
        host_name: pod::host_name("eni", &[&i.to_string(), "eth0"]),
        pod_name: "eth0".to_owned(),
        address: std::net::Ipv4Addr::from(0x0a00_0000 + i),
        mtu: 9001,
        index: (i % 4) as u16,
        host_mac: mac(0),
        pod_mac: mac(4),
    }
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn micros(from: Instant, to: Instant) -> f64 {
    (to - from).as_secs_f64() * 1e6
}
