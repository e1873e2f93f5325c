//! Route tables: which subnets have one of their own, and what it leads to.
//!
//! They are described only: the fabric routes every subnet like the main table at its creation.

use crate::{
    ids::{RouteTableId, SubnetId, VpcId},
    world::{
        World,
        model::{Route, RouteTable, Tags},
    },
};

impl World {
    pub(super) fn add_main_route_table(&mut self, vpc: &VpcId) {
        let gateway = vpc.0.replacen("vpc-", "igw-", 1);
        let six = self.vpcs.get(vpc).is_some_and(|v| !v.ipv6.is_empty());
        let id = self.add_route_table(vpc, Route::everything(&gateway, six));
        if let Some(table) = self.route_tables.get_mut(&id) {
            table.main = true;
        }
    }

    /// A route table without subnets. `routes` are in addition to those to the VPC's own blocks.
    pub fn add_route_table(&mut self, vpc: &VpcId, routes: Vec<Route>) -> RouteTableId {
        let id = RouteTableId::draw(&mut self.dice.routes);
        let table = RouteTable {
            id: id.clone(),
            vpc: vpc.clone(),
            main: false,
            subnets: Vec::new(),
            routes,
            tags: Tags::new(),
        };
        self.route_tables.insert(id.clone(), table);
        id
    }

    /// AssociateRouteTable: the subnet leaves the table that it has. False if one of them does not exist, or they are
    /// in different VPCs.
    pub fn associate_route_table(&mut self, table: &RouteTableId, subnet: &SubnetId) -> bool {
        let vpc = self.subnet(subnet).map(|s| s.vpc.clone());
        if vpc.is_none() || vpc != self.route_tables.get(table).map(|t| t.vpc.clone()) {
            return false;
        }
        for (id, own) in &mut self.route_tables {
            own.subnets.retain(|s| s != subnet);
            if id == table {
                own.subnets.push(subnet.clone());
            }
        }
        true
    }

    pub fn route_tables(&self) -> impl Iterator<Item = &RouteTable> {
        self.route_tables.values()
    }

    /// The table of a subnet: its own, or the main table of its VPC.
    #[must_use]
    pub fn route_table_of(&self, subnet: &SubnetId) -> Option<&RouteTable> {
        let vpc = &self.subnet(subnet)?.vpc;
        let own = self.route_tables().find(|t| t.subnets.contains(subnet));
        own.or_else(|| self.route_tables().find(|t| t.main && t.vpc == *vpc))
    }

    /// A table with all its routes: first those to the VPC's own blocks.
    pub(in crate::world) fn with_local_routes(&self, table: &RouteTable) -> RouteTable {
        let mut routes = Vec::new();
        if let Some(vpc) = self.vpcs.get(&table.vpc) {
            routes.extend(
                vpc.cidrs
                    .iter()
                    .map(|net| Route::new((*net).into(), "local")),
            );
            routes.extend(
                vpc.ipv6
                    .iter()
                    .map(|net| Route::new((*net).into(), "local")),
            );
        }
        routes.extend(table.routes.clone());
        RouteTable {
            routes,
            ..table.clone()
        }
    }
}
