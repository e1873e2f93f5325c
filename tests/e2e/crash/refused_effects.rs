//! The kernel refuses what the daemon needs: a disk that returns EIO (fault 35), a netlink socket without buffer space
//! (fault 41). Once for some time with many checks, and at each single effect of an ADD and a DEL.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use datapath::netns::Netns;
use lab::{
    crash::{
        audit,
        campaign::Scenario,
        setup::Setup,
        tracer::{Boundary, Injection, Side, Trace},
    },
    node::{Pod, count, plugin::Outcome as Answer},
    traffic::ping::ping,
    wait::eventually,
};
use nix::errno::Errno;
use serde_json::json;

use crate::{
    crash::common::{Asked, adding, full_node, full_node_and, sandbox, succeeded},
    suite::{Outcome, trials},
    support::campaign::{WORKERS, survive},
};

trials!(
    fault_35_a_medium_that_fails_refuses_adds_makes_dels_unreachable_and_heals,
    fault_35_an_add_meets_an_io_error_at_every_write,
    fault_35_a_del_meets_an_io_error_at_every_write,
    fault_41_an_add_meets_a_socket_without_room_at_every_request,
    fault_41_a_del_meets_a_socket_without_room_at_every_request,
    fault_41_an_add_of_a_pod_that_asks_for_all_meets_a_socket_without_room_at_every_request,
    fault_41_a_del_of_a_pod_that_asks_for_all_meets_a_socket_without_room_at_every_request,
);

const REST: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_millis(300);
/// The state file, without its lock.
const STATE: &[&str] = &["state "];
/// The sockets in the node's namespace and in the pod's.
const NETLINK: &[&str] = &["host ", "pod ", "nftables", "conntrack"];

fn is_one_of(effects: &[&str], boundary: &Boundary) -> bool {
    effects
        .iter()
        .any(|effect| boundary.effect.starts_with(effect))
}

/// Whether the node is as if the sandbox had never existed.
fn undone(setup: &Setup) -> bool {
    let links = audit::links(setup).map(|links| links.len());
    let assigned = count(&setup.node, "assigned");
    let living = setup.pods.len();
    links.is_ok_and(|n| n == living) && assigned.is_ok_and(|n| n == living)
}

fn fault_35_a_medium_that_fails_refuses_adds_makes_dels_unreachable_and_heals() -> Outcome {
    let mut setup = full_node(2)?;
    let leaves = setup.pods.pop().expect("the node has pods");
    let fresh = sandbox(&setup, "fresh")?;
    let broken = AtomicBool::new(true);
    let strikes = |boundary: &Boundary| broken.load(Relaxed) && is_one_of(STATE, boundary);
    let mut added = Answer::default();
    let trace = setup.beset(&strikes, Injection::Refuse(Errno::EIO), |setup| {
        let host = setup.node.netns();
        let add = setup.node.invocation("ADD", "fresh", Some(&fresh.path));
        let del = setup.node.invocation("DEL", &leaves.id, Some(&leaves.path));
        for _ in 0..2 {
            let before = audit::links(setup)?;
            let refused = add.run(host)?;
            assert_eq!(refused.error_code(), Some(5), "{refused:?}");
            let text = refused.error_text();
            assert!(text.contains("Input/output error"), "{text}");
            let undone = || audit::links(setup).is_ok_and(|links| links.is_subset(&before));
            assert!(eventually(REST, undone), "{}", setup.node.log());

            let unfinished = del.clone().conf("deadlineSeconds", json!(2)).run(host)?;
            assert!(!unfinished.succeeded(), "{unfinished:?}");
            assert!(ping(host, None, leaves.address(), SILENCE)?.is_none());
        }
        let stays = &setup.pods[0];
        assert!(ping(host, None, stays.address(), REST)?.is_some());

        broken.store(false, Relaxed);
        succeeded(Some(del.run(host)?))?;
        added = succeeded(Some(add.run(host)?))?;
        Ok(())
    })?;
    assert!(trace.struck > 0, "no write failed");
    // The answer is durable.
    setup.start()?;
    let address = leaves.address();
    setup.pods.push(Pod { added, ..fresh });
    audit::at_rest(&setup, &[address], REST)?;
    Ok(())
}

/// Work with one refused effect.
struct Refused {
    verb: Verb,
    effects: &'static [&'static str],
    errno: Errno,
    asked: Asked,
}

#[derive(Clone, Copy)]
enum Verb {
    /// Then an ADD for another sandbox follows, for which only the same address is left. The runtime never deletes the
    /// first one, so the daemon gets no more requests for it.
    Add,
    /// The runtime repeats it until it succeeds, as with every DEL.
    Del,
}

impl Scenario for Refused {
    fn setup(&self) -> io::Result<Setup> {
        full_node_and(self.asked)
    }

    fn done(&self, _: &Setup) -> bool {
        true
    }

    fn counts(&self, boundary: &Boundary) -> bool {
        boundary.side == Side::Before && is_one_of(self.effects, boundary)
    }

    fn strike(
        &self,
        setup: &mut Setup,
        at: Option<&Boundary>,
    ) -> io::Result<(Trace, Option<Answer>)> {
        match self.verb {
            Verb::Add => self.strike_add(setup, at),
            Verb::Del => self.strike_del(setup, at),
        }
    }

    fn judge(&self, setup: &mut Setup, answer: Option<Answer>) -> io::Result<()> {
        let answer = succeeded(answer)?;
        let Verb::Add = self.verb else {
            return Ok(());
        };
        setup.pods.last_mut().expect("the work is about it").added = answer;
        audit::at_rest(setup, &[], REST)?;
        // Once more: the state after the first start must be just as good.
        setup.node.kill_daemon()?;
        setup.start()?;
        audit::at_rest(setup, &[], REST)
    }
}

impl Refused {
    fn strike_add(
        &self,
        setup: &mut Setup,
        at: Option<&Boundary>,
    ) -> io::Result<(Trace, Option<Answer>)> {
        let (mut first, mut second) = (sandbox(setup, "first")?, sandbox(setup, "second")?);
        // The second one wants the host ports of the first one, too.
        first.asked = self.asked.of("first");
        second.asked = self.asked.of("first");
        let (mut living, mut answer) = (None, None);
        let strikes = |boundary: &Boundary| at == Some(boundary);
        let trace = setup.beset(&strikes, Injection::Refuse(self.errno), |setup| {
            let add = |pod: &Pod| adding(setup, pod).run(setup.node.netns());
            let mut added = add(&first)?;
            let mut pod = first;
            if !added.succeeded() {
                let code = added.error_code();
                if !code.is_some_and(|code| [5, 11].contains(&code) || code >= 100) {
                    return Err(io::Error::other(format!("{added:?}")));
                }
                if !eventually(REST, || undone(setup)) {
                    return Err(io::Error::other(setup.node.log()));
                }
                Netns::unbind(&pod.path)?;
                pod = second;
                added = succeeded(Some(add(&pod)?))?;
            }
            living = Some(pod);
            answer = Some(added);
            Ok(())
        })?;
        setup.pods.extend(living);
        setup.start()?;
        Ok((trace, answer))
    }

    fn strike_del(
        &self,
        setup: &mut Setup,
        at: Option<&Boundary>,
    ) -> io::Result<(Trace, Option<Answer>)> {
        let leaves = setup.pods.pop().expect("the node has pods");
        let strikes = |boundary: &Boundary| at == Some(boundary);
        let mut answer = None;
        let trace = setup.beset(&strikes, Injection::Refuse(self.errno), |setup| {
            let host = setup.node.netns();
            let del = setup.node.invocation("DEL", &leaves.id, Some(&leaves.path));
            let first = del.clone().conf("deadlineSeconds", json!(2)).run(host)?;
            let silent = |del: &Answer| match ping(host, None, leaves.address(), SILENCE)? {
                None => Ok(()),
                Some(_) => Err(io::Error::other(format!("it still answers: {del:?}"))),
            };
            // Only a DEL whose route the kernel did not remove may leave the pod reachable, and it returns an error.
            if first.succeeded() || self.effects == STATE {
                silent(&first)?;
            }
            answer = Some(match first.succeeded() {
                true => first,
                false => del.run(host)?,
            });
            answer.iter().try_for_each(silent)?;
            let gone = || audit::links(setup).is_ok_and(|links| links.len() == setup.pods.len());
            if !eventually(REST, gone) {
                return Err(io::Error::other(format!(
                    "its link stays\n{}",
                    setup.node.log()
                )));
            }
            Ok(())
        })?;
        // Still bound: otherwise the end of its namespace would free it.
        setup.start()?;
        let address = leaves.address();
        succeeded(answer.clone())?;
        audit::at_rest(setup, &[address], REST)?;
        Ok((trace, answer))
    }
}

/// Kills nothing: each effect in turn fails with this error.
fn meets(
    name: &str,
    (verb, asked): (Verb, Asked),
    effects: &'static [&'static str],
    errno: Errno,
) -> Outcome {
    let work = Refused {
        verb,
        effects,
        errno,
        asked,
    };
    survive(name, &work, WORKERS)
}

fn fault_35_an_add_meets_an_io_error_at_every_write() -> Outcome {
    meets("ADD, EIO", (Verb::Add, Asked::Nothing), STATE, Errno::EIO)
}

fn fault_35_a_del_meets_an_io_error_at_every_write() -> Outcome {
    meets("DEL, EIO", (Verb::Del, Asked::Nothing), STATE, Errno::EIO)
}

fn fault_41_an_add_meets_a_socket_without_room_at_every_request() -> Outcome {
    meets(
        "ADD, ENOBUFS",
        (Verb::Add, Asked::Nothing),
        NETLINK,
        Errno::ENOBUFS,
    )
}

fn fault_41_a_del_meets_a_socket_without_room_at_every_request() -> Outcome {
    meets(
        "DEL, ENOBUFS",
        (Verb::Del, Asked::Nothing),
        NETLINK,
        Errno::ENOBUFS,
    )
}

fn fault_41_an_add_of_a_pod_that_asks_for_all_meets_a_socket_without_room_at_every_request()
-> Outcome {
    let work = (Verb::Add, Asked::Everything);
    meets(
        "ADD with everything, ENOBUFS",
        work,
        NETLINK,
        Errno::ENOBUFS,
    )
}

fn fault_41_a_del_of_a_pod_that_asks_for_all_meets_a_socket_without_room_at_every_request()
-> Outcome {
    let work = (Verb::Del, Asked::Everything);
    meets(
        "DEL with everything, ENOBUFS",
        work,
        NETLINK,
        Errno::ENOBUFS,
    )
}
