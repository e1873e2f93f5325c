//! SIGKILL at every boundary of an effect of a start after a crash: a second crash must not break the recovery.

use std::{fs, io, time::Duration};

use datapath::constants::PODS_TABLE;
use ipamd::state::store::Store;
use lab::{
    crash::{
        audit,
        campaign::Scenario,
        setup::Setup,
        tracer::{Boundary, Trace},
    },
    node::{Pod, plugin::Outcome as Answer},
};
use serde_json::json;

use crate::{
    crash::common::{Asked, succeeded},
    suite::{Outcome, trials},
    support::campaign::{COOLDOWN, survive},
};

trials!(
    a_recovery_survives_a_kill_at_every_effect,
    a_recovery_of_pods_that_ask_for_all_survives_a_kill_at_every_effect,
);

const WORKERS: usize = 12;
const REST: Duration = Duration::from_secs(60);

/// Five pods: one lives, one was deleted and one ended while no daemon ran, and the ADDs of the last two were
/// interrupted: one had a network and no record, one a record and only a link.
struct Recovery(Asked);

/// Removes a pod's record from the file of a dead daemon.
fn forget(setup: &Setup, pod: &Pod) -> io::Result<()> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let opened = Store::open(&setup.node.state_file(), boot.trim());
    let (store, contents) = opened.map_err(io::Error::other)?;
    let mut records = contents.records.iter();
    let record = records.find(|record| record.sandbox.container_id == pod.id);
    let record = record.ok_or_else(|| io::Error::other("it was never recorded"))?;
    store.forget(record).map_err(io::Error::other)
}

impl Scenario for Recovery {
    fn setup(&self) -> io::Result<Setup> {
        let settings = [("MAX_ENI", "1"), ("WARM_IP_TARGET", "9"), COOLDOWN];
        let settings = [&settings[..], self.0.settings()].concat();
        let mut setup = Setup::new("m5.large", &settings)?;
        setup.await_free(9)?;
        for id in ["lives", "deleted", "ended", "unrecorded", "unwired"] {
            let pod = setup.node.add_pod_asking(id, &self.0.of(id))?;
            setup.pods.push(pod);
        }
        setup.node.kill_daemon()?;
        let [_, deleted, _, unrecorded, unwired] = &setup.pods[..] else {
            unreachable!("five were added");
        };
        forget(&setup, unrecorded)?;
        let route = format!("ip route del {} table {PODS_TABLE}", unwired.address());
        setup.node.shell(&route)?;
        let del = setup
            .node
            .invocation("DEL", "deleted", Some(&deleted.path))
            .conf("deadlineSeconds", json!(1));
        succeeded(Some(del.run(setup.node.netns())?))?;
        let ended = setup.pods.remove(2);
        setup.node.end_pod(ended)?;
        Ok(setup)
    }

    fn strike(
        &self,
        setup: &mut Setup,
        at: Option<&Boundary>,
    ) -> io::Result<(Trace, Option<Answer>)> {
        let trace = setup.strike_start(at, |setup| self.done(setup), |_| Ok(()))?;
        Ok((trace, None))
    }

    fn done(&self, setup: &Setup) -> bool {
        let starts = setup.node.log().matches("\"ready\"").count();
        starts > 1 && !setup.lab.sim.calls().is_empty()
    }

    fn judge(&self, setup: &mut Setup, _: Option<Answer>) -> io::Result<()> {
        // Their runtimes got no answer, so they delete the sandboxes.
        for cut_off in setup.pods.drain(2..) {
            let del = setup
                .node
                .invocation("DEL", &cut_off.id, Some(&cut_off.path));
            succeeded(Some(del.run(setup.node.netns())?))?;
        }
        let deleted = setup.pods.remove(1);
        audit::at_rest(setup, &[deleted.address()], REST)
    }
}

fn a_recovery_survives_a_kill_at_every_effect() -> Outcome {
    survive("recovery", &Recovery(Asked::Nothing), WORKERS)
}

fn a_recovery_of_pods_that_ask_for_all_survives_a_kill_at_every_effect() -> Outcome {
    let recovery = Recovery(Asked::Everything);
    survive("recovery with everything", &recovery, WORKERS)
}
