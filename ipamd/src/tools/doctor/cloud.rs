//! EC2's side: which actions IAM allows, whether subnets have free addresses, and the hop limit of the metadata
//! service's answers.

use std::collections::BTreeSet;

use planner::{Family, SubnetId};
use proto::error_chain::chain;

use super::{Check, Finding, failure, pod_subnets, warning};
use crate::{
    config::Config,
    ec2::{
        api::{Call, CallError, Ec2 as _, Interface, Reply},
        aws::{
            Aws,
            dry_run::{Permission, Subject},
        },
        codes,
    },
    node::{identity::Identity, metadata::Metadata},
};

pub(super) async fn checks(config: &Config) -> Vec<Check> {
    let timeout = config.cloud.timeout;
    let me = match Metadata::new(timeout).identity().await {
        Ok(me) => me,
        Err(error) => {
            let why = format!("this instance is not known: {}", chain(&error));
            return ["iam", "subnets", "pod subnets", "hop limit"]
                .map(|name| Check::skipped(name, why.clone()))
                .into();
        }
    };
    let aws = Aws::new(me.region.clone(), &config.cloud.proxies, timeout).await;
    let attached = attached(&aws, &me).await;
    let enis = attached.as_ref().map_or(&[][..], Vec::as_slice);
    match config.pool.family {
        Family::V4 => vec![
            iam(&aws, &me, &attached, enis).await,
            subnets(&aws, &me, enis).await,
            pod_subnets::check(config, &aws, &me, enis).await,
            hop_limit(&aws, &me).await,
        ],
        Family::V6 => vec![
            list_only(&attached, &me.region),
            Check::skipped("subnets", "an IPv6 subnet has room for every node"),
            Check::skipped("pod subnets", "an IPv6 node uses its primary ENI only"),
            hop_limit(&aws, &me).await,
        ],
    }
}

/// An IPv6 node creates and deletes no ENIs: a policy that does not allow it is correct.
fn list_only(described: &Result<Vec<Interface>, CallError>, region: &str) -> Check {
    let findings = described
        .as_ref()
        .err()
        .map(|error| unanswered(error, region));
    let seen = "DescribeNetworkInterfaces allowed; AssignIpv6Addresses, the one other action that is needed, has no dry run";
    Check::new("iam", seen, findings.into_iter().collect())
}

fn unanswered(error: &CallError, region: &str) -> Finding {
    if let Some(code) = &error.code {
        return refused_list(error, codes::row(code, &error.message).remedy_in(region));
    }
    failure(
        "EC2 cannot be called",
        error.to_string(),
        "the pool cannot grow: pods beyond the free addresses wait",
        "check the route to the EC2 endpoint, its DNS, and the node role's credentials",
    )
}

async fn attached(aws: &Aws, me: &Identity) -> Result<Vec<Interface>, CallError> {
    let filters = vec![("attachment.instance-id".to_owned(), me.instance.clone())];
    match aws
        .call(Call::DescribeNetworkInterfaces { filters })
        .await?
    {
        Reply::Interfaces(found) => Ok(found),
        _ => Ok(Vec::new()),
    }
}

async fn iam(
    aws: &Aws,
    me: &Identity,
    described: &Result<Vec<Interface>, CallError>,
    enis: &[Interface],
) -> Check {
    const NAME: &str = "iam";
    if let Err(error) = described
        && error.code.is_none()
    {
        return Check::new(NAME, "", vec![unanswered(error, &me.region)]);
    }
    // A policy that is restricted by tags allows changes only for the pool's own ENIs, so one of those is used if there
    // is one.
    let subject = enis
        .iter()
        .max_by_key(|eni| {
            eni.attachment
                .as_ref()
                .map_or(0, |attachment| attachment.device)
        })
        .map(|eni| Subject {
            eni: eni.eni.to_string(),
            attachment: eni
                .attachment
                .as_ref()
                .map(|attachment| attachment.id.to_string())
                .unwrap_or_default(),
        });
    let answers = aws.permissions(me, subject.as_ref()).await;
    let mut findings: Vec<Finding> = described
        .as_ref()
        .err()
        .map(|error| unanswered(error, &me.region))
        .into_iter()
        .collect();
    for (action, permission) in &answers {
        findings.extend(match permission {
            Permission::Allowed => None,
            Permission::Denied(message) => Some(failure(
                format!("IAM denies ec2:{action}"),
                message.clone(),
                effect_of(action),
                "allow the action in the node role's policy; a permission boundary or an SCP may deny it too",
            )),
            Permission::Unclear { message, remedy } => Some(warning(
                format!("could not test ec2:{action}"),
                message.clone(),
                "it is not known whether IAM allows it",
                remedy.clone(),
            )),
        });
    }
    let seen = format!(
        "{} actions allowed; AssignPrivateIpAddresses and UnassignPrivateIpAddresses have no dry run",
        answers.len()
    );
    Check::new(NAME, seen, findings)
}

fn refused_list(error: &CallError, remedy: String) -> Finding {
    failure(
        "EC2 does not list the attached ENIs",
        error.to_string(),
        "the pool serves the known addresses and does not grow",
        remedy,
    )
}

fn effect_of(action: &str) -> &'static str {
    match action {
        "CreateNetworkInterface" | "AttachNetworkInterface" | "CreateTags" => {
            "the pool cannot grow beyond its present ENIs"
        }
        "DetachNetworkInterface" | "DeleteNetworkInterface" => {
            "ENIs that are no longer needed stay, and hold subnet addresses"
        }
        "ModifyNetworkInterfaceAttribute" => "ENIs outlive the instance when it is terminated",
        _ => "the daemon cannot see EC2's state, and the pool does not grow",
    }
}

async fn subnets(aws: &Aws, me: &Identity, enis: &[Interface]) -> Check {
    const NAME: &str = "subnets";
    let mut wanted: BTreeSet<SubnetId> = enis.iter().map(|eni| eni.subnet.clone()).collect();
    wanted.insert(me.subnet.clone());
    let rooms = match aws.free_addresses(&wanted).await {
        Ok(rooms) => rooms,
        Err(error) => return Check::skipped(NAME, error.to_string()),
    };
    /// Less than the addresses of one ENI on a large instance.
    const FEW: u32 = 50;
    let finding = |(subnet, free): &(SubnetId, u32)| match free {
        0 => Some(failure(
            format!("{subnet} has no free address"),
            "EC2's availableIpAddressCount is 0",
            "no node in this subnet can grow; pods wait",
            "free addresses, add a CIDR and a subnet to the VPC, or lower the warm targets of its nodes",
        )),
        free if *free < FEW => Some(warning(
            format!("{subnet} has few free addresses"),
            format!("EC2's availableIpAddressCount is {free}"),
            "nodes in this subnet will soon be unable to grow",
            "add a subnet, or lower the warm targets: `ipamd max-pods --plan` shows how many addresses they hold",
        )),
        _ => None,
    };
    let findings = rooms.iter().filter_map(finding).collect();
    let seen: Vec<_> = rooms
        .iter()
        .map(|(subnet, free)| format!("{subnet} has {free} free"))
        .collect();
    Check::new(NAME, seen.join(", "), findings)
}

async fn hop_limit(aws: &Aws, me: &Identity) -> Check {
    const NAME: &str = "hop limit";
    match aws.metadata_hop_limit(&me.instance).await {
        Ok(limit) if limit < 2 => {
            let finding = warning(
                "pods cannot reach the metadata service",
                format!(
                    "HttpPutResponseHopLimit is {limit}: the answer is dropped between the node and a pod"
                ),
                "ipamd is not affected; pods that read their credentials or region there wait and fail",
                "give such pods credentials in another way, or set the limit to 2",
            );
            Check::new(NAME, "", vec![finding])
        }
        Ok(limit) => Check::new(NAME, limit.to_string(), Vec::new()),
        Err(error) => Check::skipped(NAME, error.to_string()),
    }
}
