//! One node of its own VPC, made for one run: brought to rest, struck at a boundary, started again.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle, ScopedJoinHandle},
    time::{Duration, Instant},
};

use datapath::netns::Netns;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use vpc_sim::SimConfig;

use super::tracer::{self, Boundary, Orders, Trace};
use crate::{
    lab::{Lab, count, eventually},
    node::{Node, Pod},
    plugin::{Invocation, Outcome},
};

/// How long the daemon must have had no effect for its work to count as done, besides what the end can be told by from
/// outside. Costs only the runs that end without a kill; a daemon may have to wait for a processor as long as this.
const QUIET: Duration = Duration::from_secs(3);
/// The longest that the traced work may take.
const WORK_LIMIT: Duration = Duration::from_secs(150);

/// See the module.
#[derive(Debug)]
pub struct Stage {
    pub lab: Lab,
    pub node: Node,
    /// The node's namespace, for plugins that run while the daemon is started again.
    pub host: Arc<Netns>,
    /// Another instance, without a daemon: the far end of the fabric.
    pub far: Node,
    /// Those that must live.
    pub pods: Vec<Pod>,
}

/// When a runtime that met a dead daemon is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// At once: the plugin still waits.
    Soon,
    /// Once the plugin has given up.
    Late,
}

impl Stage {
    /// A node of `kind` with its daemon running.
    ///
    /// # Errors
    /// If the lab cannot be set up.
    pub fn new(kind: &str, settings: &[(&str, &str)]) -> io::Result<Self> {
        let lab = Lab::start(SimConfig::default())?;
        let (far, node) = (lab.bare_node("t3.small", &[])?, lab.node(kind, settings)?);
        Ok(Self {
            lab,
            host: Arc::new(node.host()?),
            node,
            far,
            pods: Vec::new(),
        })
    }

    /// Waits until so many addresses are free.
    ///
    /// # Errors
    /// If it does not come to that.
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

    /// Has the runtime do `work`, kills the daemon `at` a boundary of that (or, without one, when all is done) and starts
    /// it again.
    ///
    /// `done` tells from outside, without asking the daemon, that nothing of the work is left to do.
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
        let (trace, verb) = self.trace(pid, at, work, &done)?;
        let (early, late) = match restart {
            Restart::Late => (verb.map(finish).transpose()?, None),
            Restart::Soon => (None, verb),
        };
        self.start()?;
        let outcome = early.or(late.map(finish).transpose()?);
        Ok((trace, outcome))
    }

    /// Kills the daemon `at` a boundary of the runtime's `work`, and does not start it again: what the plugin says when it
    /// has given up.
    ///
    /// # Errors
    /// If the boundary is not met.
    pub fn fell(&mut self, at: &Boundary, work: Invocation) -> io::Result<Outcome> {
        let pid = self.node.surrender_daemon();
        match self.trace(pid, Some(at), Some(work), &|_| true)? {
            (trace, Some(verb)) if trace.killed => finish(verb),
            _ => Err(io::Error::other(format!("{at}: not met"))),
        }
    }

    /// Starts the daemon, kills it `at` a boundary of its start (or, without one, when that is `done`) and starts it again.
    ///
    /// # Errors
    /// As [`Stage::strike`].
    pub fn strike_start(
        &mut self,
        at: Option<&Boundary>,
        done: impl Fn(&Self) -> bool,
    ) -> io::Result<Trace> {
        self.lab.sim.clear_calls();
        let pid = self.node.hold_daemon(&self.lab.sim.ec2_endpoint())?;
        let (trace, _) = self.trace(pid, at, None, &done)?;
        self.start()?;
        Ok(trace)
    }

    fn trace(
        &self,
        pid: Pid,
        at: Option<&Boundary>,
        work: Option<Invocation>,
        done: &impl Fn(&Self) -> bool,
    ) -> io::Result<(Trace, Option<Verb>)> {
        let (armed, arming) = mpsc::channel();
        let count = AtomicUsize::new(0);
        let applied = || self.lab.sim.calls().len();
        thread::scope(|scope| {
            let orders = Orders {
                pid,
                at,
                applied: &applied,
                armed,
                count: &count,
            };
            let tracer = scope.spawn(|| tracer::follow(orders));
            if arming.recv().is_err() {
                return Err(tracer
                    .join()
                    .expect("no tracer panics")
                    .expect_err("it ended early"));
            }
            // A daemon that was held before its start goes on; to any other this says nothing.
            kill(pid, Signal::SIGCONT)?;
            let host = self.host.clone();
            let verb = work.map(|work| thread::spawn(move || work.run(&host)));
            let over = || verb.as_ref().is_none_or(JoinHandle::is_finished) && done(self);
            let ended = wait(&tracer, &count, over);
            if !tracer.is_finished() {
                kill(pid, Signal::SIGKILL)?;
            }
            let trace = tracer.join().expect("no tracer panics")?;
            if ended {
                return Ok((trace, verb));
            }
            let text = format!("the work did not end\n{}", self.node.log());
            Err(io::Error::other(text))
        })
    }
}

/// A plugin at work.
type Verb = JoinHandle<io::Result<Outcome>>;

fn finish(verb: Verb) -> io::Result<Outcome> {
    verb.join().expect("no plugin's thread panics")
}

/// Waits until the daemon has died, or the work is over and quiet has set in; says whether it came to that in time.
#[expect(clippy::disallowed_methods, reason = "the lab waits in real time")]
fn wait(
    tracer: &ScopedJoinHandle<'_, io::Result<Trace>>,
    count: &AtomicUsize,
    over: impl Fn() -> bool,
) -> bool {
    let mut last = (count.load(Ordering::Relaxed), Instant::now());
    eventually(WORK_LIMIT, || {
        let now = count.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        tracer.is_finished() || (last.1.elapsed() > QUIET && over())
    })
}
