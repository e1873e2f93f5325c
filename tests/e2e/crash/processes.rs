//! Faults of the plugin's and the daemon's processes, by their rows in the fault table; `kill` has the effects of a
//! crash alone.

use std::{fs, io, path::PathBuf, process::Command, thread, time::Duration};

use datapath::netns::Netns;
use lab::{
    Lab,
    crash::{audit, setup::Setup},
    node::{Node, Pod, count, plugin::Outcome as Answer},
    traffic::ping::ping,
    wait::eventually,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use vpc_sim::{Action, Fault, FaultKind, SimConfig};

use crate::suite::{Outcome, trials};

trials!(
    fault_28_a_plugin_killed_in_its_add_leaves_nothing,
    fault_34_a_namespace_that_ends_during_its_add_leaves_nothing,
    fault_45_a_daemon_out_of_descriptors_sheds_load_and_recovers,
    fault_45_a_daemon_that_gets_no_cpu_for_five_seconds_loses_nothing,
    fault_45_requests_whose_callers_have_gone_are_bounded,
    fault_49_a_del_long_after_its_killed_add_is_honoured,
);

const REST: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(5);

/// A node with three pods on its three addresses, and an EC2 that takes two seconds to create the next ENI.
fn full_node_and_slow_ec2() -> io::Result<Setup> {
    let settings = [("MINIMUM_IP_TARGET", "3"), ("WARM_IP_TARGET", "0")];
    let mut setup = Setup::new("t3.small", &settings)?;
    setup.await_free(3)?;
    for n in 0..3 {
        let pod = setup.node.add_pod(&format!("pod{n}"))?;
        setup.pods.push(pod);
    }
    setup.lab.sim.faults().push(Fault {
        action: Action::CreateNetworkInterface,
        times: 1,
        kind: FaultKind::Delay(Duration::from_secs(2)),
    });
    Ok(setup)
}

/// A sandbox whose plugin is killed while its ADD waits for an address.
fn killed_add(setup: &Setup) -> io::Result<(Netns, PathBuf)> {
    let (netns, path) = setup.node.sandbox("new")?;
    let add = setup.node.invocation("ADD", "new", Some(&path));
    let killed = add.run_and_kill(setup.node.netns(), Duration::from_millis(500))?;
    assert!(killed, "the plugin did not wait");
    Ok((netns, path))
}

fn fault_28_a_plugin_killed_in_its_add_leaves_nothing() -> Outcome {
    let setup = full_node_and_slow_ec2()?;
    let (netns, path) = killed_add(&setup)?;
    Netns::unbind(&path)?;
    drop(netns);
    Ok(audit::at_rest(&setup, &[], REST)?)
}

fn fault_49_a_del_long_after_its_killed_add_is_honoured() -> Outcome {
    let mut setup = full_node_and_slow_ec2()?;
    let (netns, path) = killed_add(&setup)?;
    // The daemon completes the ADD, because the runtime may still use it.
    let wired = || count(&setup.node, "assigned").is_ok_and(|n| n == 4);
    assert!(eventually(REST, wired), "{}", setup.node.log());
    let del = setup.node.invocation("DEL", "new", Some(&path));
    let deleted = del.run(setup.node.netns())?;
    assert!(deleted.succeeded(), "{deleted:?}");
    drop(netns);
    audit::at_rest(&setup, &[], REST)?;
    // The pod is created again with another sandbox.
    let again = setup.node.add_pod("again")?;
    setup.pods.push(again);
    Ok(audit::at_rest(&setup, &[], REST)?)
}

fn fault_34_a_namespace_that_ends_during_its_add_leaves_nothing() -> Outcome {
    let setup = full_node_and_slow_ec2()?;
    let (netns, path) = setup.node.sandbox("new")?;
    let add = setup.node.invocation("ADD", "new", Some(&path));
    thread::scope(|scope| -> io::Result<()> {
        let adding = scope.spawn(|| add.run(setup.node.netns()));
        let waits = || setup.node.waiting().is_ok_and(|n| n == 1);
        assert!(eventually(LIMIT, waits), "the ADD does not wait");
        Netns::unbind(&path)?;
        drop(netns);
        // Success or not: the daemon's descriptors may be the last ones that keep the namespace alive.
        adding.join().expect("no plugin's thread panics").map(drop)
    })?;
    Ok(audit::at_rest(&setup, &[], REST)?)
}

/// Sets the running daemon's soft limit of open files.
fn limit_files(node: &Node, limit: usize) -> io::Result<()> {
    let status = Command::new("prlimit")
        .args(["--pid", &node.pid().to_string()])
        .arg(format!("--nofile={limit}:"))
        .status()?;
    assert!(status.success(), "prlimit: {status}");
    Ok(())
}

fn fault_45_a_daemon_out_of_descriptors_sheds_load_and_recovers() -> Outcome {
    const AT_ONCE: usize = 24;
    let lab = Lab::start(SimConfig::default())?;
    let settings = [("WARM_IP_TARGET", "29"), ("MAX_ENI", "1")];
    let node = lab.node("m5.4xlarge", &settings)?;
    assert!(
        eventually(REST, || count(&node, "free").is_ok_and(|n| n >= 29)),
        "{}",
        node.log()
    );
    let pid = node.pid();
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    // Space for one connection with its two descriptors, and little else.
    limit_files(&node, open + 4)?;
    let pods: Vec<(Netns, PathBuf)> = (0..AT_ONCE)
        .map(|n| node.sandbox(&format!("pod{n}")))
        .collect::<Result<_, _>>()?;
    let answers: Vec<Answer> = thread::scope(|scope| {
        let start = |(n, (_, path)): (usize, &(Netns, PathBuf))| {
            let add = node
                .invocation("ADD", &format!("pod{n}"), Some(path))
                .conf("deadlineSeconds", json!(5));
            let host = node.netns();
            scope.spawn(move || add.run(host))
        };
        let runs: Vec<_> = pods.iter().enumerate().map(start).collect();
        let join = |run: thread::ScopedJoinHandle<'_, io::Result<Answer>>| {
            run.join().expect("no plugin's thread panics")
        };
        runs.into_iter().map(join).collect::<io::Result<_>>()
    })?;
    let shed: Vec<_> = answers
        .iter()
        .filter(|answer| !answer.succeeded())
        .collect();
    stdout::errln!(
        "{} of {AT_ONCE} served with {} descriptors",
        AT_ONCE - shed.len(),
        open + 4
    );
    for answer in shed {
        // Too late, or with this cause.
        let named = answer.error_text().contains("Too many open files");
        assert!(named || answer.error_code() == Some(11), "{answer:?}");
    }
    limit_files(&node, 1024)?;
    for (n, (_, path)) in pods.iter().enumerate() {
        let add = node.invocation("ADD", &format!("pod{n}"), Some(path));
        let added = add.run(node.netns())?;
        assert!(added.succeeded(), "{added:?}\n{}", node.log());
        assert!(ping(node.netns(), None, added.address(), LIMIT)?.is_some());
    }
    assert_eq!(node.pid(), pid, "the same process all along");
    assert_eq!(count(&node, "assigned")?, AT_ONCE);
    Ok(())
}

/// A request continues without its caller, so a limit for connections is not enough.
fn fault_45_requests_whose_callers_have_gone_are_bounded() -> Outcome {
    /// The daemon's limit with so few descriptors.
    const REQUESTS: usize = 8;
    const FULL: usize = 5;
    let lab = Lab::start(SimConfig::default())?;
    let settings = [("MINIMUM_IP_TARGET", "5"), ("WARM_IP_TARGET", "0")];
    let mut node = lab.bare_node("t3.medium", &settings)?;
    node.start_daemon_under(&["prlimit", "--nofile=170:170"], &lab.sim.ec2_endpoint())?;
    for n in 0..FULL {
        node.add_pod(&format!("pod{n}"))?;
    }
    lab.sim.faults().push(Fault {
        action: Action::CreateNetworkInterface,
        // As many as necessary may be created at once.
        times: 2,
        kind: FaultKind::Delay(Duration::from_secs(9)),
    });
    let sandboxes: Vec<_> = (0..=REQUESTS)
        .map(|n| node.sandbox(&format!("gone{n}")))
        .collect::<Result<_, _>>()?;
    let add = |n: usize| node.invocation("ADD", &format!("gone{n}"), Some(&sandboxes[n].1));
    // One fewer at a time than there are slots: the last one is kept free for new connections.
    for batch in [0..REQUESTS - 1, REQUESTS - 1..REQUESTS] {
        let waiting = batch.end;
        thread::scope(|scope| {
            let (add, host) = (&add, node.netns());
            let patience = Duration::from_secs(1);
            let runs: Vec<_> = batch
                .map(|n| scope.spawn(move || add(n).run_and_kill(host, patience)))
                .collect();
            for run in runs {
                let killed = run.join().expect("no plugin's thread panics")?;
                assert!(killed, "a plugin did not wait");
            }
            Ok::<_, io::Error>(())
        })?;
        let all_wait = || {
            node.waiting()
                .is_ok_and(|n| usize::try_from(n) == Ok(waiting))
        };
        assert!(eventually(LIMIT, all_wait), "{}", node.log());
    }
    let refused = add(REQUESTS).run(node.netns())?;
    assert_eq!(refused.error_code(), Some(11), "{refused:?}");
    let text = refused.error_text();
    assert!(text.contains("too many requests in progress"), "{text}");
    // Each of them ends, and then there is space again.
    let served = || count(&node, "assigned").is_ok_and(|n| n == FULL + REQUESTS);
    assert!(eventually(REST, served), "{}", node.log());
    let added = add(REQUESTS).run(node.netns())?;
    assert!(added.succeeded(), "{added:?}");
    Ok(())
}

fn fault_45_a_daemon_that_gets_no_cpu_for_five_seconds_loses_nothing() -> Outcome {
    const STARVED: Duration = Duration::from_secs(5);
    let settings = [
        ("WARM_IP_TARGET", "3"),
        ("MAX_ENI", "1"),
        ("IP_COOLDOWN_PERIOD", "900"),
    ];
    let mut setup = Setup::new("t3.small", &settings)?;
    setup.await_free(3)?;
    let (leaving, kept) = (setup.node.add_pod("leaving")?, setup.node.add_pod("kept")?);
    setup.pods.push(kept);
    let pid = Pid::from_raw(i32::try_from(setup.node.pid())?);
    let (netns, path) = setup.node.sandbox("new")?;
    let host = setup.node.netns();
    let add = setup.node.invocation("ADD", "new", Some(&path));
    let del = setup.node.invocation("DEL", "leaving", Some(&leaving.path));
    kill(pid, Signal::SIGSTOP)?;
    let (added, deleted) = thread::scope(|scope| -> io::Result<_> {
        let (adding, deleting) = (scope.spawn(|| add.run(host)), scope.spawn(|| del.run(host)));
        thread::sleep(STARVED);
        let reached = ping(host, None, setup.pods[0].address(), LIMIT);
        kill(pid, Signal::SIGCONT)?;
        assert!(reached?.is_some(), "traffic needs no daemon");
        let join = |run: thread::ScopedJoinHandle<'_, io::Result<Answer>>| {
            run.join().expect("no plugin's thread panics")
        };
        Ok((join(adding)?, join(deleting)?))
    })?;
    assert!(
        added.succeeded() && deleted.succeeded(),
        "{added:?}\n{deleted:?}"
    );
    let address = leaving.address();
    setup.pods.push(Pod {
        id: "new".to_owned(),
        netns,
        path,
        asked: serde_json::Value::Null,
        added,
    });
    Ok(audit::at_rest(&setup, &[address], REST)?)
}
