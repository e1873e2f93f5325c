//! SIGKILL at every boundary of an effect of the real daemon, for each kind of work.

use std::{io, net::IpAddr, time::Duration};

use lab::{
    crash::{
        audit,
        campaign::Scenario,
        setup::{Restart, Setup},
    },
    node::{
        Pod, host_link,
        plugin::{Invocation, Outcome as Answer},
    },
};
use serde_json::json;

use crate::{
    crash::common::{Asked, adding, full_node_and, full_node_with, sandbox, succeeded},
    suite::{Outcome, trials},
    support::campaign::{COOLDOWN, WORKERS, survive},
};

trials!(
    add_survives_a_kill_at_every_effect,
    add_given_up_by_the_runtime_leaves_nothing_after_a_kill_at_every_effect,
    del_survives_a_kill_at_every_effect,
    del_given_up_by_the_runtime_is_done_after_a_kill_at_every_effect,
    growth_survives_a_kill_at_every_effect,
    add_of_a_pod_that_asks_for_all_survives_a_kill_at_every_effect,
    del_of_a_pod_that_asks_for_all_survives_a_kill_at_every_effect,
    add_of_an_ipv6_pod_that_asks_for_all_survives_a_kill_at_every_effect,
    del_of_an_ipv6_pod_that_asks_for_all_survives_a_kill_at_every_effect,
);

/// A node is at rest within this time after a start, including sweeps of pods that ended without DEL.
const REST: Duration = Duration::from_secs(60);

/// DEL and the end of the namespace, like a runtime ends a pod. Returns the address.
fn end(setup: &Setup, pod: Pod) -> io::Result<IpAddr> {
    let address = pod.address();
    setup.node.delete_pod(pod).map(|_| address)
}

struct AnAdd(Restart, Asked);

impl Scenario for AnAdd {
    fn setup(&self) -> io::Result<Setup> {
        full_node_with(1, self.1.settings())
    }

    fn work(&self, setup: &mut Setup) -> io::Result<Option<Invocation>> {
        let mut pod = sandbox(setup, "new")?;
        pod.asked = self.1.of("new");
        let add = adding(setup, &pod);
        setup.pods.push(pod);
        Ok(Some(match self.0 {
            Restart::Soon => add,
            Restart::Late => add.conf("deadlineSeconds", json!(3)),
        }))
    }

    fn done(&self, _: &Setup) -> bool {
        true
    }

    fn restart(&self) -> Restart {
        self.0
    }

    fn judge(&self, setup: &mut Setup, answer: Option<Answer>) -> io::Result<()> {
        let mut pod = setup.pods.pop().expect("the work is about it");
        let answer = answer.ok_or_else(|| io::Error::other("nothing was asked"))?;
        let rested = if answer.succeeded() {
            pod.added = answer;
            setup.pods.push(pod);
            audit::at_rest(setup, &[], REST)?;
            let pod = setup.pods.pop().expect("it was pushed just now");
            vec![end(setup, pod)?]
        } else if self.0 == Restart::Late {
            // The runtime has forgotten the sandbox: its namespace ends without a DEL.
            datapath::netns::Netns::unbind(&pod.path)?;
            drop(pod);
            Vec::new()
        } else {
            return Err(io::Error::other(format!("{answer:?}")));
        };
        audit::at_rest(setup, &rested, REST)
    }
}

struct ADel(Restart, Asked);

impl Scenario for ADel {
    fn setup(&self) -> io::Result<Setup> {
        full_node_and(self.1)
    }

    fn work(&self, setup: &mut Setup) -> io::Result<Option<Invocation>> {
        let pod = setup.pods.last().expect("the node has pods");
        let del = setup.node.invocation("DEL", &pod.id, Some(&pod.path));
        Ok(Some(match self.0 {
            Restart::Soon => del,
            Restart::Late => del.conf("deadlineSeconds", json!(2)),
        }))
    }

    fn done(&self, setup: &Setup) -> bool {
        let pod = setup.pods.last().expect("the node has pods");
        audit::links(setup).is_ok_and(|links| !links.contains(&host_link(pod)))
    }

    fn restart(&self) -> Restart {
        self.0
    }

    fn judge(&self, setup: &mut Setup, answer: Option<Answer>) -> io::Result<()> {
        // Without a daemon, a tombstone makes it a success.
        succeeded(answer)?;
        let pod = setup.pods.pop().expect("the node has pods");
        audit::at_rest(setup, &[pod.address()], REST)?;
        // A runtime may send it twice.
        end(setup, pod).map(drop)
    }
}

struct Growth;

impl Scenario for Growth {
    fn setup(&self) -> io::Result<Setup> {
        let settings = [
            ("MINIMUM_IP_TARGET", "3"),
            ("WARM_IP_TARGET", "0"),
            COOLDOWN,
        ];
        let mut setup = Setup::new("t3.small", &settings)?;
        setup.await_free(3)?;
        for n in 0..3 {
            let pod = setup.node.add_pod(&format!("pod{n}"))?;
            setup.pods.push(pod);
        }
        Ok(setup)
    }

    fn work(&self, setup: &mut Setup) -> io::Result<Option<Invocation>> {
        let pod = sandbox(setup, "new")?;
        let add = setup.node.invocation("ADD", "new", Some(&pod.path));
        setup.pods.push(pod);
        Ok(Some(add))
    }

    fn done(&self, setup: &Setup) -> bool {
        let calls = setup.lab.sim.calls();
        calls
            .iter()
            .any(|call| call.action == "ModifyNetworkInterfaceAttribute")
    }

    fn judge(&self, setup: &mut Setup, answer: Option<Answer>) -> io::Result<()> {
        let answer = succeeded(answer)?;
        setup.pods.last_mut().expect("the work is about it").added = answer;
        audit::at_rest(setup, &[], REST)
    }
}

fn add_survives_a_kill_at_every_effect() -> Outcome {
    survive("ADD", &AnAdd(Restart::Soon, Asked::Nothing), WORKERS)
}

fn add_given_up_by_the_runtime_leaves_nothing_after_a_kill_at_every_effect() -> Outcome {
    survive(
        "ADD given up",
        &AnAdd(Restart::Late, Asked::Nothing),
        WORKERS,
    )
}

fn del_survives_a_kill_at_every_effect() -> Outcome {
    survive("DEL", &ADel(Restart::Soon, Asked::Nothing), WORKERS)
}

fn del_given_up_by_the_runtime_is_done_after_a_kill_at_every_effect() -> Outcome {
    survive(
        "DEL given up",
        &ADel(Restart::Late, Asked::Nothing),
        WORKERS,
    )
}

fn growth_survives_a_kill_at_every_effect() -> Outcome {
    survive("growth", &Growth, WORKERS)
}

fn add_of_a_pod_that_asks_for_all_survives_a_kill_at_every_effect() -> Outcome {
    let add = AnAdd(Restart::Soon, Asked::Everything);
    survive("ADD with everything", &add, WORKERS)
}

fn del_of_a_pod_that_asks_for_all_survives_a_kill_at_every_effect() -> Outcome {
    let del = ADel(Restart::Soon, Asked::Everything);
    survive("DEL with everything", &del, WORKERS)
}

fn add_of_an_ipv6_pod_that_asks_for_all_survives_a_kill_at_every_effect() -> Outcome {
    let add = AnAdd(Restart::Soon, Asked::EverythingOfIpv6);
    survive("ADD of an IPv6 pod with everything", &add, WORKERS)
}

fn del_of_an_ipv6_pod_that_asks_for_all_survives_a_kill_at_every_effect() -> Outcome {
    let del = ADel(Restart::Soon, Asked::EverythingOfIpv6);
    survive("DEL of an IPv6 pod with everything", &del, WORKERS)
}
