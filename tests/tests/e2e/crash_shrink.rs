//! SIGKILL at every boundary of an effect while the daemon gives addresses and an ENI back.

use std::{io, time::Duration};

use e2e::{
    crash::{audit, campaign::Scenario, stage::Stage, tracer::Boundary},
    lab::eventually,
    plugin::Outcome as Answer,
};

use crate::{Outcome, crash::survive, trials};

trials!(shrinking_survives_a_kill_at_every_effect);

/// Many at once: nearly all of a run is waiting until a surplus has lasted (30 s) and its ENI has an age (60 s). Not all:
/// so many daemons that start in one moment time out on a loaded machine.
const WORKERS: usize = 20;
const REST: Duration = Duration::from_secs(60);

/// A job has ended: two of five pods are left, with two ENIs for them. The primary has three addresses, so that all that
/// is over is on the other.
struct Shrinking;

impl Scenario for Shrinking {
    fn stage(&self) -> io::Result<Stage> {
        let settings = [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "0")];
        let mut stage = Stage::new("t3.small", &settings)?;
        let pods = (0..5)
            .map(|n| stage.node.add_pod(&format!("pod{n}")))
            .collect::<Result<_, _>>()?;
        stage.pods = pods;
        audit::at_rest(&stage, &[], REST)?;
        for pod in stage.pods.split_off(2) {
            stage.node.delete_pod(pod)?;
        }
        // The links of the deleted end after their DELs, and are none of this work.
        let gone = || audit::links(&stage).is_ok_and(|links| links.len() == 2);
        if !eventually(REST, gone) {
            return Err(io::Error::other(stage.node.log()));
        }
        Ok(stage)
    }

    fn done(&self, stage: &Stage) -> bool {
        audit::enis(stage).len() == 1
    }

    /// What a half-written commit is worth is shown for every write by the other kinds of work; here, whole commits.
    fn counts(&self, boundary: &Boundary) -> bool {
        !["state write", "state resize"].contains(&boundary.effect.as_str())
    }

    fn judge(&self, stage: &mut Stage, _: Option<Answer>) -> io::Result<()> {
        audit::at_rest(stage, &[], REST)
    }
}

fn shrinking_survives_a_kill_at_every_effect() -> Outcome {
    survive("shrinking", &Shrinking, WORKERS)
}
