//! Follows a running process through ptrace, lists the boundaries of its effects and kills it at a chosen one.
//!
//! The tracing thread is the process's only tracer and, once it has ended, its reaper: whoever started the process must
//! not wait for it. A killed process does not carry out the call at whose entry it stood, and has carried out the one
//! at whose exit it stood.

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
use crate::lab::eventually;

/// How long a sent EC2 request may take to be carried out.
const APPLIED_LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Before,
    After,
}

/// One boundary: a side of the `nth` effect of this name since the tracing began, from 1.
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

/// What a traced process did until its end.
#[derive(Debug, Default)]
pub struct Trace {
    /// In the order in which they were met; those after the fatal one are not told.
    pub met: Vec<Boundary>,
    /// Whether it was killed at the chosen boundary, and not from outside.
    pub killed: bool,
}

/// How to follow.
#[expect(
    missing_debug_implementations,
    reason = "a closure has nothing to show"
)]
pub struct Orders<'a> {
    pub pid: Pid,
    /// Where to kill it.
    pub at: Option<&'a Boundary>,
    /// How many calls of this process EC2 has carried out so far.
    pub applied: &'a (dyn Fn() -> usize + Sync),
    /// Told once, when no effect can escape any more.
    pub armed: mpsc::Sender<()>,
    /// Counts the boundaries as they are met, for whoever waits for quiet.
    pub count: &'a AtomicUsize,
}

struct Tracer<'a> {
    orders: Orders<'a>,
    reader: Reader,
    /// Threads that have not stopped for the first time.
    unarmed: BTreeSet<Pid>,
    /// Threads inside a system call, with the effect of it and what EC2 had done when it began.
    inside: HashMap<Pid, Option<(Boundary, Kind, usize)>>,
    met: BTreeMap<String, usize>,
    trace: Trace,
}

/// Follows the process to its end. To be called on a thread of its own.
///
/// # Errors
/// If the process cannot be traced: it is gone, or somebody else traces it.
pub fn follow(orders: Orders<'_>) -> io::Result<Trace> {
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
    // Not the children of other threads: they have tracers of their own.
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

/// Attaches to every thread. One that is born meanwhile is found by the next look, or was born traced.
fn seize(pid: Pid) -> io::Result<BTreeSet<Pid>> {
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    let (mut seen, mut seized) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let before = seen.len();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|text| text.parse().ok());
            let tid = Pid::from_raw(number.ok_or_else(|| io::Error::other("an odd thread id"))?);
            if !seen.insert(tid) {
                continue;
            }
            match ptrace::seize(tid, options).and_then(|()| ptrace::interrupt(tid)) {
                Ok(()) => drop(seized.insert(tid)),
                // Gone already; traced already, as a thread that a traced one has started.
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
                    // Killed from outside while it stood there.
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
        if self.trace.killed {
            return Ok(());
        }
        let call = registers::read(tid)?;
        if let Some(effect) = self.inside.remove(&tid) {
            if let Some((boundary, kind, applied)) = effect
                && (kind == Kind::Change || call.result > 0)
            {
                self.after(boundary, kind, applied);
            }
            return Ok(());
        }
        let effect = self.reader.of(call).map(|effect| self.before(effect));
        self.inside.insert(tid, effect);
        Ok(())
    }

    fn before(&mut self, Effect { kind, name }: Effect) -> (Boundary, Kind, usize) {
        let boundary = Boundary {
            effect: name,
            nth: 0,
            side: Side::Before,
        };
        // A read that finds nothing is no effect, so it has no number before it is known to have found something.
        if kind == Kind::Answer {
            return (boundary, kind, 0);
        }
        let applied = match kind {
            Kind::Request => (self.orders.applied)(),
            _ => 0,
        };
        let boundary = self.number(boundary);
        self.meet(boundary.clone());
        (boundary, kind, applied)
    }

    fn after(&mut self, boundary: Boundary, kind: Kind, applied: usize) {
        let boundary = match kind {
            Kind::Answer => self.number(boundary),
            Kind::Change | Kind::Request => boundary,
        };
        let boundary = Boundary {
            side: Side::After,
            ..boundary
        };
        if kind == Kind::Request && self.orders.at == Some(&boundary) {
            // The daemon cannot read the answer meanwhile: its threads stop at their next call.
            eventually(APPLIED_LIMIT, || (self.orders.applied)() > applied);
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

    fn meet(&mut self, boundary: Boundary) {
        if self.trace.killed {
            return;
        }
        self.orders.count.fetch_add(1, Ordering::Relaxed);
        if self.orders.at == Some(&boundary) {
            // It cannot fail: the thread that met the boundary stands still, so the process exists.
            self.trace.killed = kill(self.orders.pid, Signal::SIGKILL).is_ok();
        }
        self.trace.met.push(boundary);
    }
}

/// Lets a thread go on to its next system call. One that was killed meanwhile is waited for like the others.
fn resume(tid: Pid, signal: Option<Signal>) -> io::Result<()> {
    match ptrace::syscall(tid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
