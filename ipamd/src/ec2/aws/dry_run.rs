//! EC2 calls of `ipamd doctor`: permissions by dry run, and data that the pool does not need.
//!
//! Not part of [`super::Call`]: nothing here changes anything, and the pool does not use it.

use std::collections::BTreeSet;

use aws_sdk_ec2::{
    error::{ProvideErrorMetadata, SdkError},
    types::{Filter, NetworkInterfaceAttachmentChanges, Tag},
};
use planner::{SecurityGroupId, SubnetId};

use super::{Aws, CallError, failed, unreadable};
use crate::{
    ec2::codes::{self, Meaning},
    node::identity::Identity,
};

/// The values of an interface that dry runs need.
#[derive(Clone, Debug)]
pub struct Subject {
    pub eni: String,
    pub attachment: String,
}

/// The result of a dry run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    Allowed,
    /// With EC2's message.
    Denied(String),
    /// EC2 returned another error, with what helps against it, or did not answer.
    Unclear {
        message: String,
        remedy: String,
    },
}

type Answers = Vec<(&'static str, Permission)>;

impl Aws {
    /// Every action that the daemon needs and that supports dry runs. Actions that change an interface are tested with
    /// `subject`, and left out without one.
    pub async fn permissions(&self, me: &Identity, subject: Option<&Subject>) -> Answers {
        let client = &self.client;
        let list = client
            .describe_network_interfaces()
            .dry_run(true)
            .send()
            .await;
        let subnets = client.describe_subnets().dry_run(true).send().await;
        let create = client
            .create_network_interface()
            .subnet_id(&me.subnet.0)
            .set_groups(Some(
                me.security_groups.iter().map(ToString::to_string).collect(),
            ))
            .dry_run(true)
            .send()
            .await;
        let mut answers = vec![
            ("DescribeNetworkInterfaces", permission(&me.region, list)),
            ("DescribeSubnets", permission(&me.region, subnets)),
            ("CreateNetworkInterface", permission(&me.region, create)),
        ];
        if let Some(subject) = subject {
            self.about(me, subject, &mut answers).await;
        }
        answers
    }

    async fn about(&self, me: &Identity, subject: &Subject, answers: &mut Answers) {
        let client = &self.client;
        let Subject { eni, attachment } = subject;
        let tag = Tag::builder()
            .key("cluster.k8s.amazonaws.com/name")
            .value("dry-run");
        let tags = client
            .create_tags()
            .resources(eni)
            .tags(tag.build())
            .dry_run(true)
            .send()
            .await;
        answers.push(("CreateTags", permission(&me.region, tags)));
        let attach = client
            .attach_network_interface()
            .network_interface_id(eni)
            .instance_id(&me.instance)
            .device_index(1)
            .dry_run(true)
            .send()
            .await;
        answers.push(("AttachNetworkInterface", permission(&me.region, attach)));
        let change = NetworkInterfaceAttachmentChanges::builder()
            .attachment_id(attachment)
            .delete_on_termination(true);
        let modify = client
            .modify_network_interface_attribute()
            .network_interface_id(eni)
            .attachment(change.build())
            .dry_run(true)
            .send()
            .await;
        answers.push((
            "ModifyNetworkInterfaceAttribute",
            permission(&me.region, modify),
        ));
        let detach = client
            .detach_network_interface()
            .attachment_id(attachment)
            .dry_run(true)
            .send()
            .await;
        answers.push(("DetachNetworkInterface", permission(&me.region, detach)));
        let delete = client
            .delete_network_interface()
            .network_interface_id(eni)
            .dry_run(true)
            .send()
            .await;
        answers.push(("DeleteNetworkInterface", permission(&me.region, delete)));
    }

    /// Free IPv4 addresses of each subnet.
    ///
    /// # Errors
    /// What EC2 refuses with.
    pub async fn free_addresses(
        &self,
        subnets: &BTreeSet<SubnetId>,
    ) -> Result<Vec<(SubnetId, u32)>, CallError> {
        let ids = subnets.iter().map(|subnet| subnet.0.clone()).collect();
        let out = self
            .client
            .describe_subnets()
            .set_subnet_ids(Some(ids))
            .send()
            .await
            .map_err(|e| failed("DescribeSubnets", &e))?;
        let rooms = out.subnets().iter().filter_map(|subnet| {
            let free = u32::try_from(subnet.available_ip_address_count()?).ok()?;
            Some((SubnetId::from(subnet.subnet_id()?), free))
        });
        Ok(rooms.collect())
    }

    /// The VPC of each of these security groups that exists.
    ///
    /// # Errors
    /// What EC2 refuses with (`DescribeSecurityGroups` is not in the daemon's policy).
    pub async fn vpcs_of_groups(
        &self,
        groups: &[SecurityGroupId],
    ) -> Result<Vec<(SecurityGroupId, String)>, CallError> {
        let ids = groups.iter().map(|group| group.0.clone()).collect();
        let filter = Filter::builder().name("group-id").set_values(Some(ids));
        let out = self
            .client
            .describe_security_groups()
            .filters(filter.build())
            .send()
            .await
            .map_err(|e| failed("DescribeSecurityGroups", &e))?;
        let found = out.security_groups().iter().filter_map(|group| {
            let id = SecurityGroupId::from(group.group_id()?);
            Some((id, group.vpc_id()?.to_owned()))
        });
        Ok(found.collect())
    }

    /// How many network hops an answer of the metadata service survives.
    ///
    /// # Errors
    /// What EC2 refuses with (`DescribeInstances` is not in the daemon's policy), or an answer without the figure.
    pub async fn metadata_hop_limit(&self, instance: &str) -> Result<i32, CallError> {
        const ACTION: &str = "DescribeInstances";
        let out = self
            .client
            .describe_instances()
            .instance_ids(instance)
            .send()
            .await
            .map_err(|e| failed(ACTION, &e))?;
        let instances = out.reservations().iter().flat_map(|r| r.instances());
        instances
            .filter_map(|instance| instance.metadata_options()?.http_put_response_hop_limit())
            .next()
            .ok_or_else(|| unreadable(ACTION, "no metadataOptions"))
    }
}

/// A dry run never succeeds: "allowed" is an error of its own.
fn permission<O, E, R>(region: &str, result: Result<O, SdkError<E, R>>) -> Permission
where
    SdkError<E, R>: ProvideErrorMetadata,
    E: std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let error = match result {
        Ok(_) => return Permission::Allowed,
        Err(error) => failed("dry run", &error),
    };
    let code = error.code.as_deref().unwrap_or_default();
    match codes::row(code, &error.message).meaning {
        _ if codes::plain(code) == "DryRunOperation" => Permission::Allowed,
        Meaning::Denied => Permission::Denied(error.message),
        _ if error.code.is_none() => Permission::Unclear {
            message: error.message,
            remedy: "try again; if this remains, see the message".to_owned(),
        },
        _ => Permission::Unclear {
            remedy: codes::row(code, &error.message).remedy_in(region),
            message: error.message,
        },
    }
}
