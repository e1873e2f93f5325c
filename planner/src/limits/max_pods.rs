//! The kubelet's `maxPods` for an instance type: the pod limit, plus other pods, limited by the cap.
//!
//! Every result includes the steps of its calculation. Sources: the VPC CNI's `max-pods-calculator.sh` (formulas and
//! caps), nodeadm (expressions, kube-reserved). There are two intended differences: bare metal can use prefixes, as in
//! the daemon, and branch ENIs can be counted.

use thiserror::Error;

use super::{Hypervisor, InstanceType, PREFIX_SIZE, Usage, pod_addresses};

/// The number of vCPUs up to which the lower cap is recommended.
const SMALL_VCPUS: u16 = 30;
const SMALL_CAP: u32 = 110;
const LARGE_CAP: u32 = 250;

/// The parameters of the calculation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub usage: Usage,
    /// Pods have IPv6 addresses from one /80 prefix.
    pub ipv6: bool,
    /// Limit the result to what Kubernetes recommends for the number of vCPUs: 110, or 250 above 30 vCPUs. The result
    /// of an [`Expression`] is not limited.
    pub capped: bool,
    /// Pods that use the node's address. The AWS VPC CNI's calculator uses two: the daemon and kube-proxy.
    pub host_network_pods: u32,
}

impl Default for Question {
    fn default() -> Self {
        Self {
            usage: Usage::default(),
            ipv6: false,
            capped: true,
            host_network_pods: 2,
        }
    }
}

/// The result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxPods {
    /// For the kubelet's `--max-pods`.
    pub max_pods: u32,
    /// Before cap and expression.
    pub uncapped: u32,
    /// Pods that can have an address from the pool.
    pub addresses: u32,
    /// Pods on branch ENIs of a trunk.
    pub branch_pods: u32,
    pub cap: Option<u32>,
    /// The expression is not usable, and [`MaxPods::uncapped`] was used instead.
    pub expression_error: Option<String>,
    /// kube-reserved memory in MiB, as calculated by nodeadm from `max_pods`.
    pub reserved_memory: u64,
    /// kube-reserved CPU in millicores; `None` if the number of vCPUs is not known.
    pub reserved_cpu: Option<u32>,
    /// The steps of the calculation, one per line, for humans.
    pub steps: Vec<String>,
}

/// A formula of the operator's own.
pub trait Expression {
    /// As the operator wrote it.
    fn text(&self) -> &str;

    /// A number from 1 to 2³¹ − 1 (source: nodeadm's `maxPodsExpression`).
    ///
    /// # Errors
    /// Why there is none, as a sentence.
    fn evaluate(&self, names: &Variables) -> Result<u32, String>;
}

/// The names that an expression may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variables {
    /// ENIs of the default network card.
    pub default_enis: u32,
    /// Addresses per ENI, including the primary one.
    pub ips_per_eni: u32,
    /// The result without expression and without cap.
    pub max_pods: u32,
}

/// There is no result for this instance type.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unanswerable {
    #[error(
        "{name} does not support IPv6: its pods would need a prefix, and it is not a Nitro instance"
    )]
    Ipv6NeedsPrefixes { name: String },
}

/// # Errors
/// [`Unanswerable`] if the instance type does not support the parameters.
pub fn max_pods(instance: &InstanceType, question: &Question) -> Result<MaxPods, Unanswerable> {
    answer(instance, question, None)
}

/// The same with the operator's formula instead of the cap. If it cannot be used, its error is part of the result.
///
/// # Errors
/// [`Unanswerable`].
pub fn max_pods_by(
    instance: &InstanceType,
    question: &Question,
    expression: &dyn Expression,
) -> Result<MaxPods, Unanswerable> {
    answer(instance, question, Some(expression))
}

fn answer(
    instance: &InstanceType,
    question: &Question,
    expression: Option<&dyn Expression>,
) -> Result<MaxPods, Unanswerable> {
    let mut usage = question.usage;
    let mut steps = vec![facts(instance)];
    if question.ipv6 {
        if !instance.supports_prefixes() {
            return Err(Unanswerable::Ipv6NeedsPrefixes {
                name: instance.name.to_string(),
            });
        }
        // A /80 prefix is never the limit. Operators use the number of IPv4 prefixes, so the cap decides.
        usage.prefixes = true;
        steps.push(
            "IPv6: one /80 prefix is more than any node can use; calculated as for IPv4 prefixes"
                .into(),
        );
    } else if usage.prefixes && !instance.supports_prefixes() {
        steps.push("prefixes need a Nitro instance: calculated with single addresses".into());
    }
    let limit = pod_addresses(instance, &usage);
    steps.push(limit.derivation);
    let branch_pods = branch_pods(instance, &usage, &mut steps);
    let hosts = question.host_network_pods;
    let uncapped = limit.addresses + branch_pods + hosts;
    steps.push(format!(
        "+ {hosts} host-network pods, which count but need no address = {uncapped} pods"
    ));
    let (max_pods, cap, expression_error) =
        bound(instance, question, expression, uncapped, &mut steps);
    let (reserved_memory, reserved_cpu) =
        (reserved_memory(max_pods), instance.vcpus.map(reserved_cpu));
    steps.push(format!(
        "kube-reserved memory: 11 MiB × {max_pods} pods + 255 MiB = {reserved_memory} MiB"
    ));
    steps.extend(reserved_cpu.map(|cpu| format!("kube-reserved CPU: {cpu}m")));
    Ok(MaxPods {
        max_pods,
        uncapped,
        addresses: limit.addresses,
        branch_pods,
        cap,
        expression_error,
        reserved_memory,
        reserved_cpu,
        steps,
    })
}

fn facts(instance: &InstanceType) -> String {
    let vcpus = instance.vcpus.map_or_else(
        || "vCPUs not published".to_owned(),
        |n| format!("{n} vCPUs"),
    );
    let kind = match (instance.bare_metal, instance.hypervisor) {
        (true, _) => "bare metal",
        (_, Hypervisor::Nitro) => "Nitro",
        (_, Hypervisor::Xen) => "Xen",
        (_, Hypervisor::Unknown) => "hypervisor not published",
    };
    let cards = match instance.cards.len() {
        1 => String::new(),
        n => format!(" on the default one of {n} network cards; pods use no other"),
    };
    format!(
        "{}: {} ENIs of {} IPv4 addresses{cards}; {vcpus}; {kind}",
        instance.name,
        instance.card_enis(),
        instance.ipv4_per_eni,
    )
}

fn branch_pods(instance: &InstanceType, usage: &Usage, steps: &mut Vec<String>) -> u32 {
    if !usage.trunk {
        return 0;
    }
    let branches = instance
        .branch_enis
        .filter(|_| instance.trunking == Some(true));
    match branches {
        Some(n) => steps.push(format!(
            "+ {n} pods with security groups of their own, one branch ENI each"
        )),
        None => steps.push("no trunk ENI: no pods with security groups of their own".into()),
    }
    branches.map_or(0, u32::from)
}

/// Applies the expression, or else the cap.
fn bound(
    instance: &InstanceType,
    question: &Question,
    expression: Option<&dyn Expression>,
    uncapped: u32,
    steps: &mut Vec<String>,
) -> (u32, Option<u32>, Option<String>) {
    if let Some(expression) = expression {
        let names = Variables {
            default_enis: instance.card_enis().into(),
            ips_per_eni: instance.ipv4_per_eni.into(),
            max_pods: uncapped,
        };
        return match expression.evaluate(&names) {
            Ok(result) => {
                steps.push(format!("expression {} = {result}", expression.text()));
                (result, None, None)
            }
            Err(error) => {
                steps.push(format!(
                    "the expression is not usable ({error}): using {uncapped}"
                ));
                (uncapped, None, Some(error))
            }
        };
    }
    if !question.capped {
        return (uncapped, None, None);
    }
    let large = instance.vcpus.is_some_and(|n| n > SMALL_VCPUS);
    let cap = if large { LARGE_CAP } else { SMALL_CAP };
    let max = uncapped.min(cap);
    let bound = if large { "above" } else { "up to" };
    steps.push(format!(
        "at most {cap} pods are recommended {bound} {SMALL_VCPUS} vCPUs: {max} pods"
    ));
    (max, Some(cap), None)
}

/// The memory that nodeadm reserves for Kubernetes, in MiB.
#[must_use]
pub fn reserved_memory(max_pods: u32) -> u64 {
    11 * u64::from(max_pods) + 255
}

/// The CPU that nodeadm reserves, in millicores: 6 % of the first core, 1 % of the second, 0.5 % of the next two and
/// 0.25 % of each further one.
#[must_use]
pub fn reserved_cpu(vcpus: u16) -> u32 {
    let share = |core: u16| match core {
        0 => 240,
        1 => 40,
        2 | 3 => 20,
        _ => 10,
    };
    // In quarters of a millicore, so that rounding happens only at the end.
    (0..vcpus).map(share).sum::<u32>() / 4
}

/// The subnet addresses that a full node uses: the ENIs' primary addresses and the pods' addresses.
///
/// With custom networking, the primary ENI is in another subnet than the pods. IPv6 pods use no IPv4 addresses.
#[must_use]
pub fn subnet_addresses(instance: &InstanceType, question: &Question, answer: &MaxPods) -> u32 {
    let primary = u32::from(!question.usage.custom_networking);
    if question.ipv6 {
        return primary;
    }
    let others = question.host_network_pods + answer.branch_pods;
    let pods = answer.max_pods.saturating_sub(others).min(answer.addresses);
    let unit = if question.usage.prefixes && instance.supports_prefixes() {
        PREFIX_SIZE
    } else {
        1
    };
    let slots = pods.div_ceil(unit);
    let enis = slots
        .div_ceil(instance.slots_per_eni().max(1).into())
        .max(primary);
    let trunk = u32::from(answer.branch_pods > 0);
    enis + slots * unit + trunk + answer.branch_pods
}
