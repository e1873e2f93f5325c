//! Carries out the planner's EC2 commands: builds the calls, waits where EC2 is asynchronous, and turns what comes back
//! into the planner's terms. It decides nothing: no retry, no choice of subnet, no judgement on what to do next.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use ipnet::Ipv4Net;
use planner::{Answer, Attachment, Class, Command, EniId, Failure, Observed, SubnetId, event};

use super::{Call, CallError, Ec2, Interface, Reply, class::classify, identity::Identity};
use crate::{config, metrics::Metrics};

const INSTANCE_TAG: &str = "node.k8s.amazonaws.com/instance_id";
const CREATED_TAG: &str = "node.k8s.amazonaws.com/createdAt";
const CLUSTER_TAG: &str = "cluster.k8s.amazonaws.com/name";
const OWNER_TAG: (&str, &str) = ("eks:eni:owner", "amazon-vpc-cni");
const HANDS_OFF_TAG: &str = "node.k8s.amazonaws.com/no_manage";

/// How long a detachment may take before the command counts as failed. EC2's tail is minutes.
const DETACH_LIMIT: Duration = Duration::from_secs(300);

/// EC2 on behalf of one node.
#[derive(Clone)]
pub struct Executor {
    ec2: Arc<dyn Ec2>,
    me: Arc<Identity>,
    settings: Arc<config::Cloud>,
    metrics: Arc<Metrics>,
    /// Networks of the subnets met so far; a subnet's CIDR never changes.
    subnets: Arc<Mutex<BTreeMap<SubnetId, Ipv4Net>>>,
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
        Self {
            ec2,
            me,
            settings: Arc::new(settings),
            metrics,
            subnets: Arc::new(Mutex::new(subnets)),
        }
    }

    /// Carries out one EC2 command.
    ///
    /// # Errors
    /// The failure of the one call that the command stands for, classified.
    ///
    /// # Panics
    /// If `command` is not an EC2 command: those belong to the host or to the waiting pod.
    pub async fn run(&self, command: Command) -> Result<Answer, Failure> {
        match command {
            Command::CreateEni {
                token,
                subnet,
                amount,
                ..
            } => {
                let call = Call::CreateNetworkInterface {
                    token,
                    subnet,
                    groups: self.me.security_groups.clone(),
                    description: format!("aws-K8S-{}", self.me.instance),
                    tags: self.tags(),
                    amount,
                };
                match self.call(call).await? {
                    Reply::Interface(eni) => Ok(Answer::Created(self.judge(eni).await?)),
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
            } => {
                self.done(Call::UnassignPrivateIpAddresses {
                    eni,
                    addresses,
                    prefixes,
                })
                .await
            }
            Command::DeleteOnTermination {
                eni, attachment, ..
            } => {
                self.done(Call::DeleteOnTermination { eni, attachment })
                    .await
            }
            Command::DetachEni {
                eni, attachment, ..
            } => self.detach(eni, attachment).await,
            Command::DeleteEni { eni, .. } => self.done(Call::DeleteNetworkInterface { eni }).await,
            Command::Describe { .. } => Ok(Answer::Described(self.inventory().await?)),
            Command::Grant { .. }
            | Command::Refuse { .. }
            | Command::ConfigureEni(_)
            | Command::DeconfigureEni { .. } => unreachable!("not an EC2 command: {command:?}"),
        }
    }

    /// Every ENI that is attached to this instance or carries its tag.
    ///
    /// # Errors
    /// The failure of either DescribeNetworkInterfaces.
    pub async fn inventory(&self) -> Result<Vec<Observed>, Failure> {
        let instance = &self.me.instance;
        let mut found = BTreeMap::new();
        for name in [
            "attachment.instance-id".to_owned(),
            format!("tag:{INSTANCE_TAG}"),
        ] {
            let filters = vec![(name, instance.clone())];
            match self
                .call(Call::DescribeNetworkInterfaces { filters })
                .await?
            {
                Reply::Interfaces(enis) => {
                    found.extend(enis.into_iter().map(|eni| (eni.eni.clone(), eni)))
                }
                other => return Err(unexpected(&other)),
            }
        }
        // An ENI of ours that somebody attached to another instance is no longer this node's business.
        found.retain(|_, eni| {
            eni.bond
                .as_ref()
                .is_none_or(|bond| bond.instance.as_ref() == Some(instance))
        });
        let mut inventory = Vec::with_capacity(found.len());
        for eni in found.into_values() {
            inventory.push(self.judge(eni).await?);
        }
        Ok(inventory)
    }

    async fn call(&self, call: Call) -> Result<Reply, Failure> {
        let action = call.action();
        let begun = tokio::time::Instant::now();
        let result = self.ec2.call(call.clone()).await;
        let outcome = result
            .as_ref()
            .err()
            .map(|e: &CallError| e.code.as_deref().unwrap_or("no_answer"));
        self.metrics.ec2_call(action, outcome, begun.elapsed());
        match result {
            Ok(reply) => {
                tracing::debug!(action, ms = begun.elapsed().as_millis(), "EC2 answered");
                Ok(reply)
            }
            Err(error) => {
                let failure = classify(&call, &error);
                tracing::warn!(action, class = ?failure.class, error = %error, "EC2 call failed");
                Err(failure)
            }
        }
    }

    async fn done(&self, call: Call) -> Result<Answer, Failure> {
        // "Already gone" is what a delete wants.
        let gone_is_success = matches!(call, Call::DeleteNetworkInterface { .. });
        match self.call(call).await {
            Err(failure) if gone_is_success && failure.class == Class::NotFound => Ok(Answer::Done),
            result => result.map(|_| Answer::Done),
        }
    }

    /// Detaching is asynchronous: EC2 answers at once and takes seconds, sometimes minutes.
    async fn detach(&self, eni: EniId, attachment: Attachment) -> Result<Answer, Failure> {
        match self.call(Call::DetachNetworkInterface { attachment }).await {
            // Detached already, or on its way: the look below tells.
            Err(failure) if matches!(failure.class, Class::NotFound | Class::InUse) => {}
            result => drop(result?),
        }
        let begun = tokio::time::Instant::now();
        let mut pause = Duration::from_secs(1);
        while begun.elapsed() < DETACH_LIMIT {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(30));
            let filters = vec![("network-interface-id".to_owned(), eni.0.clone())];
            if let Reply::Interfaces(found) = self
                .call(Call::DescribeNetworkInterfaces { filters })
                .await?
                && found.iter().all(|eni| {
                    eni.bond
                        .as_ref()
                        .is_none_or(|bond| bond.status == "detached")
                })
            {
                return Ok(Answer::Done);
            }
        }
        let message = format!(
            "{eni} is still attached {} s after DetachNetworkInterface",
            DETACH_LIMIT.as_secs()
        );
        Err(Failure {
            class: Class::InUse,
            message,
        })
    }

    /// Puts EC2's description of an ENI into the planner's terms: above all, whether it is ours to manage.
    async fn judge(&self, eni: Interface) -> Result<Observed, Failure> {
        let tagged_ours = eni.tags.get(INSTANCE_TAG) == Some(&self.me.instance);
        let primary = eni.mac == self.me.mac;
        let ordinary = eni.kind == "interface" && !eni.managed_by_aws;
        let managed = match eni.tags.get(HANDS_OFF_TAG).map(String::as_str) {
            _ if primary => true,
            _ if !ordinary => false,
            Some("true") => false,
            Some(_) => true,
            None => tagged_ours || self.settings.manage_untagged,
        };
        let attached = eni
            .bond
            .filter(|bond| bond.status != "detached")
            .map(|bond| event::Bond {
                attachment: bond.attachment,
                card: bond.card,
                device: bond.device,
                settled: bond.status == "attached",
            });
        Ok(Observed {
            subnet_cidr: self.subnet_cidr(&eni.subnet).await?,
            eni: eni.eni,
            mac: eni.mac,
            subnet: eni.subnet,
            primary: eni.primary,
            addresses: eni.secondary,
            prefixes: eni.prefixes,
            attached,
            managed,
            tagged_ours,
        })
    }

    async fn subnet_cidr(&self, subnet: &SubnetId) -> Result<Ipv4Net, Failure> {
        let known = self
            .subnets
            .lock()
            .expect("no holder panics")
            .get(subnet)
            .copied();
        if let Some(cidr) = known {
            return Ok(cidr);
        }
        let reply = self
            .call(Call::DescribeSubnets {
                subnets: vec![subnet.clone()],
            })
            .await?;
        let Reply::Subnets(found) = reply else {
            return Err(unexpected(&reply));
        };
        let cidr = found
            .into_iter()
            .find(|(id, _)| id == subnet)
            .map(|(_, cidr)| cidr);
        let cidr = cidr.ok_or_else(|| Failure {
            class: Class::NotFound,
            message: format!("subnet {subnet} is not visible to this account"),
        })?;
        self.subnets
            .lock()
            .expect("no holder panics")
            .insert(subnet.clone(), cidr);
        Ok(cidr)
    }

    /// Tags go into the create itself: IAM policies and leak detection rest on them, so no moment may exist without.
    fn tags(&self) -> BTreeMap<String, String> {
        let mut tags = BTreeMap::from([
            (INSTANCE_TAG.to_owned(), self.me.instance.clone()),
            (CREATED_TAG.to_owned(), crate::clock::wall_rfc3339()),
        ]);
        if let Some(cluster) = &self.settings.cluster {
            tags.insert(CLUSTER_TAG.to_owned(), cluster.clone());
            tags.insert(OWNER_TAG.0.to_owned(), OWNER_TAG.1.to_owned());
        }
        tags.extend(self.settings.extra_tags.clone());
        tags
    }
}

fn unexpected(reply: &Reply) -> Failure {
    Failure {
        class: Class::Transient,
        message: format!("EC2 client answered with the wrong kind of reply: {reply:?}"),
    }
}
