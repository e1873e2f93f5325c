//! Describing subnets and route tables.

use aws_sdk_ec2::types::{Filter, Subnet, Tag};
use planner::SubnetId;

use super::{Aws, failed, parse};
use crate::ec2::api::{self, CallError, Reply};

impl Aws {
    pub(super) async fn describe_subnets(
        &self,
        action: &'static str,
        filters: Vec<(String, Vec<String>)>,
    ) -> Result<Reply, CallError> {
        let filters = filters.into_iter().map(|(name, values)| {
            Filter::builder()
                .name(name)
                .set_values(Some(values))
                .build()
        });
        let mut pages = self
            .client
            .describe_subnets()
            .set_filters(Some(filters.collect()))
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| failed(action, &e))?;
            for one in page.subnets() {
                found.extend(subnet(action, one)?);
            }
        }
        Ok(Reply::Subnets(found))
    }

    pub(super) async fn describe_route_tables(
        &self,
        action: &'static str,
        vpc: String,
    ) -> Result<Reply, CallError> {
        let filter = Filter::builder().name("vpc-id").values(vpc).build();
        let mut pages = self
            .client
            .describe_route_tables()
            .filters(filter)
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| failed(action, &e))?;
            for table in page.route_tables() {
                let Some(id) = table.route_table_id() else {
                    continue;
                };
                let associations = table.associations();
                let subnets = associations.iter().filter_map(|one| one.subnet_id());
                found.push(api::RouteTable {
                    id: id.to_owned(),
                    main: associations.iter().any(|one| one.main() == Some(true)),
                    subnets: subnets.map(SubnetId::from).collect(),
                });
            }
        }
        Ok(Reply::RouteTables(found))
    }
}

/// `None` for a subnet without IPv4.
fn subnet(action: &'static str, subnet: &Subnet) -> Result<Option<api::Subnet>, CallError> {
    let (Some(id), Some(cidr)) = (subnet.subnet_id(), subnet.cidr_block()) else {
        return Ok(None);
    };
    let pair = |tag: &Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or("").to_owned()));
    let free = subnet.available_ip_address_count().unwrap_or_default();
    Ok(Some(api::Subnet {
        subnet: SubnetId::from(id),
        cidr: parse(action, cidr)?,
        zone: subnet.availability_zone().map(str::to_owned),
        free: u32::try_from(free).unwrap_or_default(),
        tags: subnet.tags().iter().filter_map(pair).collect(),
    }))
}
