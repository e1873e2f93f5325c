//! Faults of the files that a daemon leaves for its next process, by their rows in the fault table.

use std::{
    fs,
    io::{self, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipamd::state::store::Store;
use lab::{
    Lab,
    node::{Node, Pod, count},
    traffic::{
        ping::ping,
        tcp_probe::{Listener, TcpConnection},
    },
    wait::eventually,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use proto::refusal::Reason;
use serde_json::{Value, json};
use vpc_sim::SimConfig;

use crate::{
    crash::common::asking,
    suite::{Outcome, trials},
    support::{reboot::after_reboot, refusals::expect_refusal},
};

trials!(
    fault_35_a_full_disk_refuses_adds_and_heals,
    fault_35_a_read_only_state_stops_the_daemon_and_no_pod,
    fault_36_a_file_that_kills_every_start_is_set_aside_after_two,
    fault_37_a_reboot_voids_assignments_and_keeps_enis,
    fault_37_a_reboot_frees_host_ports,
);

const REST: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(5);

/// A node whose run directory is a separate file system with this many bytes.
fn node_on(lab: &Lab, bytes: u32) -> io::Result<(Node, PathBuf)> {
    let mut node = lab.bare_node("m5.4xlarge", &[("WARM_IP_TARGET", "29"), ("MAX_ENI", "1")])?;
    let run = node.state_file();
    let run = run.parent().map(Path::to_owned).unwrap_or_default();
    fs::create_dir(&run)?;
    let size = format!("size={bytes},mode=700");
    mount(
        Some("tmpfs"),
        &run,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(size.as_str()),
    )?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    assert!(
        eventually(REST, || count(&node, "free").is_ok_and(|n| n >= 29)),
        "{}",
        node.log()
    );
    Ok((node, run))
}

/// Fills the file system of `run` completely.
fn fill(run: &Path) -> io::Result<PathBuf> {
    let path = run.join("filler");
    let mut file = fs::File::create(&path)?;
    loop {
        match file.write(&[0; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(path),
            Err(error) => return Err(error),
        }
    }
}

fn fault_35_a_full_disk_refuses_adds_and_heals() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (mut node, run) = node_on(&lab, 4 << 20)?;
    let pods: Vec<Pod> = (0..3)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect::<Result<_, _>>()?;
    let filler = fill(&run)?;
    // Writes that fit into existing space of the file may still succeed.
    let mut late = Vec::new();
    let refused = loop {
        let id = format!("late{}", late.len());
        let (netns, path) = node.sandbox(&id)?;
        let added = node.invocation("ADD", &id, Some(&path)).run(node.netns())?;
        if !added.succeeded() {
            break added;
        }
        late.push((netns, path));
        assert!(late.len() < 26, "a full disk refuses no ADD");
    };
    // An I/O failure with the disk's error, and when to try again.
    let words = ["No space left", "try again after 1 s"];
    expect_refusal(&node, &refused, Reason::Store, &words)?;
    for pod in &pods {
        assert!(ping(node.netns(), None, pod.ipv4(), LIMIT)?.is_some());
    }
    // A DEL removes the pod's network even if it cannot record it.
    let del = node.invocation("DEL", "pod0", Some(&pods[0].path));
    let deleted = del
        .clone()
        .conf("deadlineSeconds", json!(2))
        .run(node.netns())?;
    let silent = |address| ping(node.netns(), None, address, Duration::from_millis(200));
    assert!(silent(pods[0].ipv4())?.is_none(), "{deleted:?}");

    // A daemon that starts on the full disk may fail, but must not discard the records.
    node.kill_daemon()?;
    let started = node.start_daemon(&lab.sim.ec2_endpoint());
    fs::remove_file(filler)?;
    if started.is_err() {
        node.start_daemon(&lab.sim.ec2_endpoint())?;
    }
    assert!(
        !node.state_file().with_extension("corrupt").exists(),
        "{}",
        node.log()
    );
    let deleted = del.run(node.netns())?;
    assert!(deleted.succeeded(), "{deleted:?}\n{}", node.log());
    let fresh = node.add_pod("fresh")?;
    // It is durable again.
    node.kill_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let known = || count(&node, "assigned").is_ok_and(|n| n == 3 + late.len());
    assert!(eventually(REST, known), "{}", node.log());
    for pod in pods[1..].iter().chain([&fresh]) {
        assert!(ping(node.netns(), None, pod.ipv4(), LIMIT)?.is_some());
    }
    umount2(&run, MntFlags::MNT_DETACH)?;
    Ok(())
}

fn fault_35_a_read_only_state_stops_the_daemon_and_no_pod() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (mut node, run) = node_on(&lab, 8 << 20)?;
    let (first, second) = (node.add_pod("first")?, node.add_pod("second")?);
    node.kill_daemon()?;
    let remount = |flags| {
        mount(
            None::<&str>,
            &run,
            None::<&str>,
            MsFlags::MS_REMOUNT | flags,
            None::<&str>,
        )
    };
    remount(MsFlags::MS_RDONLY)?;
    let refused = node.run_daemon(&lab.sim.ec2_endpoint())?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("Read-only file system"),
        "{said}"
    );
    assert!(ping(&first.netns, None, second.ipv4(), LIMIT)?.is_some());
    let (_netns, path) = node.sandbox("new")?;
    let add = node
        .invocation("ADD", "new", Some(&path))
        .conf("deadlineSeconds", json!(1));
    assert_eq!(add.run(node.netns())?.error_code(), Some(11));
    remount(MsFlags::empty())?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    assert!(eventually(LIMIT, || count(&node, "assigned").is_ok_and(|n| n == 2)));
    let added = node
        .invocation("ADD", "new", Some(&path))
        .run(node.netns())?;
    assert!(added.succeeded(), "{added:?}");
    umount2(&run, MntFlags::MNT_DETACH)?;
    Ok(())
}

/// Changes the page numbers in the file's list of tables to pages of 2 GiB. Returns the number of changes.
///
/// A table's entry has its kind and length, then a byte that is 1 if there is a root, and then the root's page number
/// of eight bytes. Its highest five bits are the power of two of the page's size.
fn name_vast_pages(file: &mut [u8]) -> usize {
    const TABLE: &[u8] = b"_pages_unreachable";
    const SIZE: u8 = 0x98;
    let entries: Vec<usize> = (0..file.len())
        .filter(|at| file[*at..].starts_with(TABLE))
        .collect();
    let mut changed = 0;
    for entry in entries {
        let around = entry..(entry + 128).min(file.len());
        let number = file[around].windows(9).position(|bytes| {
            bytes[0] == 1 && bytes[1] != 0 && bytes[2..].iter().all(|byte| *byte == 0)
        });
        if let Some(at) = number {
            file[entry + at + 8] = SIZE;
            changed += 1;
        }
    }
    changed
}

/// The state file with page numbers that make its reader allocate two gibibytes. A match in the file may be from an
/// earlier commit that is not read, so the file is tested with a reader that has enough memory and rejects it.
fn fatal(state: &Path) -> io::Result<Vec<u8>> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let open = |path: &Path| {
        let opened = Store::open(path, boot.trim());
        opened.map(drop).map_err(io::Error::other)
    };
    let aside = state.with_extension("trial");
    fs::create_dir(&aside)?;
    let trial = aside.join("state");
    for _ in 0..10 {
        // Closed cleanly, so that its pages are trusted; each time another commit is the last one.
        open(state)?;
        let mut bytes = fs::read(state)?;
        if name_vast_pages(&mut bytes) == 0 {
            continue;
        }
        fs::write(&trial, &bytes)?;
        open(&trial)?;
        if trial.with_extension("corrupt").exists() {
            return Ok(bytes);
        }
    }
    Err(io::Error::other("no page number that is read was found"))
}

/// The daemon gets much more memory than it ever needs, including threads' stacks, but less than the file requires.
fn fault_36_a_file_that_kills_every_start_is_set_aside_after_two() -> Outcome {
    const LIMIT_OF_MEMORY: &[&str] = &["prlimit", "--as=1900000000"];
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("m5.large", &[("WARM_IP_TARGET", "4"), ("MAX_ENI", "1")])?;
    let pods: Vec<Pod> = (0..3)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect::<Result<_, _>>()?;
    node.kill_daemon()?;
    let state = node.state_file();
    let bytes = fatal(&state)?;
    fs::write(&state, &bytes)?;

    for death in 1..=2 {
        let start = node.start_daemon_under(LIMIT_OF_MEMORY, &lab.sim.ec2_endpoint());
        let why = start
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        let deaths = why.matches("memory allocation of 2147").count();
        assert_eq!(deaths, death, "{why}");
    }
    node.start_daemon_under(LIMIT_OF_MEMORY, &lab.sim.ec2_endpoint())?;
    assert!(node.log().contains("two starts"), "{}", node.log());
    assert_eq!(fs::read(state.with_extension("fatal"))?, bytes);
    // The pool must never be empty with live pods.
    assert_eq!(count(&node, "assigned")?, pods.len());
    for pod in &pods {
        assert!(ping(node.netns(), None, pod.ipv4(), LIMIT)?.is_some());
    }
    let fresh = node.add_pod("fresh")?;
    assert!(pods.iter().all(|pod| pod.address() != fresh.address()));
    assert!(ping(&fresh.netns, None, pods[0].ipv4(), LIMIT)?.is_some());
    // Pods without a record are deleted as usual.
    for pod in pods {
        let (address, host) = (pod.ipv4(), node.netns());
        node.delete_pod(pod)?;
        assert!(ping(host, None, address, Duration::from_millis(200))?.is_none());
    }
    let left = || count(&node, "assigned").is_ok_and(|n| n == 1);
    assert!(eventually(REST, left), "{}", node.log());
    Ok(())
}

/// After a reboot, the boot id has changed, there are no namespaces and links, and the ENIs are the same; the state
/// file is stale.
fn fault_37_a_reboot_voids_assignments_and_keeps_enis() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("t3.small", &[("WARM_IP_TARGET", "1"), ("MAX_ENI", "1")])?;
    let pod = node.add_pod("gone")?;
    let gone = pod.ipv4();
    let before: Vec<_> = lab
        .sim
        .world()
        .interfaces()
        .map(|eni| eni.id.clone())
        .collect();
    node.kill_daemon()?;
    node.end_pod(pod)?;
    after_reboot(&lab, || new_assignments(&lab, &mut node, gone))?;
    let after: Vec<_> = lab
        .sim
        .world()
        .interfaces()
        .map(|eni| eni.id.clone())
        .collect();
    assert_eq!(before, after, "the ENIs stay");
    Ok(())
}

fn new_assignments(lab: &Lab, node: &mut Node, gone: Ipv4Addr) -> Outcome {
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let idle = || {
        count(node, "assigned").is_ok_and(|n| n == 0) && count(node, "free").is_ok_and(|n| n > 0)
    };
    assert!(eventually(REST, idle), "{}", node.log());
    assert!(
        node.state_file().with_extension("boot").exists(),
        "the stale file is kept aside"
    );
    // The runtime deletes the sandboxes from before the reboot, without their namespaces.
    let deleted = node.invocation("DEL", "gone", None).run(node.netns())?;
    assert!(deleted.succeeded(), "{deleted:?}");
    assert!(ping(node.netns(), None, gone, Duration::from_millis(200))?.is_none());
    let fresh = node.add_pod("fresh")?;
    assert!(ping(node.netns(), None, fresh.ipv4(), LIMIT)?.is_some());
    Ok(())
}

/// The state file is on a tmpfs of the node, and gone after a reboot, or on a disk that keeps it.
fn fault_37_a_reboot_frees_host_ports() -> Outcome {
    for kept in [true, false] {
        let lab = Lab::start(SimConfig::default())?;
        let mut node = lab.node("t3.small", &[("WARM_IP_TARGET", "1"), ("MAX_ENI", "1")])?;
        let asked = asking("gone");
        let pod = node.add_pod_asking("gone", &asked)?;
        node.kill_daemon()?;
        node.end_pod(pod)?;
        node.shell("nft flush ruleset")?;
        if !kept {
            fs::remove_file(node.state_file())?;
        }
        after_reboot(&lab, || new_host_ports(&lab, &mut node, &asked))?;
    }
    Ok(())
}

fn new_host_ports(lab: &Lab, node: &mut Node, asked: &Value) -> Outcome {
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let fresh = node.add_pod_asking("fresh", asked)?;
    let _listener = Listener::start(&fresh.netns, (fresh.address(), 80).into(), "fresh")?;
    let port = asked["portMappings"][0]["hostPort"].as_u64();
    let port = u16::try_from(port.ok_or("no port")?)?;
    let at = (node.instance.address, port).into();
    let answers = || TcpConnection::start(lab.sim.internet(), None, at, LIMIT);
    assert_eq!(answers()?.with, "fresh");
    // The runtime deletes the sandbox from before the reboot: the port is not its own any more.
    let deleted = node.invocation("DEL", "gone", None).run(node.netns())?;
    assert!(deleted.succeeded(), "{deleted:?}");
    assert_eq!(answers()?.with, "fresh");
    Ok(())
}
