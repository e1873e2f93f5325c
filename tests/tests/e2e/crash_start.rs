//! SIGKILL at every boundary of an effect of a start that finds the remains of a crash: the second crash is the one that
//! a recovery must not be made worse by.

use std::{io, time::Duration};

use datapath::netns::Netns;
use e2e::{
    crash::{
        audit,
        campaign::Scenario,
        stage::Stage,
        tracer::{Boundary, Side, Trace},
    },
    lab::eventually,
    node::Pod,
    plugin::Outcome as Answer,
};
use serde_json::json;

use crate::{
    Outcome,
    crash::{sandbox, succeeded, survive},
    trials,
};

trials!(a_recovery_survives_a_kill_at_every_effect);

const WORKERS: usize = 12;
const REST: Duration = Duration::from_secs(60);

/// Four pods: one lives, one was deleted and one ended while no daemon ran, and the last one's ADD was cut off between
/// kernel and record.
struct Recovery;

impl Recovery {
    /// ADD's first write to the state file: the pod is wired, and no record says whose it is.
    fn unrecorded() -> Boundary {
        Boundary {
            effect: "state write".to_owned(),
            nth: 1,
            side: Side::Before,
        }
    }
}

impl Scenario for Recovery {
    fn stage(&self) -> io::Result<Stage> {
        let settings = [
            ("MAX_ENI", "1"),
            ("WARM_IP_TARGET", "9"),
            ("IP_COOLDOWN_PERIOD", "900"),
        ];
        let mut stage = Stage::new("m5.large", &settings)?;
        stage.await_free(9)?;
        for id in ["lives", "deleted", "ended"] {
            let pod = stage.node.add_pod(id)?;
            stage.pods.push(pod);
        }
        let half = sandbox(&stage, "half")?;
        let add = stage.node.invocation("ADD", "half", Some(&half.path));
        let add = add.conf("deadlineSeconds", json!(4));
        if stage.fell(&Self::unrecorded(), add)?.succeeded() {
            return Err(io::Error::other("an ADD without a record succeeded"));
        }
        let deleted = &stage.pods[1];
        let del = stage
            .node
            .invocation("DEL", "deleted", Some(&deleted.path))
            .conf("deadlineSeconds", json!(1));
        succeeded(Some(del.run(stage.node.netns())?))?;
        Netns::unbind(&stage.pods[2].path)?;
        stage.pods.push(half);
        Ok(stage)
    }

    fn strike(
        &self,
        stage: &mut Stage,
        at: Option<&Boundary>,
    ) -> io::Result<(Trace, Option<Answer>)> {
        // The last reference to the namespace of the pod that ended.
        drop(stage.pods.remove(2));
        // The kernel takes its link along in its own time.
        let gone = || audit::links(stage).is_ok_and(|links| links.len() == 3);
        if !eventually(REST, gone) {
            return Err(io::Error::other("the ended pod's link stays"));
        }
        let trace = stage.strike_start(at, |stage| self.done(stage))?;
        Ok((trace, None))
    }

    fn done(&self, stage: &Stage) -> bool {
        let starts = stage.node.log().matches("\"ready\"").count();
        starts > 1 && !stage.lab.sim.calls().is_empty()
    }

    fn judge(&self, stage: &mut Stage, _: Option<Answer>) -> io::Result<()> {
        let (half, deleted): (Pod, Pod) = (stage.pods.remove(2), stage.pods.remove(1));
        // Its runtime had no answer, so it deletes the sandbox.
        let del = stage.node.invocation("DEL", "half", Some(&half.path));
        succeeded(Some(del.run(stage.node.netns())?))?;
        audit::at_rest(stage, &[deleted.address()], REST)
    }
}

fn a_recovery_survives_a_kill_at_every_effect() -> Outcome {
    survive("recovery", &Recovery, WORKERS)
}
