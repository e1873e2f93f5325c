//! Each way in which the node itself can refuse a pod, and the text in the pod's event.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    thread,
    time::Duration,
};

use datapath::{
    constants::PODS_TABLE,
    netlink::{
        self, Socket,
        route::{self, Route},
    },
    pod::{own_name, upstream_host_name},
};
use lab::{
    Lab,
    node::{Node, count, inspect::inspect, occupy},
    wait::eventually,
    wire::http2,
};
use libtest_mimic::Failed;
use prost::Message as _;
use proto::{handover, refusal::Reason, v1};
use serde_json::{Value, json};
use vpc_sim::{Action, Fault, FaultKind, SimConfig};

use crate::{
    suite::{Outcome, trials},
    support::refusals::{
        WANTS_NO_MORE, add_within, expect_counted, expect_refusal, expect_refusal_of, fill,
        full_node, logged,
    },
};

trials!(
    a_link_in_the_pods_way_is_named,
    a_request_without_a_sandbox_is_refused,
    a_stopping_daemon_sends_those_that_wait_to_the_next,
    an_address_that_the_kernel_still_routes_is_not_granted_again_at_once,
    check_reports_what_is_missing,
    requests_above_the_limit_are_refused,
);

fn a_link_in_the_pods_way_is_named() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let name = upstream_host_name("eni", "lab", "pod-waits");
    let own = own_name("eni", "hawser aws-cni/waits/eth0");
    node.netns().run(|| occupy(&name))??;
    node.shell(&format!("ip link add {own} type veth peer name other"))?;
    let words = [
        &*name,
        "does not belong to a pod",
        "AWS_VPC_K8S_CNI_VETHPREFIX",
    ];
    let refused = add_within(&node, 5)?;
    expect_refusal(&node, &refused, Reason::Datapath, &words)?;
    // If only its pod's name is taken, it has one of its own.
    node.shell(&format!("ip link del {own}"))?;
    let path = node.sandboxes().join("cni-waits");
    let add = node.invocation("ADD", "waits", Some(&path));
    let added = add.run(node.netns())?;
    assert_eq!(added.json["interfaces"][0]["name"], *own, "{added:?}");
    Ok(())
}

/// A manual ADD with these descriptors or none, which our plugin would never send.
fn add_with(node: &Node, descriptors: Option<(BorrowedFd<'_>, BorrowedFd<'_>)>) -> io::Result<()> {
    let request = v1::AddRequest {
        sandbox: Some(v1::Sandbox {
            network: "aws-cni".into(),
            container_id: "stray".into(),
            ifname: "eth0".into(),
        }),
        deadline_ms: 5000,
        ..v1::AddRequest::default()
    };
    let body = http2::data(&http2::message(&request.encode_to_vec()), true);
    let mut stream = UnixStream::connect(node.socket())?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    handover::send(stream.as_fd(), descriptors)?;
    stream.write_all(&[http2::client_begins(), http2::call("Add"), body].concat())?;
    http2::read_answer(&mut stream).map(drop)
}

fn a_request_without_a_sandbox_is_refused() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    add_with(&node, None)?;
    let line = expect_counted("add", &node, Reason::InvalidRequest)?;
    assert_eq!(
        line["cause"],
        "the connection did not pass the sandbox's file descriptors"
    );
    let socket = node.netns().run(Socket::open)??;
    add_with(&node, Some((node.netns().as_fd(), socket.as_fd())))?;
    let line = expect_counted("add", &node, Reason::NetnsInvalid)?;
    let cause = line["cause"].as_str().unwrap_or_default();
    assert!(
        cause.contains("cannot be used: it is the host's own"),
        "{line}"
    );
    assert_eq!(count(&node, "free")?, 3, "the address must be free again");
    Ok(())
}

fn a_stopping_daemon_sends_those_that_wait_to_the_next() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = full_node(&lab)?;
    hang(&lab);
    let (_netns, path) = node.sandbox("waits")?;
    let (add, host) = (node.invocation("ADD", "waits", Some(&path)), node.host()?);
    let adding = thread::spawn(move || add.run(&host));
    assert!(waits(&node, 1), "{}", node.log());
    node.stop_daemon()?;
    let line = logged("add", &node, Reason::Stopping).ok_or_else(|| node.log())?;
    assert_eq!(line["cause"], "ipamd is shutting down");
    lab.sim.faults().clear();
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let added = adding.join().expect("no panic")?;
    assert!(added.succeeded(), "{added:?}\n{}", node.log());
    Ok(())
}

fn hang(lab: &Lab) {
    lab.sim.faults().push(Fault {
        action: Action::CreateNetworkInterface,
        times: 1000,
        kind: FaultKind::Hang,
    });
}

fn waits(node: &Node, count: u32) -> bool {
    eventually(Duration::from_secs(20), || {
        node.waiting().is_ok_and(|waiting| waiting == count)
    })
}

/// A request continues after its caller was killed, so a limit for connections is not enough.
fn requests_above_the_limit_are_refused() -> Outcome {
    // The limit with 128 descriptors.
    const ROOM: u32 = 8;
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.bare_node("m5.large", &[WANTS_NO_MORE])?;
    node.start_daemon_under(&["prlimit", "--nofile=128:128"], &lab.sim.ec2_endpoint())?;
    fill(&node, 9)?;
    hang(&lab);
    for n in 0..ROOM {
        let id = format!("given-up{n}");
        let (_netns, path) = node.sandbox(&id)?;
        let mut caller = node
            .invocation("ADD", &id, Some(&path))
            .start(node.netns())?;
        let asked = waits(&node, n + 1);
        caller.kill()?;
        caller.wait()?;
        assert!(asked, "{}", node.log());
    }
    let words = ["too many requests in progress", "try again after 1 s"];
    expect_refusal(&node, &add_within(&node, 5)?, Reason::Busy, &words)
}

fn check_reports_what_is_missing() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let pod = node.add_pod("a")?;
    let check = |id: &str, prev: &Value| {
        node.invocation("CHECK", id, Some(&pod.path))
            .conf("prevResult", prev.clone())
            .run(node.netns())
    };
    let mut other = pod.added.json.clone();
    other["ips"][0]["address"] = json!("10.0.255.250/32");
    let drifted = check("a", &other)?;
    let words = ["prevResult has 10.0.255.250, the record", "delete the pod"];
    expect_refusal_of("check", &node, &drifted, Reason::Drift, &words)?;
    let unknown = check("stranger", &pod.added.json)?;
    let words = ["no record of stranger eth0 in network aws-cni"];
    expect_refusal_of("check", &node, &unknown, Reason::UnknownSandbox, &words)
}

fn an_address_that_the_kernel_still_routes_is_not_granted_again_at_once() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    // Long enough for three ADDs on any machine.
    let node = lab.node(
        "t3.small",
        &[("MAX_ENI", "1"), ("IP_COOLDOWN_PERIOD", "10")],
    )?;
    let disputed = free_address(&node)?;
    let stray = |add: bool| node.netns().run(move || route_to(disputed, add));
    stray(true)??;
    // One of the three ADDs for all addresses gets the disputed one.
    let mut added = Vec::new();
    let mut refused = Vec::new();
    for n in 0..3 {
        let id = format!("pod{n}");
        let (netns, path) = node.sandbox(&id)?;
        let answer = node.invocation("ADD", &id, Some(&path)).run(node.netns())?;
        if answer.succeeded() {
            added.push((netns, path, answer));
        } else {
            let words = ["still routes", "the address cools down"];
            expect_refusal(&node, &answer, Reason::Datapath, &words)?;
            refused.push(answer);
        }
    }
    assert_eq!((added.len(), refused.len()), (2, 1), "{refused:?}");
    assert_eq!(
        (count(&node, "assigned")?, count(&node, "free")?),
        (2, 0),
        "the disputed address must rest"
    );
    stray(false)??;
    let rested = || count(&node, "free").is_ok_and(|n| n == 1);
    assert!(
        eventually(Duration::from_secs(60), rested),
        "{}",
        node.log()
    );
    let last = node.add_pod("last")?;
    assert_eq!(last.address(), disputed);
    Ok(())
}

fn free_address(node: &Node) -> Result<IpAddr, Failed> {
    let all = || count(node, "free").is_ok_and(|n| n == 3);
    assert!(eventually(Duration::from_secs(20), all), "{}", node.log());
    let snapshot = inspect(&node.socket())?;
    let addresses = snapshot.enis.iter().flat_map(|eni| &eni.addresses);
    let free = addresses
        .into_iter()
        .find(|address| address.state == "free");
    let free = free.ok_or("no address is free")?;
    Ok(proto::address::ip("address", &free.address)?)
}

/// A route to `address` over the loopback in the pods table, as left by another program.
fn route_to(address: IpAddr, add: bool) -> Result<(), netlink::Error> {
    let stray = Route::link(ipnet::IpNet::from(address), 1, PODS_TABLE);
    Socket::open()?.apply(&if add {
        route::add(&stray)
    } else {
        route::del(&stray)
    })
}
