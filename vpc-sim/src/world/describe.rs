//! Reading by ids, filters and pages.
//!
//! Owns the Describe actions; [`match_filter`] owns the filters of each kind. May use `model`, `request`, `action` and
//! `error`. Must not know how anything is changed.

mod match_filter;

use std::{collections::BTreeSet, time::Duration};

use planner::limits::InstanceType;

use self::match_filter::Filtered;
pub use self::match_filter::TagRow;
pub(crate) use self::match_filter::{all_cards, hypervisor};
use super::{
    World,
    model::{Instance, NetworkInterface, RouteTable, SecurityGroup, Subnet, Tags, Vpc},
    request::{Page, Query},
};
use crate::{
    action::Action,
    error::{ApiError, Resource},
};

/// What is allowed in a Describe of one kind.
#[derive(Clone, Copy, Debug)]
struct Rules {
    action: Action,
    resource: Resource,
    /// The name of the ids in the request.
    ids: &'static str,
    /// Whether MaxResults can be combined with ids.
    paged_ids: bool,
    /// The largest MaxResults; the smallest is 5 everywhere.
    most: u32,
}

const SMALLEST_PAGE: u32 = 5;

impl World {
    /// DescribeNetworkInterfaces, in the order of ids.
    ///
    /// # Errors
    /// If an id is unknown, a filter is invalid, or paging is out of range or combined with ids.
    pub fn describe_network_interfaces(
        &mut self,
        q: &Query,
        now: Duration,
    ) -> Result<Page<NetworkInterface>, ApiError> {
        let rules = Rules {
            action: Action::DescribeNetworkInterfaces,
            resource: Resource::Interface,
            ids: "NetworkInterfaceId",
            paged_ids: false,
            most: 1000,
        };
        self.describe(rules, q, now, |w| {
            w.interfaces
                .values()
                .map(|e| (e.id.to_string(), e.clone()))
                .collect()
        })
    }

    /// DescribeInstances, including terminated ones.
    ///
    /// # Errors
    /// As [`World::describe_network_interfaces`].
    pub fn describe_instances(
        &mut self,
        q: &Query,
        now: Duration,
    ) -> Result<Page<Instance>, ApiError> {
        let rules = Rules {
            action: Action::DescribeInstances,
            resource: Resource::Instance,
            ids: "InstanceId",
            paged_ids: false,
            most: 1000,
        };
        self.describe(rules, q, now, |w| {
            w.instances
                .values()
                .map(|i| (i.id.to_string(), i.clone()))
                .collect()
        })
    }

    /// DescribeSubnets, each with its available addresses.
    ///
    /// # Errors
    /// As [`World::describe_network_interfaces`].
    pub fn describe_subnets(
        &mut self,
        q: &Query,
        now: Duration,
    ) -> Result<Page<(Subnet, u128)>, ApiError> {
        let rules = Rules {
            action: Action::DescribeSubnets,
            resource: Resource::Subnet,
            ids: "SubnetId",
            paged_ids: true,
            most: 1000,
        };
        let page = self.describe(rules, q, now, |w| {
            w.places
                .values()
                .map(|p| (p.subnet.id.to_string(), p.subnet.clone()))
                .collect()
        })?;
        let items = page
            .items
            .into_iter()
            .map(|s| (self.available(&s.id), s))
            .map(|(n, s)| (s, n))
            .collect();
        Ok(Page {
            items,
            next_token: page.next_token,
        })
    }

    /// DescribeVpcs.
    ///
    /// # Errors
    /// As [`World::describe_network_interfaces`].
    pub fn describe_vpcs(&mut self, q: &Query, now: Duration) -> Result<Page<Vpc>, ApiError> {
        let rules = Rules {
            action: Action::DescribeVpcs,
            resource: Resource::Vpc,
            ids: "VpcId",
            paged_ids: true,
            most: 1000,
        };
        self.describe(rules, q, now, |w| {
            w.vpcs
                .values()
                .map(|v| (v.id.to_string(), v.clone()))
                .collect()
        })
    }

    /// DescribeRouteTables, each with the routes to its VPC's own blocks.
    ///
    /// # Errors
    /// As [`World::describe_network_interfaces`].
    pub fn describe_route_tables(
        &mut self,
        q: &Query,
        now: Duration,
    ) -> Result<Page<RouteTable>, ApiError> {
        let rules = Rules {
            action: Action::DescribeRouteTables,
            resource: Resource::RouteTable,
            ids: "RouteTableId",
            paged_ids: true,
            most: 100,
        };
        self.describe(rules, q, now, |w| {
            w.route_tables()
                .map(|t| (t.id.to_string(), w.with_local_routes(t)))
                .collect()
        })
    }

    /// DescribeSecurityGroups.
    ///
    /// # Errors
    /// As [`World::describe_network_interfaces`].
    pub fn describe_security_groups(
        &mut self,
        q: &Query,
        now: Duration,
    ) -> Result<Page<SecurityGroup>, ApiError> {
        let rules = Rules {
            action: Action::DescribeSecurityGroups,
            resource: Resource::Group,
            ids: "GroupId",
            paged_ids: true,
            most: 1000,
        };
        self.describe(rules, q, now, |w| {
            w.groups
                .values()
                .map(|g| (g.id.to_string(), g.clone()))
                .collect()
        })
    }

    /// DescribeInstanceTypes, by name.
    ///
    /// # Errors
    /// As [`World::describe_network_interfaces`].
    pub fn describe_instance_types(
        &mut self,
        q: &Query,
        now: Duration,
    ) -> Result<Page<InstanceType>, ApiError> {
        let rules = Rules {
            action: Action::DescribeInstanceTypes,
            resource: Resource::InstanceType,
            ids: "InstanceType",
            paged_ids: true,
            most: 100,
        };
        self.describe(rules, q, now, |w| {
            planner::limits::all()
                .iter()
                .chain(&w.new_types)
                .map(|t| (t.name.to_string(), t.clone()))
                .collect()
        })
    }

    /// DescribeTags, by resource and key. It takes no ids.
    ///
    /// # Errors
    /// If a filter is invalid or paging is out of range.
    pub fn describe_tags(&mut self, q: &Query, now: Duration) -> Result<Page<TagRow>, ApiError> {
        let rules = Rules {
            action: Action::DescribeTags,
            resource: Resource::Other,
            ids: "ResourceId",
            paged_ids: true,
            most: 1000,
        };
        self.describe(rules, q, now, |w| {
            w.tag_rows()
                .into_iter()
                .map(|r| (format!("{}/{}", r.resource, r.key), r))
                .collect()
        })
    }

    fn tag_rows(&self) -> BTreeSet<TagRow> {
        let rows = |resource: String, resource_type, tags: &Tags| {
            let row = |(k, v): (&String, &String)| TagRow {
                resource: resource.clone(),
                resource_type,
                key: k.clone(),
                value: v.clone(),
            };
            tags.iter().map(row).collect::<Vec<_>>()
        };
        let enis = self
            .interfaces
            .values()
            .flat_map(|e| rows(e.id.to_string(), "network-interface", &e.tags));
        let subnets = self
            .subnets()
            .flat_map(|s| rows(s.id.to_string(), "subnet", &s.tags));
        let vpcs = self
            .vpcs
            .values()
            .flat_map(|v| rows(v.id.to_string(), "vpc", &v.tags));
        let route_tables = self
            .route_tables()
            .flat_map(|t| rows(t.id.to_string(), "route-table", &t.tags));
        let groups = self
            .groups
            .values()
            .flat_map(|g| rows(g.id.to_string(), "security-group", &g.tags));
        let instances = self
            .instances
            .values()
            .flat_map(|i| rows(i.id.to_string(), "instance", &i.tags));
        enis.chain(subnets)
            .chain(vpcs)
            .chain(route_tables)
            .chain(groups)
            .chain(instances)
            .collect()
    }

    /// `list` yields everything, sorted by key. A page ends at a key, and the next one starts after it, so that objects
    /// that are created or deleted in between neither repeat nor hide others.
    fn describe<T: Filtered>(
        &mut self,
        rules: Rules,
        q: &Query,
        now: Duration,
        list: impl FnOnce(&Self) -> Vec<(String, T)>,
    ) -> Result<Page<T>, ApiError> {
        let narrow = q.max_results.is_some() || !q.filters.is_empty();
        self.begin(rules.action, narrow, now)?;
        check_paging(rules, q)?;
        let mut all = list(self);
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        let unknown: Vec<_> = q
            .ids
            .iter()
            .filter(|id| !all.iter().any(|(key, _)| key == *id))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            return Err(ApiError::NotFound {
                kind: rules.resource,
                ids: unknown,
            });
        }
        let after = q.next_token.as_deref().map(read_token).transpose()?;
        let most = usize::try_from(q.max_results.unwrap_or(rules.most)).unwrap_or(usize::MAX);
        let (mut items, mut last, mut more) = (Vec::new(), String::new(), false);
        for (key, item) in all {
            let wanted = q.ids.is_empty() || q.ids.contains(&key);
            let seen = after.as_ref().is_some_and(|a| key <= *a);
            // Filters are evaluated for every item, so that an unknown name is an error even if nothing is left.
            if !match_filter::matches(&item, &q.filters)? || !wanted || seen {
                continue;
            }
            if items.len() == most {
                more = true;
                break;
            }
            items.push(item);
            last = key;
        }
        Ok(Page {
            items,
            next_token: more.then(|| write_token(&last)),
        })
    }
}

fn check_paging(rules: Rules, q: &Query) -> Result<(), ApiError> {
    let Some(max) = q.max_results else {
        return Ok(());
    };
    if !q.ids.is_empty() && !rules.paged_ids {
        return Err(ApiError::Combination {
            first: rules.ids.to_owned(),
            second: "MaxResults".to_owned(),
        });
    }
    if (SMALLEST_PAGE..=rules.most).contains(&max) {
        return Ok(());
    }
    let why = if max < SMALLEST_PAGE {
        "Expecting a value of 5 or more."
    } else {
        "The value is too large."
    };
    Err(ApiError::InvalidValue {
        name: "maxResults".into(),
        value: max.to_string(),
        why,
    })
}

/// Opaque for callers, like EC2's: the last key in hexadecimal.
fn write_token(key: &str) -> String {
    key.bytes().map(|b| format!("{b:02x}")).collect()
}

fn read_token(token: &str) -> Result<String, ApiError> {
    let bad = || ApiError::BadNextToken {
        token: token.to_owned(),
    };
    let digits: Option<Vec<_>> = token
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    let digits = digits
        .filter(|d| d.len() % 2 == 0 && !d.is_empty())
        .ok_or_else(bad)?;
    let bytes = digits.chunks_exact(2).map(|d| d[0] << 4 | d[1]).collect();
    String::from_utf8(bytes).map_err(|_| bad())
}
