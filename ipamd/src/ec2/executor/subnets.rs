//! Reading EC2's subnets: those of the node's VPC and zone or those of an ENIConfig, and their route tables if there is a
//! choice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::MutexGuard,
};

use planner::{
    Class, Failure, SubnetId,
    placement::{Candidate, Inquiry, SubnetList},
    scope::subnets::ROLE_TAG,
};

use super::{Executor, unexpected};
use crate::ec2::api::{Call, Reply, RouteTable, Subnet};

/// Route tables of the subnets between which there is a choice.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    of: BTreeSet<SubnetId>,
    tables: BTreeMap<SubnetId, String>,
    /// The last list, if the tables of its subnets are still to be asked for.
    owed: Option<Vec<Subnet>>,
}

impl Executor {
    /// The subnets that `inquiry` asks for: one call, and another one for route tables if there is a choice and they are not
    /// known. Without `at_once` it is one call in any case: the next time, only route tables are asked for.
    ///
    /// # Errors
    /// The failure of DescribeSubnets.
    pub(super) async fn subnets(
        &self,
        inquiry: Inquiry,
        at_once: bool,
    ) -> Result<SubnetList, Failure> {
        let owed = self.routes().owed.take();
        let (vpc, zone) = self.home();
        if let (Some(found), Some(vpc), false) = (owed, &vpc, at_once) {
            let choice = self.choice(&inquiry, &found);
            let tables = self.route_tables(vpc.clone(), choice).await;
            return Ok(candidates(zone, found, &tables));
        }
        let filters = match &inquiry {
            Inquiry::These(ids) => {
                vec![("subnet-id", ids.iter().map(ToString::to_string).collect())]
            }
            Inquiry::OfZone => {
                let (Some(vpc), Some(zone)) = (vpc.clone(), zone.clone()) else {
                    let message = "DescribeSubnets: the VPC and the zone of the node are not known";
                    return Err(Failure::new(Class::Transient, message));
                };
                vec![("vpc-id", vec![vpc]), ("availability-zone", vec![zone])]
            }
        };
        let found = self.described_subnets(filters).await?;
        let choice = self.choice(&inquiry, &found);
        let known = self.known_tables(&choice);
        let tables = match (known, vpc) {
            (Some(tables), _) => tables,
            (None, Some(vpc)) if at_once => self.route_tables(vpc, choice).await,
            _ => {
                self.routes().owed = Some(found.clone());
                BTreeMap::new()
            }
        };
        Ok(candidates(zone, found, &tables))
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().expect("no holder panics")
    }

    /// The route tables, if they are known or do not matter.
    fn known_tables(&self, choice: &BTreeSet<SubnetId>) -> Option<BTreeMap<SubnetId, String>> {
        let routes = self.routes();
        match choice {
            none if none.is_empty() => Some(BTreeMap::new()),
            same if routes.of == *same => Some(routes.tables.clone()),
            _ => None,
        }
    }

    pub(super) async fn described_subnets(
        &self,
        filters: Vec<(&str, Vec<String>)>,
    ) -> Result<Vec<Subnet>, Failure> {
        let filters = filters
            .into_iter()
            .map(|(name, values)| (name.to_owned(), values));
        let call = Call::DescribeSubnets {
            filters: filters.collect(),
        };
        let reply = self.call(call).await?;
        let Reply::Subnets(found) = reply else {
            return Err(unexpected(&reply));
        };
        let mut known = self.subnets.lock().expect("no holder panics");
        known.extend(
            found
                .iter()
                .map(|subnet| (subnet.subnet.clone(), subnet.cidr)),
        );
        Ok(found)
    }

    /// The subnets between which the pool can choose, with the node's own to compare with.
    fn choice(&self, inquiry: &Inquiry, found: &[Subnet]) -> BTreeSet<SubnetId> {
        let home = &self.me.subnet;
        let tagged = |subnet: &&Subnet| {
            let role = subnet.tags.get(ROLE_TAG);
            role.is_some_and(|role| !role.is_empty() && role != "0")
        };
        let others = found.iter().filter(|subnet| match inquiry {
            Inquiry::OfZone => tagged(subnet),
            Inquiry::These(_) => true,
        });
        let others = others.map(|subnet| subnet.subnet.clone());
        let mut others: BTreeSet<_> = others.filter(|subnet| subnet != home).collect();
        // One subnet of an ENIConfig is no choice: the node's own is not among them.
        let alone = matches!(inquiry, Inquiry::These(_)) && others.len() < 2;
        if alone || others.is_empty() {
            return BTreeSet::new();
        }
        others.insert(home.clone());
        others
    }

    /// EC2 is asked again only for other subnets: the tables matter for the order of choice, and nothing depends on them.
    /// If IAM denies the call they are not known.
    async fn route_tables(
        &self,
        vpc: String,
        subnets: BTreeSet<SubnetId>,
    ) -> BTreeMap<SubnetId, String> {
        let tables = match self.call(Call::DescribeRouteTables { vpc }).await {
            Ok(Reply::RouteTables(tables)) => by_subnet(&tables, &subnets),
            Err(failure) if matches!(failure.class, Class::Denied { .. }) => {
                tracing::info!(
                    "without ec2:DescribeRouteTables new ENIs may go to subnets with other routes than the node's"
                );
                BTreeMap::new()
            }
            // The next list tries again.
            Ok(_) | Err(_) => return BTreeMap::new(),
        };
        let mut routes = self.routes();
        routes.of = subnets;
        routes.tables.clone_from(&tables);
        tables
    }
}

fn candidates(
    zone: Option<String>,
    found: Vec<Subnet>,
    tables: &BTreeMap<SubnetId, String>,
) -> SubnetList {
    let candidate = |subnet: Subnet| Candidate {
        route_table: tables.get(&subnet.subnet).cloned(),
        subnet: subnet.subnet,
        zone: subnet.zone,
        cidr: subnet.cidr,
        free: subnet.free,
        tags: subnet.tags,
    };
    SubnetList {
        zone,
        subnets: found.into_iter().map(candidate).collect(),
    }
}

/// A subnet without a table of its own uses the VPC's main one.
fn by_subnet(tables: &[RouteTable], subnets: &BTreeSet<SubnetId>) -> BTreeMap<SubnetId, String> {
    let main = tables.iter().find(|table| table.main);
    let of = |subnet: &SubnetId| {
        let own = tables.iter().find(|table| table.subnets.contains(subnet));
        let table = own.or(main)?;
        Some((subnet.clone(), table.id.clone()))
    };
    subnets.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_without_a_route_table_of_its_own_uses_the_main_one() {
        let table = |id: &str, main, subnets: &[&str]| RouteTable {
            id: id.to_owned(),
            main,
            subnets: subnets.iter().map(|id| SubnetId::from(*id)).collect(),
        };
        let tables = [
            table("rtb-main", true, &["subnet-4"]),
            table("rtb-2", false, &["subnet-1", "subnet-2"]),
        ];
        let wanted = ["subnet-1", "subnet-3", "subnet-4"].map(SubnetId::from);
        let found = by_subnet(&tables, &wanted.into());
        let found: Vec<_> = found
            .iter()
            .map(|(subnet, table)| (subnet.0.as_str(), table.as_str()))
            .collect();
        let expected = [
            ("subnet-1", "rtb-2"),
            ("subnet-3", "rtb-main"),
            ("subnet-4", "rtb-main"),
        ];
        assert_eq!(found, expected);
    }
}
