//! SIGKILL at every boundary of an effect of the real daemon, for each kind of work.

use std::{io, net::IpAddr, time::Duration};

use lab::{
    crash::{
        audit,
        campaign::Scenario,
        stage::{Restart, Stage},
    },
    node::{
        Pod, host_link,
        plugin::{Invocation, Outcome as Answer},
    },
};
use serde_json::json;

use crate::{
    crash::common::{COOLDOWN, WORKERS, full_node, sandbox, succeeded, survive},
    suite::{Outcome, trials},
};

trials!(
    add_survives_a_kill_at_every_effect,
    add_given_up_by_the_runtime_leaves_nothing_after_a_kill_at_every_effect,
    del_survives_a_kill_at_every_effect,
    del_given_up_by_the_runtime_is_done_after_a_kill_at_every_effect,
    growth_survives_a_kill_at_every_effect,
);

/// A node is at rest within this time after a start, including sweeps of pods that ended without DEL.
const REST: Duration = Duration::from_secs(60);

/// DEL and the end of the namespace, like a runtime ends a pod. Returns the address.
fn end(stage: &Stage, pod: Pod) -> io::Result<IpAddr> {
    let address = pod.address();
    stage.node.delete_pod(pod).map(|_| address)
}

struct AnAdd(Restart);

impl Scenario for AnAdd {
    fn stage(&self) -> io::Result<Stage> {
        full_node(1)
    }

    fn work(&self, stage: &mut Stage) -> io::Result<Option<Invocation>> {
        let pod = sandbox(stage, "new")?;
        let add = stage.node.invocation("ADD", "new", Some(&pod.path));
        stage.pods.push(pod);
        Ok(Some(match self.0 {
            Restart::Soon => add,
            Restart::Late => add.conf("deadlineSeconds", json!(3)),
        }))
    }

    fn done(&self, _: &Stage) -> bool {
        true
    }

    fn restart(&self) -> Restart {
        self.0
    }

    fn judge(&self, stage: &mut Stage, answer: Option<Answer>) -> io::Result<()> {
        let mut pod = stage.pods.pop().expect("the work is about it");
        let answer = answer.ok_or_else(|| io::Error::other("nothing was asked"))?;
        let rested = if answer.succeeded() {
            pod.added = answer;
            stage.pods.push(pod);
            audit::at_rest(stage, &[], REST)?;
            let pod = stage.pods.pop().expect("it was pushed just now");
            vec![end(stage, pod)?]
        } else if self.0 == Restart::Late {
            // The runtime has forgotten the sandbox: its namespace ends without a DEL.
            datapath::netns::Netns::unbind(&pod.path)?;
            drop(pod);
            Vec::new()
        } else {
            return Err(io::Error::other(format!("{answer:?}")));
        };
        audit::at_rest(stage, &rested, REST)
    }
}

struct ADel(Restart);

impl Scenario for ADel {
    fn stage(&self) -> io::Result<Stage> {
        full_node(2)
    }

    fn work(&self, stage: &mut Stage) -> io::Result<Option<Invocation>> {
        let pod = stage.pods.last().expect("the node has pods");
        let del = stage.node.invocation("DEL", &pod.id, Some(&pod.path));
        Ok(Some(match self.0 {
            Restart::Soon => del,
            Restart::Late => del.conf("deadlineSeconds", json!(2)),
        }))
    }

    fn done(&self, stage: &Stage) -> bool {
        let pod = stage.pods.last().expect("the node has pods");
        audit::links(stage).is_ok_and(|links| !links.contains(&host_link(pod)))
    }

    fn restart(&self) -> Restart {
        self.0
    }

    fn judge(&self, stage: &mut Stage, answer: Option<Answer>) -> io::Result<()> {
        // Without a daemon, a tombstone makes it a success.
        succeeded(answer)?;
        let pod = stage.pods.pop().expect("the node has pods");
        audit::at_rest(stage, &[pod.address()], REST)?;
        // A runtime may send it twice.
        end(stage, pod).map(drop)
    }
}

struct Growth;

impl Scenario for Growth {
    fn stage(&self) -> io::Result<Stage> {
        let settings = [
            ("MINIMUM_IP_TARGET", "3"),
            ("WARM_IP_TARGET", "0"),
            COOLDOWN,
        ];
        let mut stage = Stage::new("t3.small", &settings)?;
        stage.await_free(3)?;
        for n in 0..3 {
            let pod = stage.node.add_pod(&format!("pod{n}"))?;
            stage.pods.push(pod);
        }
        Ok(stage)
    }

    fn work(&self, stage: &mut Stage) -> io::Result<Option<Invocation>> {
        let pod = sandbox(stage, "new")?;
        let add = stage.node.invocation("ADD", "new", Some(&pod.path));
        stage.pods.push(pod);
        Ok(Some(add))
    }

    fn done(&self, stage: &Stage) -> bool {
        let calls = stage.lab.sim.calls();
        calls
            .iter()
            .any(|call| call.action == "ModifyNetworkInterfaceAttribute")
    }

    fn judge(&self, stage: &mut Stage, answer: Option<Answer>) -> io::Result<()> {
        let answer = succeeded(answer)?;
        stage.pods.last_mut().expect("the work is about it").added = answer;
        audit::at_rest(stage, &[], REST)
    }
}

fn add_survives_a_kill_at_every_effect() -> Outcome {
    survive("ADD", &AnAdd(Restart::Soon), WORKERS)
}

fn add_given_up_by_the_runtime_leaves_nothing_after_a_kill_at_every_effect() -> Outcome {
    survive("ADD given up", &AnAdd(Restart::Late), WORKERS)
}

fn del_survives_a_kill_at_every_effect() -> Outcome {
    survive("DEL", &ADel(Restart::Soon), WORKERS)
}

fn del_given_up_by_the_runtime_is_done_after_a_kill_at_every_effect() -> Outcome {
    survive("DEL given up", &ADel(Restart::Late), WORKERS)
}

fn growth_survives_a_kill_at_every_effect() -> Outcome {
    survive("growth", &Growth, WORKERS)
}
