//! The one place where the daemon words its refusals: reason, cause with evidence, remedy, and when to try again.

use std::{net::IpAddr, time::Duration};

use datapath::pod::PodLink;
use planner::Sandbox;
use proto::{error_chain::chain, refusal::Refusal, v1::Reason};

use crate::{host::seam::WireError, state::store::StoreError};

const SOON: Duration = Duration::from_secs(1);

fn refusal(reason: Reason, cause: String, remedy: &str, retry_after: Option<Duration>) -> Refusal {
    Refusal::new(reason, &cause, remedy, retry_after)
}

/// What the planner said, for people.
#[must_use]
pub fn of_pool(refused: planner::Refusal) -> Refusal {
    use planner::Refusal as P;
    let cause = refused.to_string();
    let (reason, remedy, retry) = match refused {
        P::PodLimit { .. } => (
            Reason::PodLimit,
            "the pod starts once another one has left; lower the kubelet's max-pods to what `ipamd max-pods` prints, \
             or use a larger instance type",
            None,
        ),
        P::Empty { .. } => (
            Reason::PoolEmpty,
            "wait for the growth under way, or raise WARM_IP_TARGET",
            Some(SOON),
        ),
        P::Fixed => (
            Reason::PoolEmpty,
            "the pod starts once another one has left; give the node's ENIs more addresses, or let the pool grow",
            None,
        ),
        P::Wiring { .. } => (
            Reason::Busy,
            "see the daemon's log if the runtime's next try does not succeed",
            Some(SOON),
        ),
        P::Exhausted { retry_in, .. } => (
            Reason::SubnetExhausted,
            "free addresses in the subnet, or give the node another one",
            Some(retry_in),
        ),
        P::Throttled { retry_in } => (
            Reason::Ec2Throttled,
            "find what spends the account's EC2 request budget",
            Some(retry_in),
        ),
        P::Denied { .. } => (
            Reason::Ec2Denied,
            "allow the action in the node role's IAM policy; `ipamd doctor` tries each one",
            Some(SOON),
        ),
        P::Unreachable { retry_in, .. } => (
            Reason::Ec2Unreachable,
            "check the node's route to the EC2 endpoint and its DNS; `ipamd doctor` looks at both",
            Some(retry_in),
        ),
        P::EniLimit { .. } => (
            Reason::EniLimit,
            "the pod starts once another one has left; detach interfaces that do not serve pods, or raise MAX_ENI if \
             it is the limit",
            None,
        ),
        P::Stopping => return stopping(Reason::Stopping),
    };
    // Sooner than that, nothing can have changed.
    let retry = retry.map(|after: Duration| after.max(SOON));
    refusal(reason, cause, remedy, retry)
}

/// The daemon is on its way out, or has lost the thread that `reason` names and ends for it.
#[must_use]
pub fn stopping(reason: Reason) -> Refusal {
    let cause = match reason {
        Reason::Datapath => "ipamd has lost its network thread and ends",
        Reason::Store => "ipamd has lost its store thread and ends",
        _ => "ipamd is shutting down",
    };
    refusal(
        reason,
        cause.into(),
        "nothing: the runtime tries again, and meets the next daemon",
        Some(SOON),
    )
}

/// As many requests are under way as the daemon takes on.
#[must_use]
pub fn busy() -> Refusal {
    refusal(
        Reason::Busy,
        "ipamd has too many requests under way".into(),
        "find what sends them if the runtime's next try does not succeed",
        Some(SOON),
    )
}

/// The request's own task ended before it had an answer.
#[must_use]
pub fn defect(died: &dyn std::error::Error) -> Refusal {
    refusal(
        Reason::Unspecified,
        format!("the request's task died: {died}"),
        "a defect: report it with the daemon's log",
        None,
    )
}

#[must_use]
pub fn deleted(sandbox: &Sandbox) -> Refusal {
    let cause = format!(
        "sandbox {} was deleted before its ADD was done",
        sandbox.container_id
    );
    refusal(
        Reason::SandboxDeleted,
        cause,
        "nothing: the runtime makes a new sandbox",
        None,
    )
}

#[must_use]
pub fn no_record(sandbox: &Sandbox) -> Refusal {
    let cause = format!(
        "no record of {} {} in network {}",
        sandbox.container_id, sandbox.ifname, sandbox.network
    );
    refusal(
        Reason::UnknownSandbox,
        cause,
        "delete the pod: its sandbox was never, or is no longer, wired",
        None,
    )
}

#[must_use]
pub fn drift(sandbox: &Sandbox, differences: &str) -> Refusal {
    let cause = format!(
        "sandbox {} differs from its record: {differences}",
        sandbox.container_id
    );
    refusal(
        Reason::Drift,
        cause,
        "find what else configures the node's network; delete the pod to renew it",
        None,
    )
}

#[must_use]
pub fn of_store(error: &StoreError) -> Refusal {
    let cause = chain(error);
    refusal(
        Reason::Store,
        cause,
        "check space and permissions of the daemon's run directory",
        Some(SOON),
    )
}

#[must_use]
pub fn invalid(what: &dyn std::fmt::Display) -> Refusal {
    refusal(
        Reason::InvalidRequest,
        what.to_string(),
        "check that plugin and daemon are of one release",
        None,
    )
}

/// What the datapath said about one sandbox's wiring.
#[must_use]
pub fn of_wiring(link: &PodLink, error: &WireError) -> Refusal {
    let cause = format!(
        "could not wire {} for {}: {}",
        link.host_name,
        link.address,
        chain(error)
    );
    match error {
        WireError::InterfaceExists(_) => refusal(
            Reason::InterfaceExists,
            cause,
            "let only one network configure this interface name",
            None,
        ),
        WireError::AddressInUse(_) => refusal(
            Reason::Datapath,
            cause,
            "nothing: the address rests and the runtime's next try gets another one",
            Some(SOON),
        ),
        WireError::NameTaken(_) => refusal(
            Reason::Datapath,
            cause,
            "find what made that link and remove it, or set another AWS_VPC_K8S_CNI_VETHPREFIX",
            Some(SOON),
        ),
        WireError::Netns(_) => refusal(
            Reason::NetnsInvalid,
            cause,
            "nothing, if the sandbox has ended meanwhile: the runtime makes a new one",
            None,
        ),
        WireError::Gone(_) => stopping(Reason::Datapath),
        WireError::Kernel(_) => refusal(
            Reason::Datapath,
            cause,
            "see the daemon's log; the runtime tries again",
            Some(SOON),
        ),
    }
}

/// The pod's address may still be reached.
#[must_use]
pub fn of_unwiring(link: &str, address: IpAddr, error: &WireError) -> Refusal {
    if let WireError::Gone(_) = error {
        return stopping(Reason::Datapath);
    }
    let why = chain(error);
    refusal(
        Reason::Datapath,
        format!("could not remove the route to {address} over {link}: {why}"),
        "see the daemon's log; the runtime tries again",
        Some(SOON),
    )
}

#[cfg(test)]
mod tests;
