//! Measures every step of `pod::add` in many fresh namespaces, and compares it with a bare netlink program.
//!
//! `cargo run --release -p datapath --example floor [namespaces] [program]`, as root. It works in its own namespace.
//! `program` is called with the number of namespaces and prints a line like `pod side batch p50 100 us …` per step.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::io;
use std::os::fd::AsFd;
use std::process::{Command, ExitCode};
use std::time::Instant;

use datapath::netlink::Socket;
use datapath::netns::Netns;
use datapath::pod::{self, PodLink, PodRef};
use datapath::uplink::Uplink;
use nettypes::EniIndex;
use stdout::{out, outln};

/// The measured steps, and the names that the bare program uses for them.
const STEPS: [(&str, Option<&str>); 6] = [
    ("adopt socket", None),
    ("pair", Some("veth direct in netns")),
    ("pod side", Some("pod side batch")),
    ("host side", Some("host route")),
    ("whole add", None),
    ("unroute", None),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let count = arguments
        .next()
        .map_or(500, |n| n.parse().expect("a number of namespaces"));
    let bare = arguments
        .next()
        .map(|program| bare_floor(&program, count))
        .unwrap_or_default();
    let host = Netns::create().expect("a namespace; run as root");
    let measured = host.run(|| measure(count, &bare));
    let measured = measured.expect("entering the namespace");
    stdout::ended("floor", measured.map(|()| ExitCode::SUCCESS))
}

/// The medians that the bare program prints, by its name of the step.
fn bare_floor(program: &str, count: u16) -> Vec<(String, f64)> {
    let output = Command::new(program)
        .arg(count.to_string())
        .output()
        .expect("the bare program");
    let text = String::from_utf8(output.stdout).expect("text");
    let median = |line: &str| {
        let (name, rest) = line.split_once(" p50 ")?;
        Some((
            name.trim().to_owned(),
            rest.split_whitespace().next()?.parse().ok()?,
        ))
    };
    text.lines().filter_map(median).collect()
}

fn measure(count: u16, bare: &[(String, f64)]) -> io::Result<()> {
    let mut host = Socket::open().expect("a netlink socket");
    let pods: Vec<Netns> = (0..count)
        .map(|_| Netns::create().expect("a namespace"))
        .collect();
    let links: Vec<PodLink> = (1..=count).map(pod_link).collect();
    let mut times: [Vec<f64>; STEPS.len()] = Default::default();
    let mut wired = Vec::new();
    for (netns, link) in pods.iter().zip(&links) {
        // As the plugin passes it.
        let theirs = Socket::open_in(netns).expect("a socket in the pod");
        let theirs = theirs.as_fd().try_clone_to_owned().expect("a copy");
        let start = Instant::now();
        let mut pod = Socket::from_fd(theirs).expect("the handed-over socket");
        let mut marks = vec![start, Instant::now()];
        let made = pod::add_observed(&mut host, &mut pod, netns.as_fd(), link, None, |_| {
            marks.push(Instant::now())
        });
        wired.push(made.expect("wired").host_index);
        for (times, pair) in times.iter_mut().zip(marks.windows(2)) {
            times.push(micros(pair[0], pair[1]));
        }
        times[4].push(micros(start, marks[4]));
    }
    for (link, host_index) in links.iter().zip(&wired) {
        let start = Instant::now();
        let pod = PodRef {
            host_index: *host_index,
            address: link.address,
            egress: None,
            ports: Vec::new(),
        };
        pod::unroute(&mut host, &pod).expect("unrouted");
        times[5].push(micros(start, Instant::now()));
    }
    report(&mut times, bare)?;
    delete(&mut host, &wired)
}

fn report(times: &mut [Vec<f64>; STEPS.len()], bare: &[(String, f64)]) -> io::Result<()> {
    for ((label, same), times) in STEPS.iter().zip(times) {
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times[times.len() * percent / 100];
        out!("{label:<16} p50 {:7.1} us   p99 {:7.1} us", at(50), at(99))?;
        match bare.iter().find(|(name, _)| Some(name.as_str()) == *same) {
            Some((_, floor)) => outln!("   bare p50 {floor:6.0} us   ratio {:.2}", at(50) / floor)?,
            None => outln!()?,
        }
    }
    Ok(())
}

/// The first ones one by one, the others fifty at a time.
fn delete(host: &mut Socket, links: &[u32]) -> io::Result<()> {
    let (single, batched) = links.split_at(links.len().min(20));
    for (label, links, together) in [("unlink", single, 1), ("unlink 50", batched, 50)] {
        let start = Instant::now();
        for chunk in links.chunks(together) {
            pod::unlink_many(host, chunk).expect("unlinked");
        }
        let each = micros(start, Instant::now())
            / f64::from(u32::try_from(links.len()).unwrap_or(u32::MAX));
        outln!("{label:<16} {each:11.1} us each")?;
    }
    Ok(())
}

fn pod_link(i: u16) -> PodLink {
    let [high, low] = i.to_be_bytes();
    PodLink {
        host_name: pod::upstream_host_name("eni", "lab", &i.to_string()),
        owner: format!("hawser aws-cni/{i:064x}/eth0"),
        pod_name: "eth0".to_owned(),
        address: [10, 0, high, low].into(),
        mtu: 9001,
        uplink: Uplink::Eni(EniIndex::new(i % 4).expect("below 127")),
        host_mac: datapath::netlink::Mac::local([0, 0, 0, 0, high, low]),
        pod_mac: datapath::netlink::Mac::local([4, 0, 0, 0, high, low]),
        secondary: false,
        asked: nettypes::Asked::default(),
        egress: None,
    }
}

fn micros(from: Instant, to: Instant) -> f64 {
    (to - from).as_secs_f64() * 1e6
}
