//! The subnets of pods: tags, ENIConfig, zones, security groups, route tables and free addresses of the subnets in which
//! the node may create ENIs.

use std::collections::{BTreeMap, BTreeSet};

use planner::{
    EniClass, SecurityGroupId, SubnetId,
    placement::Selector,
    scope::subnets::{CLUSTER_TAG, fit},
};

use super::{Check, Finding, failure, warning};
use crate::{
    config::{Config, PodSubnets},
    ec2::{
        api::{Call, CallError, Ec2 as _, Interface, Reply, RouteTable, Subnet},
        aws::Aws,
    },
    kube,
    node::identity::Identity,
};

const NAME: &str = "pod subnets";

/// Where the node is.
struct Home<'a> {
    subnet: &'a SubnetId,
    vpc: String,
    zone: String,
}

pub(super) async fn check(config: &Config, aws: &Aws, me: &Identity, enis: &[Interface]) -> Check {
    let primary = enis.iter().find(|eni| eni.mac == me.mac);
    let known = primary.and_then(|eni| Some((eni.vpc.clone()?, eni.zone.clone()?)));
    let Some((vpc, zone)) = known else {
        return Check::skipped(NAME, "EC2 has not described the primary ENI");
    };
    let home = Home {
        subnet: &me.subnet,
        vpc,
        zone,
    };
    match &config.pod_subnets {
        PodSubnets::Primary => Check::new(NAME, "the subnet of the primary ENI", Vec::new()),
        PodSubnets::Discovery => by_tags(aws, &home, config.cloud.cluster.as_deref()).await,
        PodSubnets::Custom(keys) => {
            match kube::class_of_node(config.kubernetes.clone(), keys.clone()).await {
                Err(why) => {
                    let finding = failure(
                        "the node's ENIConfig cannot be read",
                        why,
                        "the last known ENIConfig stays in force; without one, no ENI can be created",
                        "check that the API server can be reached, that the custom resource ENIConfig is installed, and \
                         that the ServiceAccount may get it",
                    );
                    Check::new(NAME, "", vec![finding])
                }
                Ok(Err(none)) => {
                    let effect =
                        "no ENI can be created: pods beyond the addresses of existing ENIs wait";
                    let finding = failure(
                        "the node has no usable ENIConfig",
                        none.why,
                        effect,
                        none.remedy,
                    );
                    Check::new(NAME, "", vec![finding])
                }
                Ok(Ok(class)) => by_config(aws, &home, &class).await,
            }
        }
    }
}

async fn by_tags(aws: &Aws, home: &Home<'_>, cluster: Option<&str>) -> Check {
    let filters = vec![
        ("vpc-id".to_owned(), vec![home.vpc.clone()]),
        ("availability-zone".to_owned(), vec![home.zone.clone()]),
    ];
    let all = match subnets(aws, filters).await {
        Ok(all) => all,
        Err(error) => return unlisted(&error),
    };
    let mut findings = Vec::new();
    let (mut fitting, mut reasons) = (Vec::new(), Vec::new());
    for subnet in all {
        match fit(&subnet.tags, subnet.subnet == *home.subnet, cluster) {
            Ok(()) => fitting.push(subnet),
            Err(why) => reasons.push(format!("{}: {why}", subnet.subnet)),
        }
    }
    let unnamed = |subnet: &&Subnet| subnet.tags.keys().any(|key| key.starts_with(CLUSTER_TAG));
    if cluster.is_none()
        && let Some(subnet) = fitting.iter().find(unnamed)
    {
        findings.push(warning(
            format!("{} is tagged for some clusters", subnet.subnet),
            "CLUSTER_NAME is not set, so the tags of clusters are not read",
            "nodes of every cluster use the subnet",
            "set CLUSTER_NAME to the cluster's name",
        ));
    }
    if fitting.is_empty() {
        findings.push(failure(
            "no subnet may get new ENIs",
            reasons.join("; "),
            "the pool cannot grow beyond its present ENIs",
            format!("tag a subnet of {} kubernetes.io/role/cni=1", home.zone),
        ));
    }
    findings.extend(routes(aws, home, &fitting).await);
    findings.extend(room(&fitting));
    Check::new(NAME, format!("by tags: {}", names(&fitting)), findings)
}

async fn by_config(aws: &Aws, home: &Home<'_>, class: &EniClass) -> Check {
    let Selector::Listed(listed) = &class.subnets else {
        return Check::skipped(NAME, "the ENIConfig names no subnet");
    };
    let wanted: Vec<_> = listed.iter().map(|one| one.subnet.to_string()).collect();
    let filters = vec![("subnet-id".to_owned(), wanted.clone())];
    let found = match subnets(aws, filters).await {
        Ok(found) => found,
        Err(error) => return unlisted(&error),
    };
    let mut findings = Vec::new();
    for one in listed {
        let known = found.iter().find(|subnet| subnet.subnet == one.subnet);
        findings.extend(match known {
            None => Some(failure(
                format!("{} of the {} does not exist", one.subnet, class.name),
                "EC2 does not list it",
                "no ENI can be created in it",
                "correct spec.subnet of the ENIConfig",
            )),
            Some(subnet) => elsewhere(subnet, home, class),
        });
    }
    let here: Vec<_> = found
        .into_iter()
        .filter(|subnet| subnet.zone.as_ref() == Some(&home.zone))
        .collect();
    let groups = class.security_groups.as_deref().unwrap_or_default();
    findings.extend(strange_groups(aws, home, class, groups).await);
    findings.extend(routes(aws, home, &here).await);
    findings.extend(room(&here));
    Check::new(NAME, format!("{}: {}", class.name, names(&here)), findings)
}

fn elsewhere(subnet: &Subnet, home: &Home<'_>, class: &EniClass) -> Option<Finding> {
    let zone = subnet.zone.as_ref().filter(|zone| **zone != home.zone)?;
    Some(failure(
        format!("{} of the {} is in another zone", subnet.subnet, class.name),
        format!("it is in {zone}, and the node is in {}", home.zone),
        "its ENIs could not be attached to this node",
        format!("name a subnet of {} in the ENIConfig", home.zone),
    ))
}

/// Nothing, if EC2 does not tell: the permission is not in the daemon's policy.
async fn strange_groups(
    aws: &Aws,
    home: &Home<'_>,
    class: &EniClass,
    groups: &[SecurityGroupId],
) -> Vec<Finding> {
    if groups.is_empty() {
        return Vec::new();
    }
    let Ok(vpcs) = aws.vpcs_of_groups(groups).await else {
        return Vec::new();
    };
    let vpcs: BTreeMap<_, _> = vpcs.into_iter().collect();
    let strange = |group: &SecurityGroupId| {
        let evidence = match vpcs.get(group) {
            Some(vpc) if *vpc == home.vpc => return None,
            Some(vpc) => format!("it is in {vpc}, and the node is in {}", home.vpc),
            None => "EC2 does not list it".to_owned(),
        };
        Some(failure(
            format!(
                "{group} of the {} is not a group of the node's VPC",
                class.name
            ),
            evidence,
            "EC2 refuses to create ENIs with it",
            "correct spec.securityGroups of the ENIConfig",
        ))
    };
    groups.iter().filter_map(strange).collect()
}

/// Subnets with other routes than the node's. Nothing, if IAM denies the call: then it is not known.
async fn routes(aws: &Aws, home: &Home<'_>, subnets: &[Subnet]) -> Vec<Finding> {
    if subnets.iter().all(|subnet| subnet.subnet == *home.subnet) {
        return Vec::new();
    }
    let vpc = home.vpc.clone();
    let Ok(Reply::RouteTables(tables)) = aws.call(Call::DescribeRouteTables { vpc }).await else {
        return Vec::new();
    };
    let own = table_of(&tables, home.subnet);
    let other = |subnet: &Subnet| {
        let table = table_of(&tables, &subnet.subnet)?;
        let own = own?;
        (table != own).then(|| {
            warning(
                format!("{} has other routes than the node", subnet.subnet),
                format!("it uses {table}, and the node's subnet uses {own}"),
                "what its pods send by their own ENI may go another way than the node's packets, or nowhere",
                "compare both route tables; associate the subnet with the node's one if they should be alike",
            )
        })
    };
    subnets.iter().filter_map(other).collect()
}

fn table_of<'a>(tables: &'a [RouteTable], subnet: &SubnetId) -> Option<&'a str> {
    let own = tables.iter().find(|table| table.subnets.contains(subnet));
    let table = own.or_else(|| tables.iter().find(|table| table.main));
    table.map(|table| table.id.as_str())
}

fn room(subnets: &[Subnet]) -> Option<Finding> {
    let full = !subnets.is_empty() && subnets.iter().all(|subnet| subnet.free == 0);
    full.then(|| {
        failure(
            "no subnet of pods has a free address",
            format!("EC2's availableIpAddressCount is 0 for {}", names(subnets)),
            "no node in this zone can grow; pods wait",
            "free addresses, or add a subnet",
        )
    })
}

async fn subnets(aws: &Aws, filters: Vec<(String, Vec<String>)>) -> Result<Vec<Subnet>, CallError> {
    match aws.call(Call::DescribeSubnets { filters }).await? {
        Reply::Subnets(found) => Ok(found),
        _ => Ok(Vec::new()),
    }
}

fn unlisted(error: &CallError) -> Check {
    let finding = warning(
        "EC2 does not list subnets",
        error.to_string(),
        "new ENIs are in the subnet of the primary ENI, or in those that the ENIConfig names",
        "allow ec2:DescribeSubnets in the node role's policy",
    );
    Check::new(NAME, "", vec![finding])
}

fn names(subnets: &[Subnet]) -> String {
    let names: BTreeSet<_> = subnets
        .iter()
        .map(|subnet| subnet.subnet.0.as_str())
        .collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}
