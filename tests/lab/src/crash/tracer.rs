//! Traces a running process with ptrace, lists the boundaries of its effects and strikes at chosen ones: kills it, or
//! makes the kernel refuse the call.
//!
//! The tracing thread is the process's only tracer and, after its end, its reaper: the parent must not wait for it. A
//! killed process has not executed the call that it was about to enter, and has executed the one from which it was
//! about to return.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, fs, io,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{
    effect::{Effect, Kind, Reader},
    registers,
};
use crate::wait::eventually;

/// The time limit until EC2 has executed a sent request.
const APPLIED_LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Before,
    After,
}

/// One boundary: a side of the `nth` effect with this name since the tracing started, from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boundary {
    pub effect: String,
    pub nth: usize,
    pub side: Side,
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Before => "before",
            Side::After => "after",
        };
        write!(f, "{side} {} #{}", self.effect, self.nth)
    }
}

/// What happens to the process at a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// SIGKILL.
    Kill,
    /// The call is not executed and fails with this error. Only possible before changes through a descriptor.
    Refuse(Errno),
}

/// What a traced process did until its end.
#[derive(Debug, Default)]
pub struct Trace {
    /// In order; those after a fatal one are not listed.
    pub met: Vec<Boundary>,
    /// How often it was struck; an end from outside does not count.
    pub struck: usize,
}

/// How to trace.
#[expect(
    missing_debug_implementations,
    reason = "a closure has no debug output"
)]
pub struct Plan<'a> {
    pub pid: Pid,
    /// The boundaries at which to strike.
    pub strikes: &'a (dyn Fn(&Boundary) -> bool + Sync),
    pub blow: Injection,
    /// How many calls of this process EC2 has executed so far.
    pub applied: &'a (dyn Fn() -> usize + Sync),
    /// Notified once, when no effect can be missed any more.
    pub armed: mpsc::Sender<()>,
    /// Counts the boundaries, to detect when there are no more.
    pub count: &'a AtomicUsize,
}

struct Tracer<'a> {
    orders: Plan<'a>,
    reader: Reader,
    /// Threads that have not stopped for the first time.
    unarmed: BTreeSet<Pid>,
    /// Threads inside a system call, with its effect if it has one.
    inside: HashMap<Pid, Option<Inside>>,
    met: BTreeMap<String, usize>,
    trace: Trace,
}

/// An effect whose call has started.
struct Inside {
    boundary: Boundary,
    kind: Kind,
    /// The number of calls that EC2 had executed then.
    applied: usize,
    /// The error of the call, and its original argument.
    refused: Option<(Errno, u64)>,
}

/// Traces the process to its end. Call this on a separate thread.
///
/// # Errors
/// If the process cannot be traced: it has ended, or another process traces it.
pub fn follow(orders: Plan<'_>) -> io::Result<Trace> {
    let reader = Reader::new(orders.pid);
    let unarmed = seize(orders.pid)?;
    let mut tracer = Tracer {
        orders,
        reader,
        unarmed,
        inside: HashMap::new(),
        met: BTreeMap::new(),
        trace: Trace::default(),
    };
    // Not the children of other threads, which have their own tracers.
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    loop {
        match waitpid(None, Some(flags)) {
            Ok(status) => tracer.on(status)?,
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(tracer.trace),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Attaches to every thread. A new thread is found in the next round, or is traced from its start.
fn seize(pid: Pid) -> io::Result<BTreeSet<Pid>> {
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    let (mut seen, mut seized) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let before = seen.len();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|text| text.parse().ok());
            let tid =
                Pid::from_raw(number.ok_or_else(|| io::Error::other("an unexpected thread id"))?);
            if !seen.insert(tid) {
                continue;
            }
            match ptrace::seize(tid, options).and_then(|()| ptrace::interrupt(tid)) {
                Ok(()) => drop(seized.insert(tid)),
                // Already gone, or already traced, because a traced thread started it.
                Err(Errno::ESRCH | Errno::EPERM) if tid != pid => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        if seen.len() == before {
            return Ok(seized);
        }
    }
}

impl Tracer<'_> {
    fn on(&mut self, status: WaitStatus) -> io::Result<()> {
        match status {
            WaitStatus::PtraceSyscall(tid) => {
                match self.at_system_call(tid) {
                    // Killed from outside while it was stopped.
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(errno.into()),
                }
                resume(tid, None)
            }
            WaitStatus::PtraceEvent(tid, ..) => {
                let last = self.unarmed.remove(&tid) && self.unarmed.is_empty();
                resume(tid, None)?;
                if last {
                    // Nobody may be waiting for it any more.
                    self.orders.armed.send(()).unwrap_or_default();
                }
                Ok(())
            }
            WaitStatus::Stopped(tid, signal) => resume(tid, Some(signal)),
            _ => Ok(()),
        }
    }

    /// Entry and exit alternate for each thread; the first stop of a thread is an entry.
    fn at_system_call(&mut self, tid: Pid) -> nix::Result<()> {
        if self.killed() {
            return Ok(());
        }
        let call = registers::read(tid)?;
        if let Some(effect) = self.inside.remove(&tid) {
            match effect {
                Some(Inside {
                    refused: Some((errno, robbed)),
                    ..
                }) => registers::fail(tid, errno, robbed)?,
                Some(inside) if inside.kind == Kind::Change || call.result > 0 => {
                    self.after(inside)
                }
                _ => {}
            }
            return Ok(());
        }
        let effect = match self.reader.of(call) {
            Some(effect) => Some(self.before(tid, effect)?),
            None => None,
        };
        self.inside.insert(tid, effect);
        Ok(())
    }

    fn before(&mut self, tid: Pid, Effect { kind, name }: Effect) -> nix::Result<Inside> {
        let boundary = Boundary {
            effect: name,
            nth: 0,
            side: Side::Before,
        };
        let mut inside = Inside {
            boundary,
            kind,
            applied: 0,
            refused: None,
        };
        // A read without data is not an effect, so it has no number before it has returned data.
        if kind == Kind::Answer {
            return Ok(inside);
        }
        if kind == Kind::Request {
            inside.applied = (self.orders.applied)();
        }
        inside.boundary = self.number(inside.boundary);
        if self.meet(inside.boundary.clone())
            && let Injection::Refuse(errno) = self.orders.blow
            && kind == Kind::Change
        {
            inside.refused = Some((errno, registers::rob(tid)?));
            self.trace.struck += 1;
        }
        Ok(inside)
    }

    fn after(&mut self, inside: Inside) {
        let boundary = match inside.kind {
            Kind::Answer => self.number(inside.boundary),
            Kind::Change | Kind::Request => inside.boundary,
        };
        let boundary = Boundary {
            side: Side::After,
            ..boundary
        };
        if inside.kind == Kind::Request && (self.orders.strikes)(&boundary) {
            // The daemon cannot read the answer in the meantime: its threads stop at their next call.
            eventually(APPLIED_LIMIT, || (self.orders.applied)() > inside.applied);
        }
        self.meet(boundary);
    }

    fn number(&mut self, boundary: Boundary) -> Boundary {
        let met = self.met.entry(boundary.effect.clone()).or_default();
        *met += 1;
        Boundary {
            nth: *met,
            ..boundary
        }
    }

    /// Records the boundary; returns whether to strike there.
    fn meet(&mut self, boundary: Boundary) -> bool {
        self.orders.count.fetch_add(1, Ordering::Relaxed);
        let strikes = (self.orders.strikes)(&boundary);
        if strikes && self.orders.blow == Injection::Kill {
            // It cannot fail: the thread at the boundary is stopped, so the process exists.
            self.trace.struck += usize::from(kill(self.orders.pid, Signal::SIGKILL).is_ok());
        }
        self.trace.met.push(boundary);
        strikes
    }

    fn killed(&self) -> bool {
        self.orders.blow == Injection::Kill && self.trace.struck > 0
    }
}

/// Continues a thread until its next system call. One that was killed in the meantime is waited for like the others.
fn resume(tid: Pid, signal: Option<Signal>) -> io::Result<()> {
    match ptrace::syscall(tid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
