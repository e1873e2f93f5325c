//! The texts of all refusals of the daemon: reason, cause with evidence, remedy, and when to try again.

use std::{borrow::Cow, net::IpAddr, time::Duration};

use datapath::pod::PodLink;
use nettypes::HostPort;
use planner::{Family, Sandbox, placement::NoClass};
use proto::{error_chain::chain, refusal::Refusal, v1::Reason};

use super::{egress_leases::CAPACITY, port_book::Held};
use crate::{host::seam::WireError, state::store::StoreError};

const SOON: Duration = Duration::from_secs(1);

fn refusal(reason: Reason, cause: String, remedy: &str, retry_after: Option<Duration>) -> Refusal {
    Refusal::new(reason, &cause, remedy, retry_after)
}

/// The refusal for a reason of the planner.
#[must_use]
pub fn of_pool(refused: planner::Refusal) -> Refusal {
    use planner::Refusal as P;
    let cause = refused.to_string();
    let (reason, remedy, retry): (_, Cow<'static, str>, _) = match refused {
        P::PodLimit { .. } => (
            Reason::PodLimit,
            "the pod starts when another pod is deleted; lower the kubelet's max-pods to the value that `ipamd max-pods` \
             prints, or use a larger instance type"
                .into(),
            None,
        ),
        P::Empty { .. } => (
            Reason::PoolEmpty,
            "wait until the pool has grown, or raise WARM_IP_TARGET".into(),
            Some(SOON),
        ),
        P::Fixed => (
            Reason::PoolEmpty,
            "the pod starts when another pod is deleted; assign more addresses to the node's ENIs, or let the pool grow"
                .into(),
            None,
        ),
        P::Wiring { .. } => (
            Reason::Busy,
            "if the runtime's next try fails too, see the daemon's log".into(),
            Some(SOON),
        ),
        P::Exhausted { retry_in, .. } => (
            Reason::SubnetExhausted,
            "free addresses in the subnet, or let the node use other subnets (docs/pod-subnets.md)".into(),
            Some(retry_in),
        ),
        P::NoSubnet(NoClass { remedy, .. }) => (Reason::NoSubnet, remedy.into(), Some(SOON)),
        P::Throttled { retry_in } => (
            Reason::Ec2Throttled,
            "find out what uses the account's EC2 request budget".into(),
            Some(retry_in),
        ),
        P::Denied { .. } => (
            Reason::Ec2Denied,
            "allow the action in the node role's IAM policy; `ipamd doctor` tests each action".into(),
            Some(SOON),
        ),
        P::Refused {
            remedy, retry_in, ..
        } => (
            Reason::Ec2Refused,
            known_or(remedy, "EC2's message says why"),
            Some(retry_in),
        ),
        P::Unreachable {
            remedy, retry_in, ..
        } => (
            Reason::Ec2Unreachable,
            known_or(
                remedy,
                "check the node's route to the EC2 endpoint and its DNS; `ipamd doctor` checks both",
            ),
            Some(retry_in),
        ),
        P::EniLimit { .. } => (
            Reason::EniLimit,
            "the pod starts when another pod is deleted; detach interfaces that do not serve pods, or raise MAX_ENI if \
             it is the limit"
                .into(),
            None,
        ),
        P::Stopping => return stopping(Reason::Stopping),
    };
    // Nothing can change in a shorter time.
    let retry = retry.map(|after: Duration| after.max(SOON));
    refusal(reason, cause, &remedy, retry)
}

fn known_or(remedy: String, other: &'static str) -> Cow<'static, str> {
    if remedy.is_empty() {
        other.into()
    } else {
        remedy.into()
    }
}

/// The daemon is shutting down, or exits because the thread of `reason` has died.
#[must_use]
pub fn stopping(reason: Reason) -> Refusal {
    let cause = match reason {
        Reason::Datapath => "the network thread of ipamd has died, and ipamd exits",
        Reason::Store => "the store thread of ipamd has died, and ipamd exits",
        _ => "ipamd is shutting down",
    };
    refusal(
        reason,
        cause.into(),
        "no action needed: the runtime tries again and reaches the next daemon",
        Some(SOON),
    )
}

/// The maximum number of requests is in progress.
#[must_use]
pub fn busy() -> Refusal {
    refusal(
        Reason::Busy,
        "ipamd has too many requests in progress".into(),
        "if the runtime's next try fails too, find out what sends these requests",
        Some(SOON),
    )
}

/// The task of the request ended without an answer.
#[must_use]
pub fn defect(died: &dyn std::error::Error) -> Refusal {
    refusal(
        Reason::Unspecified,
        format!("the request's task died: {died}"),
        "this is a defect: report it with the daemon's log",
        None,
    )
}

/// All addresses for destinations of the other family are in use.
#[must_use]
pub fn no_egress_address(pods: Family) -> Refusal {
    let (other, setting) = match pods {
        Family::V4 => ("IPv6", "ENABLE_V6_EGRESS"),
        Family::V6 => ("IPv4", "ENABLE_V4_EGRESS"),
    };
    refusal(
        Reason::PodLimit,
        format!("all {CAPACITY} of the node's addresses for {other} destinations are in use"),
        &format!(
            "the pod starts when another pod is deleted; lower the kubelet's max-pods to {CAPACITY}, or set {setting}=false"
        ),
        None,
    )
}

#[must_use]
pub fn deleted(sandbox: &Sandbox) -> Refusal {
    let cause = format!(
        "sandbox {} was deleted before its ADD was complete",
        sandbox.container_id
    );
    refusal(
        Reason::SandboxDeleted,
        cause,
        "no action needed: the runtime creates a new sandbox",
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
        "delete the pod: its sandbox was never wired, or its network was already removed",
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
        "find out what else configures the node's network; delete the pod to get a new network",
        None,
    )
}

#[must_use]
pub fn of_store(error: &StoreError) -> Refusal {
    let cause = chain(error);
    refusal(
        Reason::Store,
        cause,
        "check the free space and the permissions of the daemon's run directory",
        Some(SOON),
    )
}

#[must_use]
pub fn invalid(what: &dyn std::fmt::Display) -> Refusal {
    refusal(
        Reason::InvalidRequest,
        what.to_string(),
        "check that the plugin and the daemon are of the same release",
        None,
    )
}

/// The pod asks for a host port on an address that no packet to it can have.
#[must_use]
pub fn foreign_host_ip(port: &HostPort, family: Family) -> Refusal {
    let family = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    refusal(
        Reason::InvalidRequest,
        format!("host port {port} is on an address of another family than the pod's, {family}"),
        "remove hostIP from the ports of the pod's containers, or set it to an address of the pod's family",
        None,
    )
}

/// Another sandbox has the host port, or one that overlaps.
#[must_use]
pub fn port_of_another(port: &HostPort, holder: &Held) -> Refusal {
    let id = &holder.sandbox.container_id;
    let named = holder.pod.full_name();
    let named = named.map_or_else(String::new, |name| format!("pod {name}, "));
    refusal(
        Reason::HostPortInUse,
        format!(
            "host port {port} is in use by {named}sandbox {id}, which has {}",
            holder.port
        ),
        "the pod starts when that sandbox is deleted; to have both on one node, use another hostPort, or different addresses \
         in hostIP",
        Some(SOON),
    )
}

/// The refusal for a failure to wire a sandbox.
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
            "configure this interface name in only one network",
            None,
        ),
        WireError::AddressInUse(_) => refusal(
            Reason::Datapath,
            cause,
            "no action needed: the address cools down, and the runtime's next try gets another one",
            Some(SOON),
        ),
        WireError::NameTaken(_) => refusal(
            Reason::Datapath,
            cause,
            "find out what created this link and remove it, or change AWS_VPC_K8S_CNI_VETHPREFIX",
            Some(SOON),
        ),
        WireError::PortInUse(_) => refusal(
            Reason::HostPortInUse,
            cause,
            "use another hostPort, or stop that program: the pod would take the port away from it",
            Some(SOON),
        ),
        WireError::Netns(_) => refusal(
            Reason::NetnsInvalid,
            cause,
            "no action needed if the sandbox was deleted: the runtime creates a new one",
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

/// The refusal for a failure to remove a pod's route. The address may still be reachable.
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
