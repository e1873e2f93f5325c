//! One node in its own VPC for one run: brought to rest, struck at a boundary, started again.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle, ScopedJoinHandle},
    time::{Duration, Instant},
};

use datapath::{netlink::Family, netns::Netns};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use vpc_sim::SimConfig;

use super::{
    clock_offset::ClockOffset,
    tracer::{self, Boundary, Injection, Plan, Trace},
};
use crate::{
    Lab,
    node::{
        Node, Pod, count,
        plugin::{Invocation, Outcome},
    },
    wait::eventually,
};

/// How long the daemon must have no effect before its work counts as complete, in addition to checks from outside. This
/// costs time only in runs without a kill; a daemon may have to wait this long for a processor.
const QUIET: Duration = Duration::from_secs(3);
/// The time limit of the traced work.
const WORK_LIMIT: Duration = Duration::from_secs(150);

/// See the module.
#[derive(Debug)]
pub struct Setup {
    pub lab: Lab,
    pub node: Node,
    /// The node's namespace, for plugins that run while the daemon is restarted.
    pub host: Arc<Netns>,
    /// Another instance without a daemon: the far end of the fabric.
    pub far: Node,
    /// Those that must stay alive.
    pub pods: Vec<Pod>,
    /// Of the pods.
    pub family: Family,
    /// Whether each pod has an address for destinations of the other family too.
    pub crosses: bool,
    /// The daemon's clocks, if they can be set forward.
    ahead: Option<ClockOffset>,
}

/// When a runtime that met a dead daemon gets an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Soon: the plugin is still waiting.
    Soon,
    /// After the plugin has given up.
    Late,
}

impl Setup {
    /// A node of this instance type with its daemon running.
    ///
    /// # Errors
    /// If the lab cannot be set up.
    pub fn new(kind: &str, settings: &[(&str, &str)]) -> io::Result<Self> {
        let lab = Lab::start(vpc_for(settings))?;
        let node = lab.node(kind, settings)?;
        Self::over(lab, node, settings, None)
    }

    /// The same, with a daemon that was never started.
    ///
    /// # Errors
    /// If the lab cannot be set up.
    pub fn bare(kind: &str, settings: &[(&str, &str)]) -> io::Result<Self> {
        let lab = Lab::start(vpc_for(settings))?;
        let node = lab.bare_node(kind, settings)?;
        Self::over(lab, node, settings, None)
    }

    /// The same, with clocks that can be set forward.
    ///
    /// # Errors
    /// If the lab cannot be set up.
    pub fn with_clocks(kind: &str, settings: &[(&str, &str)]) -> io::Result<Self> {
        let lab = Lab::start(vpc_for(settings))?;
        let ahead = ClockOffset::new(lab.dir())?;
        let node = lab.node(kind, &[settings, &ahead.settings()].concat())?;
        Self::over(lab, node, settings, Some(ahead))
    }

    fn over(
        lab: Lab,
        node: Node,
        settings: &[(&str, &str)],
        ahead: Option<ClockOffset>,
    ) -> io::Result<Self> {
        let (family, crosses) = match is_on(settings, "ENABLE_IPv6", false) {
            true => (Family::V6, is_on(settings, "ENABLE_V4_EGRESS", true)),
            false => (Family::V4, is_on(settings, "ENABLE_V6_EGRESS", false)),
        };
        Ok(Self {
            family,
            crosses,
            far: lab.bare_node("t3.small", &[])?,
            host: Arc::new(node.host()?),
            lab,
            node,
            pods: Vec::new(),
            ahead,
        })
    }

    /// Stops the daemon until its clocks are set forward and it is told to continue.
    ///
    /// # Errors
    /// If it cannot be stopped.
    ///
    /// # Panics
    /// If the setup was not created [`Setup::with_clocks`].
    pub fn fall_asleep(&mut self, span: Duration) -> io::Result<Pid> {
        let ahead = self.ahead.as_mut().expect("clocks that can be set forward");
        ahead.fall_asleep(&self.node, span)
    }

    /// Lets this much time pass for the daemon at once.
    ///
    /// # Errors
    /// As [`Setup::fall_asleep`].
    pub fn pass(&mut self, span: Duration) -> io::Result<()> {
        let ahead = self.ahead.as_mut().expect("clocks that can be set forward");
        ahead.pass(&self.node, span)
    }

    /// Waits until this many addresses are free.
    ///
    /// # Errors
    /// If that does not happen.
    pub fn await_free(&self, free: usize) -> io::Result<()> {
        let there = || count(&self.node, "free").is_ok_and(|n| n == free);
        if eventually(Duration::from_secs(60), there) {
            return Ok(());
        }
        let log = self.node.log();
        Err(io::Error::other(format!(
            "never {free} free addresses\n{log}"
        )))
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn start(&mut self) -> io::Result<()> {
        self.node.start_daemon(&self.lab.sim.ec2_endpoint())
    }

    /// Makes the runtime do `work`, kills the daemon `at` one of its boundaries (or, without one, when all is done) and
    /// starts it again.
    ///
    /// `done` determines from outside, without the daemon, that the work is complete.
    ///
    /// # Errors
    /// If the daemon cannot be traced or started, or the work does not end.
    pub fn strike(
        &mut self,
        at: Option<&Boundary>,
        work: Option<Invocation>,
        done: impl Fn(&Self) -> bool,
        restart: Restart,
    ) -> io::Result<(Trace, Option<Outcome>)> {
        self.lab.sim.clear_calls();
        let pid = self.node.surrender_daemon();
        let here = |boundary: &Boundary| at == Some(boundary);
        let (trace, verb) = self.trace(pid, &here, work, &done)?;
        let (early, late) = match restart {
            Restart::Late => (verb.map(finish).transpose()?, None),
            Restart::Soon => (None, verb),
        };
        self.start()?;
        let outcome = early.or(late.map(finish).transpose()?);
        Ok((trace, outcome))
    }

    /// Starts the daemon, kills it `at` a boundary of its start (or, without one, when that is `done`) and starts it again.
    /// `dead` looks at the node in between.
    ///
    /// # Errors
    /// As [`Setup::strike`]; those of `dead`.
    pub fn strike_start(
        &mut self,
        at: Option<&Boundary>,
        done: impl Fn(&Self) -> bool,
        dead: impl FnOnce(&Self) -> io::Result<()>,
    ) -> io::Result<Trace> {
        self.lab.sim.clear_calls();
        let pid = self.node.hold_daemon(&self.lab.sim.ec2_endpoint())?;
        let here = |boundary: &Boundary| at == Some(boundary);
        let (trace, _) = self.trace(pid, &here, None, &done)?;
        dead(self)?;
        self.start()?;
        Ok(trace)
    }

    /// Runs a command of the daemon's binary to its end, or kills it `at` a boundary.
    ///
    /// # Errors
    /// If it cannot be traced, or does not end.
    pub fn strike_command(
        &mut self,
        at: Option<&Boundary>,
        arguments: &[&str],
    ) -> io::Result<Trace> {
        let pid = self.node.hold(&self.lab.sim.ec2_endpoint(), arguments)?;
        let here = |boundary: &Boundary| at == Some(boundary);
        Ok(self.trace(pid, &here, None, &|_| false)?.0)
    }

    /// Applies `blow` to the running daemon at every boundary in `strikes`, as long as `during` takes; then kills it
    /// and does not start it again.
    ///
    /// # Errors
    /// If the daemon cannot be traced; the errors of `during`.
    pub fn beset(
        &mut self,
        strikes: Strikes<'_>,
        blow: Injection,
        during: impl FnOnce(&Self) -> io::Result<()>,
    ) -> io::Result<Trace> {
        let pid = self.node.surrender_daemon();
        self.traced(pid, (strikes, blow), |_, _| during(self))
            .map(|(trace, ())| trace)
    }

    /// Traces the daemon through `work`, until it has died or all is done, and kills it at `strikes`.
    fn trace(
        &self,
        pid: Pid,
        strikes: Strikes<'_>,
        work: Option<Invocation>,
        done: &impl Fn(&Self) -> bool,
    ) -> io::Result<(Trace, Option<Verb>)> {
        self.traced(pid, (strikes, Injection::Kill), |tracer, count| {
            let host = self.host.clone();
            let verb = work.map(|work| thread::spawn(move || work.run(&host)));
            let over = || verb.as_ref().is_none_or(JoinHandle::is_finished) && done(self);
            if wait(tracer, count, over) {
                return Ok(verb);
            }
            let text = format!("the requests did not end\n{}", self.node.log());
            Err(io::Error::other(text))
        })
    }

    /// Traces the daemon as long as `during` takes, then kills it.
    fn traced<T>(
        &self,
        pid: Pid,
        (strikes, blow): (Strikes<'_>, Injection),
        during: impl FnOnce(&Tracer<'_>, &AtomicUsize) -> io::Result<T>,
    ) -> io::Result<(Trace, T)> {
        let (armed, arming) = mpsc::channel();
        let count = AtomicUsize::new(0);
        let applied = || self.lab.sim.calls().len();
        thread::scope(|scope| {
            let orders = Plan {
                pid,
                strikes,
                blow,
                applied: &applied,
                armed,
                count: &count,
            };
            let tracer = scope.spawn(|| tracer::follow(orders));
            // This is never sent for a daemon that ended at once, or that cannot be traced.
            if arming.recv().is_ok() {
                // Continues a daemon that was stopped, before its start or later; no effect on any other.
                kill(pid, Signal::SIGCONT)?;
            }
            // A failing test must not leave a tracer behind that waits for the daemon's end.
            let result = catch_unwind(AssertUnwindSafe(|| during(&tracer, &count)));
            if !tracer.is_finished() {
                kill(pid, Signal::SIGKILL)?;
            }
            let trace = tracer.join().expect("no tracer panics")?;
            match result {
                Ok(result) => Ok((trace, result?)),
                Err(panic) => resume_unwind(panic),
            }
        })
    }
}

fn is_on(settings: &[(&str, &str)], name: &str, otherwise: bool) -> bool {
    let set = settings.iter().rev().find(|(known, _)| *known == name);
    set.map_or(otherwise, |(_, value)| *value == "true")
}

/// The VPC that a node with these settings needs.
fn vpc_for(settings: &[(&str, &str)]) -> SimConfig {
    let six = ["ENABLE_IPv6", "ENABLE_V6_EGRESS"];
    match six.iter().any(|name| is_on(settings, name, false)) {
        true => SimConfig::dual_stack(),
        false => SimConfig::default(),
    }
}

/// The boundaries at which to strike.
type Strikes<'a> = &'a (dyn Fn(&Boundary) -> bool + Sync);
/// A running tracer.
type Tracer<'scope> = ScopedJoinHandle<'scope, io::Result<Trace>>;
/// A running plugin.
type Verb = JoinHandle<io::Result<Outcome>>;

fn finish(verb: Verb) -> io::Result<Outcome> {
    verb.join().expect("no plugin's thread panics")
}

/// Waits until the daemon has died, or the work is complete and there are no more effects; returns whether this
/// happened in time.
#[expect(clippy::disallowed_methods, reason = "the lab waits in real time")]
fn wait(tracer: &Tracer<'_>, count: &AtomicUsize, over: impl Fn() -> bool) -> bool {
    let mut last = (count.load(Ordering::Relaxed), Instant::now());
    eventually(WORK_LIMIT, || {
        let now = count.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        tracer.is_finished() || (last.1.elapsed() > QUIET && over())
    })
}
