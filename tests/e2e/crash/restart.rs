//! What pods and runtimes notice when a daemon stops and starts: only delays.

use std::{
    io,
    thread::{self, sleep},
    time::Duration,
};

use lab::{
    Lab,
    node::{Node, Pod, plugin::Outcome as Answer},
    traffic::ping::ping,
    wait::eventually,
};
use vpc_sim::SimConfig;

use crate::{
    suite::{Outcome, trials},
    support::streams,
};

trials!(
    no_packet_is_lost_through_a_kill_and_a_restart,
    no_packet_is_lost_through_a_normal_restart,
    add_and_del_wait_for_a_killed_daemon,
    add_and_del_wait_for_a_daemon_that_was_stopped,
);

const LIMIT: Duration = Duration::from_secs(5);

/// How the daemon ends.
#[derive(Clone, Copy)]
enum End {
    Killed,
    Stopped,
}

impl End {
    fn of(self, node: &mut Node) -> io::Result<()> {
        match self {
            Self::Killed => node.kill_daemon(),
            Self::Stopped if node.stop_daemon()? => Ok(()),
            Self::Stopped => Err(io::Error::other(format!("no clean end\n{}", node.log()))),
        }
    }
}

fn no_packet_is_lost_through_a_kill_and_a_restart() -> Outcome {
    traffic_through(End::Killed)
}

fn no_packet_is_lost_through_a_normal_restart() -> Outcome {
    traffic_through(End::Stopped)
}

/// Four streams at once: between two pods of a node, from the node to a pod, and both directions between nodes through
/// a secondary ENI. They continue through two restarts, each until the new daemon has EC2's list of its ENIs and has
/// acted on it.
fn traffic_through(end: End) -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (mut node, other) = (lab.node("t3.small", &[])?, lab.node("t3.small", &[])?);
    // Three addresses on the primary ENI: the last pod is on the second one.
    let pods: Vec<Pod> = (0..5)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect::<Result<_, _>>()?;
    let far = other.add_pod("far")?;
    let streams = streams::start(&node, &pods, &far)?;
    sleep(Duration::from_millis(500));
    for _ in 0..2 {
        end.of(&mut node)?;
        // Traffic for some time without a daemon.
        sleep(Duration::from_millis(300));
        lab.sim.clear_calls();
        node.start_daemon(&lab.sim.ec2_endpoint())?;
        let asked = eventually(Duration::from_secs(30), || !lab.sim.calls().is_empty());
        assert!(asked, "the daemon never asked EC2\n{}", node.log());
        sleep(Duration::from_millis(500));
    }
    streams::finish(streams, &node)?;
    Ok(())
}

fn add_and_del_wait_for_a_killed_daemon() -> Outcome {
    wait_through(End::Killed)
}

fn add_and_del_wait_for_a_daemon_that_was_stopped() -> Outcome {
    wait_through(End::Stopped)
}

fn wait_through(end: End) -> Outcome {
    const AWAY: Duration = Duration::from_millis(700);
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("t3.small", &[("WARM_IP_TARGET", "2")])?;
    let leaving = node.add_pod("leaving")?;
    let (netns, path) = node.sandbox("coming")?;
    let verbs = [
        node.invocation("ADD", "coming", Some(&path)),
        node.invocation("DEL", "leaving", Some(&leaving.path)),
    ];
    end.of(&mut node)?;
    let [added, deleted] = thread::scope(|scope| -> io::Result<[Answer; 2]> {
        let runs = verbs.map(|verb| {
            let host = node.host();
            scope.spawn(move || verb.run(&host?))
        });
        sleep(AWAY);
        let early = runs.iter().any(|run| run.is_finished());
        node.start_daemon(&lab.sim.ec2_endpoint())?;
        let answers = runs.map(|run| run.join().expect("no plugin's thread panics"));
        assert!(!early, "a plugin did not wait: {answers:?}");
        let [added, deleted] = answers;
        Ok([added?, deleted?])
    })?;
    assert!(
        added.succeeded() && deleted.succeeded(),
        "{added:?}\n{deleted:?}"
    );
    assert!(added.took >= AWAY && deleted.took >= AWAY);
    assert!(ping(node.netns(), None, added.address(), LIMIT)?.is_some());
    let silence = ping(
        node.netns(),
        None,
        leaving.ipv4(),
        Duration::from_millis(300),
    )?;
    assert!(silence.is_none(), "a deleted pod answers");
    drop(netns);
    Ok(())
}
