//! Executes the planner's EC2 commands: builds the calls, waits for the limiter and for asynchronous operations, and
//! converts the results into the planner's terms. It makes no decisions: no retries, no choice of subnet, no next
//! steps.
//!
//! May use `api`, `classify`, `limiter`, `config`, `node`, `runtime` and `telemetry`. Must not know the SDK or the
//! pool.

mod describe;
mod detach;
mod subnets;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use planner::{
    Answer, Class, Command, EniId, Failure, Mac, Mono, SecurityGroupId, SubnetId,
    placement::SubnetList,
};
use tokio::sync::broadcast;

use super::limiter::{Gauge, Limiter};
use crate::{
    config,
    ec2::{
        api::{Call, CallError, Ec2, Reply},
        classify::classify,
        codes,
    },
    node::identity::Identity,
    telemetry::{
        metrics::Metrics,
        spans::{Ec2Call, Ec2CallFailure, Spans},
    },
};

const INSTANCE_TAG: &str = "node.k8s.amazonaws.com/instance_id";
const CREATED_TAG: &str = "node.k8s.amazonaws.com/createdAt";
const CLUSTER_TAG: &str = "cluster.k8s.amazonaws.com/name";
const OWNER_TAG: (&str, &str) = ("eks:eni:owner", "amazon-vpc-cni");

/// The maximum number of Creates that wait for an answer: no instance has more ENIs.
const CREATES_KEPT: usize = 128;

/// EC2 on behalf of one node.
#[derive(Clone)]
pub struct Executor {
    ec2: Arc<dyn Ec2>,
    me: Arc<Identity>,
    settings: Arc<config::Cloud>,
    metrics: Arc<Metrics>,
    spans: Spans,
    /// Networks of known subnets; a subnet's CIDR never changes.
    subnets: Arc<Mutex<BTreeMap<SubnetId, Ipv4Net>>>,
    routes: Arc<Mutex<subnets::Routes>>,
    /// What EC2 last said about ENIs besides their addresses.
    seen: Arc<Mutex<describe::Seen>>,
    limiter: Arc<Mutex<Limiter>>,
    /// What recent Creates sent.
    creates: Arc<Mutex<VecDeque<Sent>>>,
    links_gone: broadcast::Sender<Mac>,
    /// The time base of the limiter.
    begun: tokio::time::Instant,
}

/// What a Create sends besides its command. A repetition sends the same: with anything else, EC2 returns
/// `IdempotentParameterMismatch`, and the ENI of the lost answer would never be claimed.
#[derive(Clone, Debug)]
struct Sent {
    token: String,
    /// The time in the tags.
    at: String,
    groups: Vec<SecurityGroupId>,
}

/// The ENI exists, whatever the call that describes its subnet has met. The planner repeats the Create with the same token, which
/// returns the same ENI.
fn created_unseen(failure: Failure) -> Failure {
    Failure {
        class: Class::Ambiguous,
        ..failure
    }
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor")
            .field("instance", &self.me.instance)
            .finish_non_exhaustive()
    }
}

impl Executor {
    #[must_use]
    pub fn new(
        ec2: Arc<dyn Ec2>,
        me: Arc<Identity>,
        settings: config::Cloud,
        metrics: Arc<Metrics>,
    ) -> Self {
        let subnets = BTreeMap::from([(me.subnet.clone(), me.subnet_cidr)]);
        let limiter = Limiter::new(seed(&me.instance));
        Self {
            ec2,
            me,
            settings: Arc::new(settings),
            metrics,
            spans: Spans::default(),
            subnets: Arc::new(Mutex::new(subnets)),
            routes: Arc::default(),
            seen: Arc::default(),
            limiter: Arc::new(Mutex::new(limiter)),
            creates: Arc::default(),
            links_gone: broadcast::Sender::new(detach::LINKS_AT_ONCE),
            begun: tokio::time::Instant::now(),
        }
    }

    /// With what the previous process knew of subnets, so that lists of ENIs need not ask for them.
    #[must_use]
    pub fn knowing(self, subnets: &SubnetList) -> Self {
        let mut known = self.subnets.lock().expect("no holder panics");
        let listed = subnets.subnets.iter();
        known.extend(listed.map(|subnet| (subnet.subnet.clone(), subnet.cidr)));
        drop(known);
        self
    }

    /// Enables spans for its calls.
    #[must_use]
    pub fn with_spans(self, spans: Spans) -> Self {
        Self { spans, ..self }
    }

    /// Executes one EC2 command.
    ///
    /// # Errors
    /// The classified failure of the command's call.
    ///
    /// # Panics
    /// If `command` is not an EC2 command: those belong to the host or to the waiting pod.
    pub async fn run(&self, command: Command) -> Result<Answer, Failure> {
        self.log_removal(&command);
        match command {
            Command::CreateEni { token, spec, .. } => {
                let sent = self.sent(&token, spec.security_groups);
                let call = Call::CreateNetworkInterface {
                    tags: self.tags(sent.at),
                    token,
                    subnet: spec.subnet,
                    groups: sent.groups,
                    description: format!("aws-K8S-{}", self.me.instance),
                    amount: spec.amount,
                };
                match self.call(call).await? {
                    Reply::Interface(eni) => {
                        let observed = self.observe(*eni).await;
                        observed.map(Answer::Created).map_err(created_unseen)
                    }
                    other => Err(unexpected(&other)),
                }
            }
            Command::AttachEni {
                eni, card, device, ..
            } => {
                let instance = self.me.instance.clone();
                match self
                    .call(Call::AttachNetworkInterface {
                        eni,
                        instance,
                        card,
                        device,
                    })
                    .await?
                {
                    Reply::Attached(attachment) => Ok(Answer::Attached { attachment }),
                    other => Err(unexpected(&other)),
                }
            }
            Command::Assign { eni, amount, .. } => {
                match self
                    .call(Call::AssignPrivateIpAddresses { eni, amount })
                    .await?
                {
                    Reply::Assigned {
                        addresses,
                        prefixes,
                    } => Ok(Answer::Assigned {
                        addresses,
                        prefixes,
                    }),
                    other => Err(unexpected(&other)),
                }
            }
            Command::Unassign {
                eni,
                addresses,
                prefixes,
                ..
            } => self.done(unassign(eni, &addresses, &prefixes)).await,
            Command::DeleteOnTermination {
                eni, attachment, ..
            } => {
                self.done(Call::DeleteOnTermination { eni, attachment })
                    .await
            }
            Command::SetGroups { eni, groups, .. } => {
                self.done(Call::SetGroups { eni, groups }).await
            }
            Command::DetachEni {
                eni,
                mac,
                attachment,
                ..
            } => self.detach(eni, mac, attachment).await,
            Command::DeleteEni { eni, .. } => self.done(Call::DeleteNetworkInterface { eni }).await,
            Command::Describe { .. } => Ok(Answer::Described(self.inventory().await?)),
            Command::DescribeSubnets {
                inquiry, at_once, ..
            } => Ok(Answer::Subnets(self.subnets(inquiry, at_once).await?)),
            Command::Grant { .. }
            | Command::GrantAgain { .. }
            | Command::Refuse { .. }
            | Command::ConfigureEni(_)
            | Command::DeconfigureEni { .. } => unreachable!("not an EC2 command: {command:?}"),
        }
    }

    /// A time within `most` that differs between nodes.
    #[must_use]
    pub fn spread(&self, most: Duration) -> Duration {
        self.limiter().spread(most)
    }

    /// The rate of each API that was ec2_call so far, for metrics.
    #[must_use]
    pub fn pace(&self) -> Vec<Gauge> {
        self.limiter().gauges(self.now())
    }

    async fn call(&self, call: Call) -> Result<Reply, Failure> {
        let action = call.action();
        let paced = self.wait_for_turn(action).await?;
        let begun = tokio::time::Instant::now();
        self.metrics.ec2_begun(action);
        let answer = self.ec2.call(call.clone()).await;
        let took = begun.elapsed();
        let judged = match answer {
            Ok(reply) => {
                tracing::debug!(action, ms = took.as_millis(), "EC2 answered");
                self.limiter().admitted(action, self.now());
                Ok(reply)
            }
            Err(error) => Err((self.judge_failure(&call, &error), error)),
        };
        let failure = judged
            .as_ref()
            .err()
            .map(|(failure, error)| (failure, error));
        let code =
            failure.map(|(_, error)| error.code.as_deref().map_or("no_answer", codes::bounded));
        self.metrics.ec2_ended(action, code, took);
        self.spans.ec2_call(&Ec2Call {
            action,
            took,
            paced,
            failure: failure.map(|(failure, error)| Ec2CallFailure {
                code: error.code.as_deref().unwrap_or("no_answer"),
                message: &error.message,
                retry_after: match failure.class {
                    Class::Throttled { retry_after } => retry_after,
                    _ => None,
                },
            }),
        });
        judged.map_err(|(failure, _)| failure)
    }

    /// Classifies a failed call, and updates the rate of its action.
    fn judge_failure(&self, call: &Call, error: &CallError) -> Failure {
        let action = call.action();
        let mut failure = classify(call, error, &self.me.region);
        tracing::warn!(action, class = failure.class.name(), error = %error, "EC2 call failed");
        let now = self.now();
        if let Class::Throttled { retry_after } = &mut failure.class {
            *retry_after = Some(self.limiter().throttled(action, now));
        } else if error.code.is_some() {
            self.limiter().admitted(action, now);
        }
        failure
    }

    /// Waits until this node's own budget allows the call, and returns how long that took; fails if it would take too
    /// long.
    async fn wait_for_turn(&self, action: &'static str) -> Result<Duration, Failure> {
        let turn = self.limiter().take(action, self.now());
        match turn {
            Ok(Duration::ZERO) => Ok(Duration::ZERO),
            Ok(wait) => {
                tokio::time::sleep(wait).await;
                Ok(wait)
            }
            Err(wait) => {
                let class = Class::Throttled {
                    retry_after: Some(wait),
                };
                let seconds = wait.as_secs_f32();
                let message =
                    format!("{action}: this node's own budget is used up for {seconds:.1} s");
                Err(Failure::new(class, message))
            }
        }
    }

    fn limiter(&self) -> std::sync::MutexGuard<'_, Limiter> {
        self.limiter.lock().expect("no holder panics")
    }

    fn now(&self) -> Mono {
        Mono::from_epoch(self.begun.elapsed())
    }

    async fn done(&self, call: Call) -> Result<Answer, Failure> {
        self.call(call).await.map(|_| Answer::Done)
    }

    /// What the first Create with this token sent. Without `groups`, new ENIs get those that the primary ENI has now, which
    /// may differ from those at the boot of the node.
    fn sent(&self, token: &str, groups: Option<Vec<SecurityGroupId>>) -> Sent {
        let mut creates = self.creates.lock().expect("no holder panics");
        if let Some(first) = creates.iter().find(|sent| sent.token == token) {
            return first.clone();
        }
        let sent = Sent {
            token: token.to_owned(),
            at: crate::runtime::clock::wall_rfc3339(),
            groups: groups
                .or_else(|| self.groups_of_primary())
                .unwrap_or_else(|| self.me.security_groups.clone()),
        };
        creates.push_back(sent.clone());
        if creates.len() > CREATES_KEPT {
            creates.pop_front();
        }
        sent
    }

    /// Tags are part of the Create call: IAM policies and leak detection need them, so an ENI must never exist without
    /// them.
    fn tags(&self, at: String) -> BTreeMap<String, String> {
        let mut tags = BTreeMap::from([
            (INSTANCE_TAG.to_owned(), self.me.instance.clone()),
            (CREATED_TAG.to_owned(), at),
        ]);
        if let Some(cluster) = &self.settings.cluster {
            tags.insert(CLUSTER_TAG.to_owned(), cluster.clone());
            tags.insert(OWNER_TAG.0.to_owned(), OWNER_TAG.1.to_owned());
        }
        tags.extend(self.settings.extra_tags.clone());
        tags
    }
}

/// Each family has its own call, and a command has only one family.
fn unassign(eni: EniId, addresses: &[IpAddr], prefixes: &[IpNet]) -> Call {
    let six = prefixes.iter().filter_map(|net| match net {
        IpNet::V6(net) => Some(*net),
        IpNet::V4(_) => None,
    });
    let six: Vec<Ipv6Net> = six.collect();
    if !six.is_empty() {
        return Call::UnassignIpv6Addresses { eni, prefixes: six };
    }
    let addresses = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let prefixes = prefixes.iter().filter_map(|net| match net {
        IpNet::V4(net) => Some(*net),
        IpNet::V6(_) => None,
    });
    Call::UnassignPrivateIpAddresses {
        eni,
        addresses: addresses.collect(),
        prefixes: prefixes.collect(),
    }
}

fn unexpected(reply: &Reply) -> Failure {
    let message = format!("EC2 client answered with the wrong kind of reply: {reply:?}");
    Failure::new(Class::Transient, message)
}

/// FNV-1a: the same for an instance at every start, and different for other instances.
fn seed(instance: &str) -> u64 {
    instance.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
