//! One region of EC2, in memory: subnets, interfaces, addresses, instances, and their rules.
//!
//! Owns the ledger with which tests compare the daemon's state. Pure: it reads no clock, waits for nothing, and uses
//! its own seed. Every method gets the current time and first does everything that is due. It must not know HTTP,
//! namespaces or threads, which call it and follow [`World::take_changes`].
//!
//! May use `action`, `error`, `ids`, `latency`, `random` and `time`.

mod address;
mod assign;
mod attach;
pub mod describe;
mod firewall;
mod interface;
mod lag;
mod launch;
pub mod model;
pub mod request;
mod settle;
mod tags;
pub mod throttle;
mod topology;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use planner::limits::InstanceType;

use self::{
    address::pool::Pool,
    lag::Shadows,
    model::{
        Change, Instance, NetworkInterface, RouteTable, SecurityGroup, Subnet, Vpc, security::Guard,
    },
    request::CreateNetworkInterface,
    settle::Timers,
    throttle::Buckets,
};
pub use self::{
    lag::{ImdsInterface, ImdsLag},
    launch::{LaunchInstance, ManagedInterface},
};
use crate::{
    action::Action,
    error::{ApiError, Resource},
    ids::{EniId, GroupId, InstanceId, RouteTableId, SubnetId, VpcId},
    latency::Latency,
    random::Rng,
};

/// Quotas that AWS raises on request; the defaults are those of a new account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    pub interfaces: usize,
    pub groups_per_interface: usize,
    pub tags_per_resource: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            interfaces: 5000,
            groups_per_interface: 5,
            tags_per_resource: 50,
        }
    }
}

#[derive(Clone, Debug)]
pub struct WorldConfig {
    pub seed: u64,
    pub region: String,
    pub account: String,
    pub latency: Latency,
    /// Whether calls are throttled per API.
    pub throttling: bool,
    pub quotas: Quotas,
    /// Types that EC2 offers but the published table does not contain yet.
    pub new_types: Vec<InstanceType>,
    /// From every instance's metadata options; not enforced for packets.
    pub hop_limit: u8,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            region: "us-west-2".to_owned(),
            account: "123456789012".to_owned(),
            latency: Latency::none(),
            throttling: false,
            quotas: Quotas::default(),
            new_types: Vec::new(),
            hop_limit: 2,
        }
    }
}

/// A subnet and its used addresses.
#[derive(Clone, Debug)]
struct Place {
    subnet: Subnet,
    v4: Pool,
    v6: Option<Pool>,
}

/// One generator per purpose: enabling latency does not change the assigned addresses.
#[derive(Clone, Debug)]
struct Dice {
    ids: Rng,
    addresses: Rng,
    delays: Rng,
    routes: Rng,
}

/// The region.
#[derive(Clone, Debug)]
pub struct World {
    region: String,
    account: String,
    latency: Latency,
    quotas: Quotas,
    new_types: Vec<InstanceType>,
    pub(crate) hop_limit: u8,
    dice: Dice,
    buckets: Option<Buckets>,
    vpcs: BTreeMap<VpcId, Vpc>,
    places: BTreeMap<SubnetId, Place>,
    /// The subnet of instances without a subnet.
    first_subnet: Option<SubnetId>,
    groups: BTreeMap<GroupId, SecurityGroup>,
    route_tables: BTreeMap<RouteTableId, RouteTable>,
    instances: BTreeMap<InstanceId, Instance>,
    interfaces: BTreeMap<EniId, NetworkInterface>,
    /// The request and the interface of each ClientToken.
    tokens: BTreeMap<String, (CreateNetworkInterface, NetworkInterface)>,
    /// Addresses and prefixes that EC2 has assigned but the fabric does not deliver yet.
    unusable: BTreeSet<(EniId, ipnet::IpNet)>,
    /// What the fabric was told last.
    guarded: Vec<Guard>,
    timers: Timers,
    changes: Vec<Change>,
    shadows: Shadows,
}

impl World {
    #[must_use]
    pub fn new(config: WorldConfig) -> Self {
        let WorldConfig {
            seed,
            region,
            account,
            latency,
            throttling,
            quotas,
            new_types,
            hop_limit,
        } = config;
        Self {
            region,
            account,
            latency,
            quotas,
            new_types,
            hop_limit,
            dice: Dice {
                ids: Rng::new(seed, 1),
                addresses: Rng::new(seed, 2),
                delays: Rng::new(seed, 3),
                routes: Rng::new(seed, 4),
            },
            buckets: throttling.then(Buckets::default),
            vpcs: BTreeMap::new(),
            places: BTreeMap::new(),
            first_subnet: None,
            groups: BTreeMap::new(),
            route_tables: BTreeMap::new(),
            instances: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            tokens: BTreeMap::new(),
            unusable: BTreeSet::new(),
            guarded: Vec::new(),
            timers: Timers::default(),
            changes: Vec::new(),
            shadows: Shadows::default(),
        }
    }

    /// Enables throttling (with full buckets) or disables it.
    pub fn set_throttling(&mut self, on: bool) {
        self.buckets = on.then(Buckets::default);
    }

    pub fn set_latency(&mut self, latency: Latency) {
        self.latency = latency;
    }

    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    #[must_use]
    pub fn vpc(&self, id: &VpcId) -> Option<&Vpc> {
        self.vpcs.get(id)
    }

    #[must_use]
    pub fn subnet(&self, id: &SubnetId) -> Option<&Subnet> {
        self.places.get(id).map(|p| &p.subnet)
    }

    pub fn subnets(&self) -> impl Iterator<Item = &Subnet> {
        self.places.values().map(|p| &p.subnet)
    }

    /// The subnet with this block.
    #[must_use]
    pub fn subnet_at(&self, cidr: ipnet::Ipv4Net) -> Option<&Subnet> {
        self.subnets().find(|s| s.cidr == cidr)
    }

    pub fn vpcs(&self) -> impl Iterator<Item = &Vpc> {
        self.vpcs.values()
    }

    #[must_use]
    pub fn group(&self, id: &GroupId) -> Option<&SecurityGroup> {
        self.groups.get(id)
    }

    #[must_use]
    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.get(id)
    }

    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    #[must_use]
    pub fn interface(&self, id: &EniId) -> Option<&NetworkInterface> {
        self.interfaces.get(id)
    }

    pub fn interfaces(&self) -> impl Iterator<Item = &NetworkInterface> {
        self.interfaces.values()
    }

    /// The interface that owns `address` in EC2, attached or not.
    #[must_use]
    pub fn owner_of(&self, address: impl Into<IpAddr>) -> Option<&NetworkInterface> {
        let address = address.into();
        self.interfaces.values().find(|e| e.owns(address))
    }

    /// The subnet that was added first.
    #[must_use]
    pub const fn first_subnet(&self) -> Option<&SubnetId> {
        self.first_subnet.as_ref()
    }

    /// `availableIpAddressCount` of a subnet, IPv4.
    #[must_use]
    pub fn available(&self, subnet: &SubnetId) -> u128 {
        self.places.get(subnet).map_or(0, |p| p.v4.available())
    }

    /// The duration of a call of `action`, drawn each time: half of it before it takes effect, half of it after.
    pub fn draw_call_latency(&mut self, action: Action) -> Duration {
        self.latency.call(action, &mut self.dice.delays)
    }

    /// The start of every call: due timers run, then the account's bucket is checked. `narrow`: filtered or paged.
    fn begin(&mut self, action: Action, narrow: bool, now: Duration) -> Result<(), ApiError> {
        self.advance(now);
        let admitted = self
            .buckets
            .as_mut()
            .is_none_or(|b| b.admit(action, narrow, now));
        if admitted {
            Ok(())
        } else {
            Err(ApiError::Throttled)
        }
    }

    fn place(&self, id: &SubnetId) -> Result<&Place, ApiError> {
        self.places
            .get(id)
            .ok_or_else(|| ApiError::not_found(Resource::Subnet, id))
    }

    fn eni(&self, id: &EniId) -> Result<&NetworkInterface, ApiError> {
        self.interfaces
            .get(id)
            .ok_or_else(|| ApiError::not_found(Resource::Interface, id))
    }

    fn eni_mut(&mut self, id: &EniId) -> Result<&mut NetworkInterface, ApiError> {
        self.interfaces
            .get_mut(id)
            .ok_or_else(|| ApiError::not_found(Resource::Interface, id))
    }
}
