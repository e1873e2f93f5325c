//! Reading EC2: which interfaces this node has, and which of them it manages.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::MutexGuard,
};

use ipnet::{IpNet, Ipv4Net};
use planner::{
    Class, Command, EniAttachment, EniId, Failure, HostClaim, Observed, SecurityGroupId, SubnetId,
    ownership::{Facts, Node, Ownership, Reason, ownership},
};

use super::{Executor, INSTANCE_TAG, unexpected};
use crate::ec2::api::{Call, Interface, Reply};

pub(super) const NO_MANAGE_TAG: &str = "node.k8s.amazonaws.com/no_manage";

/// What EC2 last said about ENIs besides their addresses.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The VPC and the zone of the node, which are those of its primary ENI.
    vpc: Option<String>,
    zone: Option<String>,
    /// The security groups of the primary ENI.
    groups: Option<Vec<SecurityGroupId>>,
    /// ENIs that the pool manages although this node did not create them, and whom to ask about them.
    adopted: BTreeMap<EniId, String>,
    /// ENIs that the pool has managed. What the host does with their addresses later is a stray of a DHCP client.
    kept: BTreeSet<EniId>,
    /// The addresses of ENIs that a previous process configured on the host.
    configured: BTreeSet<IpAddr>,
    /// Everything that the kernel takes for an address of the node itself.
    own: Vec<IpNet>,
    /// The addresses of ENIs that are left alone because of them.
    left: BTreeMap<EniId, Vec<IpNet>>,
}

impl Seen {
    /// An address of the ENI that the node itself uses, unless the pool has managed the ENI already.
    fn used_by_host(&self, eni: &Interface) -> Option<IpAddr> {
        let configured = |address: Ipv4Addr| self.configured.contains(&address.into());
        let ours = self.kept.contains(&eni.eni) || eni.primary.is_some_and(configured);
        let mut all = nets(eni).into_iter().filter(|_| !ours);
        all.find(|net| self.uses(net)).map(|net| net.addr())
    }

    fn uses(&self, net: &IpNet) -> bool {
        let mut own = self.own.iter();
        own.any(|own| own.contains(net) || net.contains(own))
    }

    /// Notes the decision, for the log and for later ones.
    fn note(&mut self, eni: &Interface, owner: &Ownership, adopted: bool) {
        let id = &eni.eni;
        match owner {
            Ownership::Managed => {
                self.kept.insert(id.clone());
                self.left.remove(id);
            }
            Ownership::Unmanaged(Reason::UsedByHost(_)) => {
                self.left.insert(id.clone(), nets(eni));
            }
            Ownership::Unmanaged(_) => {}
        }
        if adopted {
            let origin = origin(eni);
            if !self.adopted.contains_key(id) {
                tracing::info!(eni = %id, %origin, "the pool manages an ENI that this node did not create");
            }
            self.adopted.insert(id.clone(), origin);
        }
    }
}

impl Executor {
    /// The pool has managed these ENIs, and a previous process configured these addresses of ENIs on the host.
    pub fn keep(&self, enis: impl IntoIterator<Item = EniId>, configured: BTreeSet<IpAddr>) {
        let mut seen = self.seen();
        seen.kept.extend(enis);
        seen.configured = configured;
    }

    /// Takes note of everything that the host keeps from pods. True if an ENI that was left alone because of one is free now, so
    /// that EC2's list is worth another look.
    pub fn host_has(&self, claims: &[(IpNet, HostClaim)]) -> bool {
        let own = claims.iter().filter(|(_, claim)| *claim == HostClaim::Own);
        let mut seen = self.seen();
        seen.own = own.map(|(net, _)| *net).collect();
        let mut left = seen.left.values();
        left.any(|nets| !nets.iter().any(|net| seen.uses(net)))
    }

    /// Every ENI that is attached to this instance: one call, which is all that pods need.
    ///
    /// # Errors
    /// The failure of DescribeNetworkInterfaces.
    pub async fn attached(&self) -> Result<Vec<Observed>, Failure> {
        let found = self
            .describe([("attachment.instance-id", &self.me.instance)])
            .await?;
        self.observe_all(found).await
    }

    /// Whether unattached ENIs of this node are looked for, and deleted.
    #[must_use]
    pub fn cleans_up(&self) -> bool {
        self.settings.leaked_eni_cleanup
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
        self.observe_all(found).await
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

    async fn observe_all(
        &self,
        mut found: BTreeMap<EniId, Interface>,
    ) -> Result<Vec<Observed>, Failure> {
        let instance = &self.me.instance;
        // An ENI of ours that someone attached to another instance does not belong to this node any more.
        found.retain(|_, eni| {
            eni.attachment
                .as_ref()
                .is_none_or(|attachment| attachment.instance.as_ref() == Some(instance))
        });
        if let Some(primary) = found.values().find(|eni| eni.mac == self.me.mac) {
            let mut seen = self.seen();
            seen.vpc.clone_from(&primary.vpc);
            seen.zone.clone_from(&primary.zone);
            let groups = Some(primary.groups.clone());
            seen.groups = groups.filter(|groups| !groups.is_empty());
        }
        let mut inventory = Vec::with_capacity(found.len());
        for eni in found.into_values() {
            inventory.push(self.observe(eni).await?);
        }
        Ok(inventory)
    }

    /// Puts EC2's description of an ENI into the planner's terms: above all, whether the pool manages it.
    pub(super) async fn observe(&self, eni: Interface) -> Result<Observed, Failure> {
        let (vpc, zone) = self.home();
        let node = Node {
            instance: &self.me.instance,
            vpc: vpc.as_deref(),
            zone: zone.as_deref(),
            manage_untagged: self.settings.manage_untagged,
        };
        let mut facts = Facts {
            eni: &eni.eni,
            primary: eni.mac == self.me.mac,
            interface_type: &eni.interface_type,
            has_ipv4: eni.primary.is_some(),
            managed_by_aws: eni.managed_by_aws,
            instance_tag: eni.tags.get(INSTANCE_TAG).map(String::as_str),
            no_manage_tag: eni.tags.get(NO_MANAGE_TAG).map(String::as_str),
            vpc: eni.vpc.as_deref(),
            zone: eni.zone.as_deref(),
            status: &eni.status,
            subnet_visible: true,
            used_by_host: self.seen().used_by_host(&eni),
        };
        let mut subnet_cidr = None;
        if ownership(&facts, &node).is_managed() {
            subnet_cidr = self.visible_subnet(&eni.subnet).await?;
            facts.subnet_visible = subnet_cidr.is_some();
        }
        let owner = ownership(&facts, &node);
        if let Ownership::Unmanaged(reason) = &owner {
            tracing::info!(eni = %eni.eni, %reason, "the pool does not manage this ENI");
        }
        let tagged_ours = facts.tagged_ours(&node);
        let adopted = owner.is_managed() && !facts.primary && !tagged_ours;
        self.seen().note(&eni, &owner, adopted);
        let attached = eni
            .attachment
            .filter(|attachment| attachment.status != "detached")
            .map(|attachment| EniAttachment {
                id: attachment.id,
                card: attachment.card,
                device: attachment.device,
                settled: attachment.status == "attached",
            });
        Ok(Observed {
            subnet_cidr,
            managed: owner.is_managed(),
            tagged_ours,
            eni: eni.eni,
            mac: eni.mac,
            subnet: eni.subnet,
            security_groups: eni.groups,
            // The pool does not manage an ENI without one.
            primary: eni.primary.unwrap_or(Ipv4Addr::UNSPECIFIED),
            addresses: eni.secondary.into_iter().map(IpAddr::V4).collect(),
            prefixes: eni.prefixes,
            attached,
        })
    }

    /// Logs what is about to be removed from an ENI that another program created: that program may still use it.
    pub(super) fn log_removal(&self, command: &Command) {
        let (eni, addresses, prefixes) = match command {
            Command::Unassign {
                eni,
                addresses,
                prefixes,
                ..
            } => (eni, listed(addresses), listed(prefixes)),
            Command::DetachEni { eni, .. } | Command::DeleteEni { eni, .. } => {
                (eni, String::new(), String::new())
            }
            _ => return,
        };
        if let Some(origin) = self.seen().adopted.get(eni) {
            let action = removal(command);
            tracing::warn!(
                %eni,
                action,
                addresses,
                prefixes,
                %origin,
                "removing something of an ENI that this node did not create; if it is missed, its origin says whom \
                 to ask (CloudTrail shows who called AttachNetworkInterface); tag the ENI {NO_MANAGE_TAG}=true"
            );
        }
    }

    /// The VPC and the zone of the node. `None` until EC2 has told.
    pub(super) fn home(&self) -> (Option<String>, Option<String>) {
        let seen = self.seen();
        (seen.vpc.clone(), seen.zone.clone())
    }

    /// `None` until EC2 has told.
    pub(super) fn groups_of_primary(&self) -> Option<Vec<SecurityGroupId>> {
        self.seen().groups.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no holder panics")
    }

    /// The subnet's network, or `None` if EC2 does not show the subnet to this account (a subnet that another account
    /// shares). Its ENI has no gateway that we know. It must not make the whole list fail.
    async fn visible_subnet(&self, subnet: &SubnetId) -> Result<Option<Ipv4Net>, Failure> {
        match self.subnet_cidr(subnet).await {
            Err(failure) if failure.class == Class::NotFound => Ok(None),
            known => known.map(Some),
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
        let found = self
            .described_subnets(vec![("subnet-id", vec![subnet.0.clone()])])
            .await?;
        let cidr = found.into_iter().find(|found| found.subnet == *subnet);
        cidr.map(|found| found.cidr).ok_or_else(|| {
            let message =
                format!("DescribeSubnets: subnet {subnet} is not visible to this account");
            Failure::new(Class::NotFound, message)
        })
    }
}

/// Every address of an ENI, its own one first.
fn nets(eni: &Interface) -> Vec<IpNet> {
    let addresses = eni.primary.into_iter().chain(eni.secondary.iter().copied());
    let addresses = addresses.map(|address| IpNet::from(IpAddr::V4(address)));
    addresses.chain(eni.prefixes.iter().copied()).collect()
}

/// Whom to ask about an ENI: its description, its creator, the account of its attachment and its tags.
pub(super) fn origin(eni: &Interface) -> String {
    let attachment = eni.attachment.as_ref();
    let account = attachment.and_then(|attachment| attachment.account.as_deref());
    let tags = eni.tags.iter().map(|(key, value)| format!("{key}={value}"));
    let tags: Vec<_> = tags.collect();
    let parts = [
        ("description", Some(eni.description.as_str())),
        ("created by", eni.requester.as_deref()),
        ("attached to an instance of", account),
        ("tags", Some(&tags.join(", "))),
    ];
    let known = parts.into_iter().filter_map(|(name, text)| {
        let text = text.filter(|text| !text.is_empty())?;
        Some(format!("{name}: {text}"))
    });
    let known: Vec<_> = known.collect();
    if known.is_empty() {
        return "unknown".to_owned();
    }
    known.join("; ")
}

const fn removal(command: &Command) -> &'static str {
    match command {
        Command::DetachEni { .. } => "detach",
        Command::DeleteEni { .. } => "delete",
        _ => "unassign",
    }
}

fn listed<T: ToString>(all: &[T]) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    all.join(", ")
}
