//! Faults of the node and of its callers that only a whole node shows (numbers: `docs/faults.md`), and what a released
//! address leaves behind.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    time::Duration,
};

use datapath::{netlink::Socket, netns::Netns};
use lab::{
    Lab,
    node::{Node, Pod, count, host_link},
    traffic::ping::ping,
    wait::eventually,
};
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    fault_29_one_sandbox_asked_for_many_times_at_once_has_one_address,
    fault_30_two_sandboxes_of_one_pod_are_two,
    fault_39_a_cooldown_continues_during_suspend,
    connections_of_a_released_address_are_deleted_before_it_is_used_again,
    connections_are_deleted_across_a_restart_too,
);

const LIMIT: Duration = Duration::from_secs(60);

fn fault_29_one_sandbox_asked_for_many_times_at_once_has_one_address() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let (_netns, path) = node.sandbox("pod0")?;
    let add = node.invocation("ADD", "pod0", Some(&path));
    let answers: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| add.run(node.netns())))
            .collect();
        all.into_iter().map(|one| one.join()).collect()
    });
    let mut results = Vec::new();
    for answer in answers {
        let answer = answer.map_err(|_| "a caller panicked")??;
        assert!(answer.succeeded(), "{answer:?}");
        results.push(answer.json);
    }
    assert!(
        results.iter().all(|result| *result == results[0]),
        "{results:?}"
    );
    assert_eq!(count(&node, "assigned")?, 1);
    Ok(())
}

/// A StatefulSet's pod is created again with the same name while its previous sandbox is still being deleted.
fn fault_30_two_sandboxes_of_one_pod_are_two() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME=web-0";
    let add = |id: &str| -> io::Result<Pod> {
        let (netns, path) = node.sandbox(id)?;
        let invocation = node.invocation("ADD", id, Some(&path));
        let added = invocation.variable("CNI_ARGS", args).run(node.netns())?;
        Ok(Pod {
            id: id.to_owned(),
            netns,
            path,
            asked: serde_json::Value::Null,
            added,
        })
    };
    let (old, new) = (add("old")?, add("new")?);
    assert_ne!(old.address(), new.address());
    assert_eq!(host_link(&old), host_link(&new));
    let (gone, id) = (old.address(), old.id.clone());
    for path in [Some(old.path.as_path()), None] {
        let del = node.invocation("DEL", &id, path).variable("CNI_ARGS", args);
        assert!(del.run(node.netns())?.succeeded());
    }
    let answers = |address| ping(node.netns(), None, address, Duration::from_secs(1));
    assert!(answers(gone)?.is_none());
    assert!(answers(new.address())?.is_some(), "{}", node.log());
    assert_eq!(count(&node, "assigned")?, 1);
    Ok(())
}

/// A process in a time namespace in which the machine has been up for one more day.
struct Tomorrow(Child);

impl Tomorrow {
    fn begin() -> io::Result<Self> {
        // `sleep` is the child that unshare's clone puts into the new namespace.
        let child = Command::new("unshare")
            .args(["--time", "--boottime", "86400", "--monotonic", "86400"])
            .args(["--fork", "--kill-child", "sleep", "600"])
            .stdin(Stdio::null())
            .spawn()?;
        let tomorrow = Self(child);
        let there = eventually(LIMIT, || tomorrow.sleeper().is_some());
        there
            .then_some(tomorrow)
            .ok_or_else(|| io::Error::other("no time namespace"))
    }

    fn sleeper(&self) -> Option<String> {
        let id = self.0.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        let child = children.split_whitespace().next()?.to_owned();
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        (name.trim() == "sleep").then_some(child)
    }

    fn namespace(&self) -> String {
        format!(
            "--time=/proc/{}/ns/time",
            self.sleeper().unwrap_or_default()
        )
    }
}

impl Drop for Tomorrow {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Suspended time counts, because others may have kept sending to the address; and no timer of the past day fires late.
fn fault_39_a_cooldown_continues_during_suspend() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let settings = [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "7200")];
    let mut node = lab.node("t3.small", &settings)?;
    let kept = node.add_pod("kept")?;
    let gone = node.add_pod("gone")?;
    node.delete_pod(gone)?;
    assert_eq!(count(&node, "cooling")?, 1);
    node.kill_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    assert_eq!(count(&node, "cooling")?, 1, "{}", node.log());
    node.kill_daemon()?;
    let tomorrow = Tomorrow::begin()?;
    node.start_daemon_under(&["nsenter", &tomorrow.namespace()], &lab.sim.ec2_endpoint())?;
    assert_eq!(count(&node, "cooling")?, 0, "{}", node.log());
    assert_eq!(count(&node, "assigned")?, 1);
    let again = node
        .invocation("ADD", "kept", Some(&kept.path))
        .run(node.netns())?;
    assert_eq!(again.address(), kept.address());
    node.add_pod("fresh")?;
    Ok(())
}

/// Enables connection tracking on the node, like kube-proxy's rules.
fn track(node: &Node) -> Outcome {
    let rules = "table ip tracked { chain c { type filter hook prerouting priority 0; ct state new accept; }; }";
    let status = node
        .netns()
        .run(|| Command::new("nft").arg(rules).status())??;
    assert!(status.success());
    Ok(())
}

/// The node's connections that involve `address`.
fn connections(node: &Node, address: IpAddr) -> io::Result<Vec<String>> {
    let all = node
        .netns()
        .run(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack"))??;
    let named = format!("={address} ");
    Ok(all
        .lines()
        .filter(|line| line.contains(&named))
        .map(str::to_owned)
        .collect())
}

/// An answered datagram and an open stream between two pods.
fn talk(from: &Pod, to: &Pod) -> io::Result<()> {
    let address = to.address();
    let (datagrams, streams) = to.netns.run(move || -> io::Result<_> {
        Ok((
            UdpSocket::bind((address, 4000))?,
            TcpListener::bind((address, 4001))?,
        ))
    })??;
    datagrams.set_read_timeout(Some(LIMIT))?;
    let (asker, stream) = from.netns.run(move || -> io::Result<_> {
        let asker = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        asker.send_to(b"?", (address, 4000))?;
        Ok((asker, TcpStream::connect((address, 4001))?))
    })??;
    asker.set_read_timeout(Some(LIMIT))?;
    let mut byte = [0];
    let (_, peer) = datagrams.recv_from(&mut byte)?;
    datagrams.send_to(b"!", peer)?;
    asker.recv_from(&mut byte)?;
    drop((streams.accept()?, stream));
    Ok(())
}

/// Adds pods with this name prefix until one gets `address`.
fn add_until(node: &Node, address: IpAddr) -> Result<Pod, libtest_mimic::Failed> {
    let mut others = Vec::new();
    for n in 0..20 {
        let pod = node.add_pod(&format!("for-{address}-{n}"))?;
        if pod.address() == address {
            return Ok(pod);
        }
        others.push(pod);
    }
    Err(format!("no pod got {address}\n{}", node.log()).into())
}

fn connections_of_a_released_address_are_deleted_before_it_is_used_again() -> Outcome {
    for cooldown in ["0", "3"] {
        let lab = Lab::start(SimConfig::default())?;
        let node = lab.node(
            "t3.small",
            &[("WARM_ENI_TARGET", "0"), ("IP_COOLDOWN_PERIOD", cooldown)],
        )?;
        track(&node)?;
        let (gone, kept, other) = (
            node.add_pod("gone")?,
            node.add_pod("kept")?,
            node.add_pod("other")?,
        );
        talk(&gone, &kept)?;
        talk(&kept, &other)?;
        let (address, stays) = (gone.address(), other.address());
        assert!(
            !connections(&node, address)?.is_empty(),
            "the lab tracks nothing"
        );
        let before = connections(&node, stays)?.len();
        node.delete_pod(gone)?;
        add_until(&node, address)?;
        assert_eq!(
            connections(&node, address)?,
            Vec::<String>::new(),
            "cooldown {cooldown}"
        );
        // The connections of the others still exist, except those that timed out.
        assert!(before > 0 && !connections(&node, stays)?.is_empty());
    }
    Ok(())
}

fn pod_links(node: &Node) -> io::Result<usize> {
    let links = node.netns().run(|| Socket::open()?.links())?;
    let links = links.map_err(io::Error::other)?;
    Ok(links
        .iter()
        .filter(|link| link.name.starts_with("eni"))
        .count())
}

fn connections_are_deleted_across_a_restart_too() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node(
        "t3.small",
        &[("WARM_ENI_TARGET", "0"), ("IP_COOLDOWN_PERIOD", "2")],
    )?;
    track(&node)?;
    let (gone, kept) = (node.add_pod("gone")?, node.add_pod("kept")?);
    talk(&gone, &kept)?;
    let (dead, lost) = (gone.address(), kept.address());
    node.delete_pod(gone)?;
    node.kill_daemon()?;
    // This one ends while no daemon runs. The kernel deletes a namespace asynchronously.
    Netns::unbind(&kept.path)?;
    drop(kept);
    assert!(eventually(LIMIT, || pod_links(&node).is_ok_and(|links| links == 0)));
    assert!(!connections(&node, dead)?.is_empty() && !connections(&node, lost)?.is_empty());
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    for address in [dead, lost] {
        add_until(&node, address)?;
        assert_eq!(
            connections(&node, address)?,
            Vec::<String>::new(),
            "{}",
            node.log()
        );
        for n in 0..20 {
            let id = format!("for-{address}-{n}");
            node.invocation("DEL", &id, None).run(node.netns())?;
        }
    }
    Ok(())
}
