//! Reading EC2: which interfaces this node has, and which of them it manages.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::Ipv4Net;
use planner::{Class, EniId, Failure, Observed, SubnetId, event};

use super::{Executor, INSTANCE_TAG, unexpected};
use crate::ec2::api::{Call, Interface, Reply};

pub(super) const HANDS_OFF_TAG: &str = "node.k8s.amazonaws.com/no_manage";

impl Executor {
    /// Every ENI that is attached to this instance: one call, which is all that pods need.
    ///
    /// # Errors
    /// The failure of DescribeNetworkInterfaces.
    pub async fn attached(&self) -> Result<Vec<Observed>, Failure> {
        let found = self
            .describe([("attachment.instance-id", &self.me.instance)])
            .await?;
        self.judge_all(found).await
    }

    /// Whether there are unattached ENIs with this node's tag: the previous process created or detached them and could
    /// not finish.
    ///
    /// # Errors
    /// The failure of DescribeNetworkInterfaces.
    pub async fn strays(&self) -> Result<bool, Failure> {
        let tag = format!("tag:{INSTANCE_TAG}");
        let free = "available".to_owned();
        let found = self
            .describe([(tag.as_str(), &self.me.instance), ("status", &free)])
            .await?;
        Ok(!found.is_empty())
    }

    /// Every ENI that is attached to this instance or has its tag: two calls, because EC2 cannot filter by "or".
    ///
    /// # Errors
    /// The failure of either DescribeNetworkInterfaces.
    pub async fn inventory(&self) -> Result<Vec<Observed>, Failure> {
        let instance = &self.me.instance;
        let tag = format!("tag:{INSTANCE_TAG}");
        let mut found = self
            .describe([("attachment.instance-id", instance)])
            .await?;
        found.extend(self.describe([(tag.as_str(), instance)]).await?);
        self.judge_all(found).await
    }

    async fn describe<const N: usize>(
        &self,
        filters: [(&str, &String); N],
    ) -> Result<BTreeMap<EniId, Interface>, Failure> {
        let filters = filters.map(|(name, value)| (name.to_owned(), value.clone()));
        let filters = filters.to_vec();
        match self
            .call(Call::DescribeNetworkInterfaces { filters })
            .await?
        {
            Reply::Interfaces(enis) => {
                Ok(enis.into_iter().map(|eni| (eni.eni.clone(), eni)).collect())
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn judge_all(
        &self,
        mut found: BTreeMap<EniId, Interface>,
    ) -> Result<Vec<Observed>, Failure> {
        let instance = &self.me.instance;
        // An ENI of ours that someone attached to another instance does not belong to this node any more.
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

    /// Converts EC2's description of an ENI into the planner's terms, including whether it is managed.
    pub(super) async fn judge(&self, eni: Interface) -> Result<Observed, Failure> {
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
        let (managed, subnet_cidr) = self.reachable(managed, &eni).await?;
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
            subnet_cidr,
            eni: eni.eni,
            mac: eni.mac,
            subnet: eni.subnet,
            primary: eni.primary,
            addresses: eni.secondary.into_iter().map(IpAddr::V4).collect(),
            prefixes: eni.prefixes,
            attached,
            managed,
            tagged_ours,
        })
    }

    /// The subnet's network, and whether the ENI can be managed at all. If the subnet is shared from an account that
    /// does not show it, its gateway is unknown: such an ENI is not managed, and must not make the whole list fail.
    async fn reachable(&self, managed: bool, eni: &Interface) -> Result<(bool, Ipv4Net), Failure> {
        if !managed {
            return Ok((false, Ipv4Net::from(eni.primary)));
        }
        match self.subnet_cidr(&eni.subnet).await {
            Err(failure) if failure.class == Class::NotFound => {
                tracing::warn!(eni = %eni.eni, subnet = %eni.subnet, "the ENI's subnet is not visible; the ENI is not managed");
                Ok((false, Ipv4Net::from(eni.primary)))
            }
            known => known.map(|cidr| (true, cidr)),
        }
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
}
