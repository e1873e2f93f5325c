//! SIGKILL at every boundary of an effect while the daemon returns addresses and an ENI.

use std::{io, time::Duration};

use datapath::netns::Netns;
use lab::{
    crash::{audit, campaign::Scenario, setup::Setup, tracer::Boundary},
    node::plugin::{Invocation, Outcome as Answer},
    wait::eventually,
};

use crate::{
    crash::common::succeeded,
    suite::{Outcome, trials},
    support::campaign::{WORKERS, survive},
};

trials!(
    giving_addresses_back_survives_a_kill_at_every_effect,
    giving_an_eni_back_survives_a_kill_at_every_effect,
);

const REST: Duration = Duration::from_secs(60);
/// Longer than a surplus must last before it is returned.
const HALF_A_MINUTE: Duration = Duration::from_secs(31);
/// Longer than the minimum age of an ENI before it is returned.
const A_MINUTE: Duration = Duration::from_secs(61);
/// A recovery that is not at rest by then waits for time to pass, at most half a minute this many times.
const AT_ONCE: Duration = Duration::from_secs(4);
const PATIENCE: usize = 4;

/// After a job, two of five pods are left on two ENIs. The primary ENI has three addresses, so the whole surplus is on
/// the other one.
struct Shrinking {
    /// How long the daemon sleeps; the work is what is due when it wakes up.
    sleep: Duration,
}

impl Shrinking {
    fn gives_an_eni_back(&self) -> bool {
        self.sleep == A_MINUTE
    }
}

impl Scenario for Shrinking {
    fn setup(&self) -> io::Result<Setup> {
        let settings = [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "0")];
        let mut setup = Setup::with_clocks("t3.small", &settings)?;
        let pods = (0..5)
            .map(|n| setup.node.add_pod(&format!("pod{n}")))
            .collect::<Result<_, _>>()?;
        setup.pods = pods;
        audit::at_rest(&setup, &[], REST)?;
        let over = setup.pods.split_off(2);
        for pod in &over {
            let del = setup.node.invocation("DEL", &pod.id, Some(&pod.path));
            succeeded(Some(del.run(setup.node.netns())?))?;
        }
        // Their links are removed after the DELs, which is not part of this work. The namespaces are deleted later:
        // otherwise the links would be gone with them, and the daemon might have to detect that.
        let gone = || audit::links(&setup).is_ok_and(|links| links.len() == 2);
        if !eventually(REST, gone) {
            return Err(io::Error::other(setup.node.log()));
        }
        for pod in over {
            Netns::unbind(&pod.path)?;
        }
        Ok(setup)
    }

    fn work(&self, setup: &mut Setup) -> io::Result<Option<Invocation>> {
        setup.fall_asleep(self.sleep).map(|_| None)
    }

    fn done(&self, setup: &Setup) -> bool {
        let calls = setup.lab.sim.calls();
        let unassigned = || {
            calls
                .iter()
                .any(|call| call.action == "UnassignPrivateIpAddresses")
        };
        match self.gives_an_eni_back() {
            true => audit::enis(setup).len() == 1,
            false => unassigned(),
        }
    }

    /// Other kinds of work cover half-written commits at every write; here, commits are whole. Deleting connections is
    /// not part of this work either.
    fn counts(&self, boundary: &Boundary) -> bool {
        const OTHERS: [&str; 3] = ["state write", "state resize", "conntrack"];
        !OTHERS.contains(&boundary.effect.as_str())
    }

    fn judge(&self, setup: &mut Setup, _: Option<Answer>) -> io::Result<()> {
        // Two lists from EC2, some time apart, need not be awaited either.
        for _ in 0..PATIENCE {
            if audit::at_rest(setup, &[], AT_ONCE).is_ok() {
                return Ok(());
            }
            setup.pass(HALF_A_MINUTE)?;
        }
        audit::at_rest(setup, &[], REST)
    }
}

fn giving_addresses_back_survives_a_kill_at_every_effect() -> Outcome {
    let work = Shrinking {
        sleep: HALF_A_MINUTE,
    };
    survive("giving addresses back", &work, WORKERS)
}

fn giving_an_eni_back_survives_a_kill_at_every_effect() -> Outcome {
    let work = Shrinking { sleep: A_MINUTE };
    survive("giving an ENI back", &work, WORKERS)
}
