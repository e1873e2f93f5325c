//! SIGKILL at every boundary of an effect of a start after a crash: a second crash must not break the recovery.

use std::{fs, io, time::Duration};

use datapath::constants::PODS_TABLE;
use ipamd::state::store::Store;
use lab::{
    crash::{
        audit,
        campaign::Scenario,
        stage::Stage,
        tracer::{Boundary, Trace},
    },
    node::{Pod, plugin::Outcome as Answer},
};
use serde_json::json;

use crate::{
    crash::common::{succeeded, survive},
    suite::{Outcome, trials},
};

trials!(a_recovery_survives_a_kill_at_every_effect);

const WORKERS: usize = 12;
const REST: Duration = Duration::from_secs(60);

/// Five pods: one lives, one was deleted and one ended while no daemon ran, and the ADDs of the last two were
/// interrupted: one had a network and no record, one a record and only a link.
struct Recovery;

/// Removes a pod's record from the file of a dead daemon.
fn forget(stage: &Stage, pod: &Pod) -> io::Result<()> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let opened = Store::open(&stage.node.state_file(), boot.trim());
    let (store, contents) = opened.map_err(io::Error::other)?;
    let mut records = contents.records.iter();
    let record = records.find(|record| record.sandbox.container_id == pod.id);
    let record = record.ok_or_else(|| io::Error::other("it was never recorded"))?;
    store.forget(record).map_err(io::Error::other)
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
        for id in ["lives", "deleted", "ended", "unrecorded", "unwired"] {
            let pod = stage.node.add_pod(id)?;
            stage.pods.push(pod);
        }
        stage.node.kill_daemon()?;
        let [_, deleted, _, unrecorded, unwired] = &stage.pods[..] else {
            unreachable!("five were added");
        };
        forget(&stage, unrecorded)?;
        let route = format!("ip route del {} table {PODS_TABLE}", unwired.address());
        stage.node.shell(&route)?;
        let del = stage
            .node
            .invocation("DEL", "deleted", Some(&deleted.path))
            .conf("deadlineSeconds", json!(1));
        succeeded(Some(del.run(stage.node.netns())?))?;
        let ended = stage.pods.remove(2);
        stage.node.end_pod(ended)?;
        Ok(stage)
    }

    fn strike(
        &self,
        stage: &mut Stage,
        at: Option<&Boundary>,
    ) -> io::Result<(Trace, Option<Answer>)> {
        let trace = stage.strike_start(at, |stage| self.done(stage))?;
        Ok((trace, None))
    }

    fn done(&self, stage: &Stage) -> bool {
        let starts = stage.node.log().matches("\"ready\"").count();
        starts > 1 && !stage.lab.sim.calls().is_empty()
    }

    fn judge(&self, stage: &mut Stage, _: Option<Answer>) -> io::Result<()> {
        // Their runtimes got no answer, so they delete the sandboxes.
        for cut_off in stage.pods.drain(2..) {
            let del = stage
                .node
                .invocation("DEL", &cut_off.id, Some(&cut_off.path));
            succeeded(Some(del.run(stage.node.netns())?))?;
        }
        let deleted = stage.pods.remove(1);
        audit::at_rest(stage, &[deleted.address()], REST)
    }
}

fn a_recovery_survives_a_kill_at_every_effect() -> Outcome {
    survive("recovery", &Recovery, WORKERS)
}
