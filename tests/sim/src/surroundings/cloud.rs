//! EC2 in process: the daemon's calls reach the simulated world after a delay, or not at all, and so do the answers.

use std::{future::pending, sync::Arc, time::Duration};

use ipamd::ec2::{
    api::{Call, CallError, CallFuture, Ec2, Reply},
    codes::{Meaning, TABLE},
};
use planner::{Amount, Rest};
use tokio::time::sleep;
use vpc_sim::{Action, error::ApiError};

use crate::{
    faults::Fault,
    oracle,
    state::{Shared, State, trace::digest},
    surroundings::{calls, convert},
};

/// How long after its creation an ENI may not be found.
const FRESH: Duration = Duration::from_secs(6);

/// One daemon's connection to EC2.
#[derive(Clone, Debug)]
pub struct Cloud {
    pub shared: Arc<Shared>,
    pub generation: u64,
}

/// What happens to a call.
#[derive(Debug)]
struct Fate {
    /// Until it reaches EC2.
    before: Duration,
    applied: bool,
    /// From then until the caller gets the answer.
    after: Duration,
    /// The failure that the caller sees, whatever EC2 did.
    failure: Option<CallError>,
}

impl Ec2 for Cloud {
    fn call(&self, call: Call) -> CallFuture<'_> {
        Box::pin(self.clone().answer(call))
    }
}

impl Cloud {
    async fn answer(self, mut call: Call) -> Result<Reply, CallError> {
        let asked = self.shared.now();
        self.pass(&call, "pending").await;
        let fate = self.shared.with(|state, now| {
            oracle::spent(state, &call, now);
            state.fate(&mut call, now)
        });
        sleep(fate.before).await;
        // A dead daemon's calls have no caller, but those that were sent take effect.
        let dead = !self.shared.alive(self.generation);
        let survives = !dead || self.shared.with(|state, now| state.posthumous(now));
        let result = match fate.applied && survives {
            true => self.shared.with(|state, now| state.perform(&call, now)),
            false => Ok(Reply::Done),
        };
        if !dead && fate.applied {
            self.pass(&call, "applied").await;
        }
        sleep(fate.after).await;
        if dead || !self.shared.alive(self.generation) {
            return pending().await;
        }
        let result = match fate.failure {
            Some(failure) => Err(failure),
            None => result.map_err(|error| refusal(&call, &error)),
        };
        self.shared
            .with(|state, now| state.delivered(&call, &result, asked, now));
        self.pass(&call, "answered").await;
        result
    }

    async fn pass(&self, call: &Call, when: &'static str) {
        let name = || format!("{} {when}", call.action());
        if self.shared.point(self.generation, name) {
            pending().await
        }
    }
}

impl State {
    fn fate(&mut self, call: &mut Call, now: Duration) -> Fate {
        let latency = self.world.draw_call_latency(action(call));
        let full = self.scenario.timeout;
        let half = latency / 2;
        let plain = Fate {
            before: half,
            applied: true,
            after: half,
            failure: None,
        };
        let Some(fault) = self.fault_of(call, now) else {
            self.shrink(call, now);
            return plain;
        };
        self.count(fault, now);
        let failure = Some(match fault {
            Fault::Lasting => lasting(call, self.calls.below(u64::MAX)),
            fault => failure_of(call, fault),
        });
        match fault {
            Fault::LostReply => Fate {
                after: full.saturating_sub(half),
                failure,
                ..plain
            },
            Fault::Unsent => Fate {
                after: full.saturating_sub(half),
                applied: false,
                failure,
                ..plain
            },
            Fault::Refused => Fate {
                before: Duration::ZERO,
                applied: false,
                after: Duration::from_millis(1),
                failure,
            },
            Fault::Truncated | Fault::InternalApplied => Fate { failure, ..plain },
            _ => Fate {
                applied: false,
                failure,
                ..plain
            },
        }
    }

    fn fault_of(&mut self, call: &Call, now: Duration) -> Option<Fault> {
        let denied = self.scenario.window(Fault::Denied, now);
        if denied.is_some_and(|window| window.action == call.action()) {
            return Some(Fault::Denied);
        }
        let refused = self.scenario.window(Fault::Lasting, now);
        if refused.is_some_and(|window| window.action == call.action()) {
            return Some(Fault::Lasting);
        }
        if self.is_fresh(call, now) && self.strikes(Fault::Fresh, now) {
            return Some(Fault::Fresh);
        }
        let kinds = [
            Fault::Throttled,
            Fault::Refused,
            Fault::Unsent,
            Fault::LostReply,
            Fault::Truncated,
            Fault::Internal,
            Fault::InternalApplied,
        ];
        kinds.into_iter().find(|kind| self.strikes(*kind, now))
    }

    fn is_fresh(&self, call: &Call, now: Duration) -> bool {
        let eni = match call {
            Call::AttachNetworkInterface { eni, .. }
            | Call::AssignPrivateIpAddresses { eni, .. }
            | Call::DeleteOnTermination { eni, .. }
            | Call::DeleteNetworkInterface { eni } => eni,
            _ => return false,
        };
        self.made.get(eni).is_some_and(|at| now < *at + FRESH)
    }

    /// A partial success: EC2 assigns less than requested.
    fn shrink(&mut self, call: &mut Call, now: Duration) {
        let Call::AssignPrivateIpAddresses { amount, .. } = call else {
            return;
        };
        let (Amount::Addresses(n) | Amount::Prefixes(n) | Amount::Ipv6Prefixes(n)) = amount;
        if *n > 1 && self.strikes(Fault::Partial, now) {
            *n = 1 + u16::try_from(self.calls.below(u64::from(*n - 1))).unwrap_or(0);
            self.count(Fault::Partial, now);
        }
    }

    fn posthumous(&mut self, now: Duration) -> bool {
        let survives = self.calls.percent(50);
        if survives {
            self.count(Fault::Posthumous, now);
        }
        survives
    }

    fn perform(&mut self, call: &Call, now: Duration) -> Result<Reply, ApiError> {
        oracle::before_call(self, call, now);
        if self.strikes(Fault::Buckets, now) {
            calls::drain(&mut self.world, call, now);
        }
        self.crowd(call, now);
        let result = match self.without_room(call, now) {
            Some(error) => Err(error),
            None => calls::apply(self, call, now),
        };
        self.trace.note(
            now,
            "EC2",
            &[digest(call.action()), u64::from(result.is_ok())],
            || format!("{} -> {}", convert::words(call), convert::outcome(&result)),
        );
        match &result {
            Err(ApiError::Throttled) => self.count(Fault::Buckets, now),
            Err(ApiError::NoFreeAddresses { .. }) => self.count(Fault::Exhausted, now),
            Err(ApiError::NoFreeBlocks { .. }) => self.count(Fault::Fragmented, now),
            Ok(Reply::Interface(made)) => {
                self.made.entry(made.eni.clone()).or_insert(now);
            }
            _ => {}
        }
        result
    }

    /// A /64 has more blocks than others could use; EC2 may still answer that there is none.
    fn without_room(&self, call: &Call, now: Duration) -> Option<ApiError> {
        let Call::AssignPrivateIpAddresses {
            amount: Amount::Ipv6Prefixes(_),
            ..
        } = call
        else {
            return None;
        };
        let subnet = self.subnet.clone();
        if self.scenario.window(Fault::Exhausted, now).is_some() {
            return Some(ApiError::NoFreeAddresses { subnet });
        }
        let fragmented = self.scenario.window(Fault::Fragmented, now).is_some();
        fragmented.then_some(ApiError::NoFreeBlocks { subnet })
    }

    fn delivered(
        &mut self,
        call: &Call,
        result: &Result<Reply, CallError>,
        asked: Duration,
        now: Duration,
    ) {
        let ok = result.is_ok();
        self.trace.note(
            now,
            "answer",
            &[digest(call.action()), u64::from(ok)],
            || match result {
                Ok(_) => format!("{} done", call.action()),
                Err(error) => error.to_string(),
            },
        );
        if let Call::DescribeSubnets { .. } = call {
            self.places.unlisted |= !ok;
        }
        let stale = self.scenario.window(Fault::Stale, asked).is_some();
        if let Call::DescribeNetworkInterfaces { filters } = call
            && ok
            && !stale
        {
            match filters.as_slice() {
                [(name, _)] if name.starts_with("tag:") => self.disturbed.listed(asked, true),
                [(name, _)] if name == "attachment.instance-id" => {
                    self.disturbed.listed(asked, false)
                }
                _ => {}
            }
        }
    }
}

fn failure_of(call: &Call, fault: Fault) -> CallError {
    let (code, refused) = match fault {
        Fault::Throttled => (Some("RequestLimitExceeded"), true),
        Fault::Denied => (Some("UnauthorizedOperation"), true),
        Fault::Internal | Fault::InternalApplied => (Some("InternalError"), true),
        Fault::Fresh => (Some("InvalidNetworkInterfaceID.NotFound"), true),
        Fault::Refused => (None, true),
        _ => (None, false),
    };
    CallError {
        action: call.action(),
        code: code.map(str::to_owned),
        message: fault.name().to_owned(),
        refused,
    }
}

/// One of the codes with which EC2 refuses a call for long.
fn lasting(call: &Call, draw: u64) -> CallError {
    let rows = TABLE
        .iter()
        .filter(|row| row.meaning == Meaning::Refused(Rest::Long));
    let rows: Vec<_> = rows.collect();
    let at = usize::try_from(draw).unwrap_or(0) % rows.len();
    let (code, words) = (rows[at].code, rows[at].saying.unwrap_or(rows[at].text));
    CallError {
        action: call.action(),
        code: Some(code.to_owned()),
        message: format!("{code}: {words}"),
        refused: true,
    }
}

fn refusal(call: &Call, error: &ApiError) -> CallError {
    CallError {
        action: call.action(),
        code: Some(error.code().to_owned()),
        message: format!("{}: {error}", error.code()),
        refused: true,
    }
}

/// The world's name for a call.
fn action(call: &Call) -> Action {
    Action::parse(call.action()).expect("the simulator supports the daemon's calls")
}
