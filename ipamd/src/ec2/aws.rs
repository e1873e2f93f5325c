//! The EC2 client. Only this module knows aws-sdk-ec2. It encodes a [`Call`], sends it once and decodes the answer.
//!
//! The SDK's own retries are disabled: it would repeat AssignPrivateIpAddresses after a lost reply and assign twice
//! (this action has no ClientToken). Endpoints follow the SDK's variables (`AWS_ENDPOINT_URL_EC2`,
//! `AWS_EC2_METADATA_SERVICE_ENDPOINT`), credentials its default chain.
//!
//! May use `api`, `runtime` and `node`. Must not know the planner or the pool.

pub mod dry_run;
mod instance_types;
mod subnets;
mod truncation;

use std::{io, net::Ipv4Addr, time::Duration};

use aws_config::{
    AppName, BehaviorVersion, ConfigLoader, Region, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_sdk_ec2::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{
        Filter, NetworkInterface, NetworkInterfaceAttachmentChanges, ResourceType, Tag,
        TagSpecification,
    },
};
use planner::{Amount, AttachmentId, EniId, Mac, SecurityGroupId, SubnetId};
use proto::error_chain::chain;

use crate::{
    config::Proxies,
    ec2::api::{Attachment, Call, CallError, CallFuture, Ec2, Interface, Reply},
    node::{http_client::proxied_client, identity::parse_mac},
};

/// EC2 over HTTPS.
#[derive(Clone, Debug)]
pub struct Aws {
    client: Client,
}

impl Aws {
    /// A client for `region`; `timeout` is the total time limit of each call.
    pub async fn new(region: String, proxies: &Proxies, timeout: Duration) -> Self {
        let loader = aws_config::defaults(BehaviorVersion::latest());
        let loader = loader.http_client(proxied_client(proxies));
        Self::configured(loader, region, timeout).await
    }

    /// A client with the connections and credentials of `loader`.
    pub async fn configured(loader: ConfigLoader, region: String, timeout: Duration) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(timeout.min(Duration::from_secs(5)))
            .operation_timeout(timeout)
            .build();
        let config = loader
            .region(Region::new(region))
            .timeout_config(timeouts)
            .retry_config(RetryConfig::disabled())
            .app_name(
                AppName::new(concat!("hawser-", env!("CARGO_PKG_VERSION")))
                    .expect("a name of legal characters"),
            )
            .load()
            .await;
        let config = aws_sdk_ec2::config::Builder::from(&config)
            .interceptor(truncation::WholeAnswers)
            .build();
        Self {
            client: Client::from_conf(config),
        }
    }

    async fn send(&self, call: Call) -> Result<Reply, CallError> {
        let action = call.action();
        match call {
            Call::CreateNetworkInterface {
                token,
                subnet,
                groups,
                description,
                tags,
                amount,
            } => {
                let tags = tags
                    .into_iter()
                    .map(|(key, value)| Tag::builder().key(key).value(value).build());
                let request = self
                    .client
                    .create_network_interface()
                    .client_token(token)
                    .subnet_id(subnet.0)
                    .set_groups(Some(groups.into_iter().map(|group| group.0).collect()))
                    .description(description)
                    .tag_specifications(
                        TagSpecification::builder()
                            .resource_type(ResourceType::NetworkInterface)
                            .set_tags(Some(tags.collect()))
                            .build(),
                    );
                let request = match amount {
                    Amount::Addresses(n) => request.secondary_private_ip_address_count(n.into()),
                    Amount::Prefixes(n) => request.ipv4_prefix_count(n.into()),
                    Amount::Ipv6Prefixes(n) => request.ipv6_prefix_count(n.into()),
                };
                let out = request.send().await.map_err(|e| failed(action, &e))?;
                let eni = out
                    .network_interface()
                    .ok_or_else(|| unreadable(action, "no networkInterface"))?;
                Ok(Reply::Interface(Box::new(interface(action, eni)?)))
            }
            Call::AttachNetworkInterface {
                eni,
                instance,
                card,
                device,
            } => {
                let out = self
                    .client
                    .attach_network_interface()
                    .network_interface_id(eni.0)
                    .instance_id(instance)
                    .network_card_index(card.into())
                    .device_index(device.into())
                    .send()
                    .await
                    .map_err(|e| failed(action, &e))?;
                let id = out
                    .attachment_id()
                    .ok_or_else(|| unreadable(action, "no attachmentId"))?;
                Ok(Reply::Attached(AttachmentId::from(id)))
            }
            Call::DeleteOnTermination { eni, attachment } => {
                let change = NetworkInterfaceAttachmentChanges::builder()
                    .attachment_id(attachment.0)
                    .delete_on_termination(true)
                    .build();
                let request = self
                    .client
                    .modify_network_interface_attribute()
                    .network_interface_id(eni.0);
                done(action, request.attachment(change).send().await)
            }
            Call::SetGroups { eni, groups } => {
                let groups = groups.into_iter().map(|group| group.0).collect();
                let request = self
                    .client
                    .modify_network_interface_attribute()
                    .network_interface_id(eni.0);
                done(action, request.set_groups(Some(groups)).send().await)
            }
            Call::DetachNetworkInterface { attachment } => done(
                action,
                self.client
                    .detach_network_interface()
                    .attachment_id(attachment.0)
                    .send()
                    .await,
            ),
            Call::DeleteNetworkInterface { eni } => done(
                action,
                self.client
                    .delete_network_interface()
                    .network_interface_id(eni.0)
                    .send()
                    .await,
            ),
            Call::AssignPrivateIpAddresses { eni, amount } => {
                self.assign(action, eni, amount).await
            }
            Call::UnassignPrivateIpAddresses {
                eni,
                addresses,
                prefixes,
            } => {
                let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
                let request = self
                    .client
                    .unassign_private_ip_addresses()
                    .network_interface_id(eni.0)
                    .set_private_ip_addresses(some(
                        addresses.iter().map(ToString::to_string).collect(),
                    ))
                    .set_ipv4_prefixes(some(prefixes.iter().map(ToString::to_string).collect()));
                done(action, request.send().await)
            }
            Call::UnassignIpv6Addresses { eni, prefixes } => {
                let prefixes = prefixes.iter().map(ToString::to_string).collect();
                let request = self
                    .client
                    .unassign_ipv6_addresses()
                    .network_interface_id(eni.0);
                done(
                    action,
                    request.set_ipv6_prefixes(Some(prefixes)).send().await,
                )
            }
            Call::DescribeNetworkInterfaces { filters } => {
                self.describe_interfaces(action, filters).await
            }
            Call::DescribeSubnets { filters } => self.describe_subnets(action, filters).await,
            Call::DescribeRouteTables { vpc } => self.describe_route_tables(action, vpc).await,
        }
    }

    async fn assign(
        &self,
        action: &'static str,
        eni: EniId,
        amount: Amount,
    ) -> Result<Reply, CallError> {
        let request = self
            .client
            .assign_private_ip_addresses()
            .network_interface_id(eni.0.clone());
        let request = match amount {
            Amount::Addresses(n) => request.secondary_private_ip_address_count(n.into()),
            Amount::Prefixes(n) => request.ipv4_prefix_count(n.into()),
            Amount::Ipv6Prefixes(n) => return self.assign_ipv6(action, eni, n).await,
        };
        let out = request.send().await.map_err(|e| failed(action, &e))?;
        let addresses = out
            .assigned_private_ip_addresses()
            .iter()
            .filter_map(|a| a.private_ip_address());
        let prefixes = out
            .assigned_ipv4_prefixes()
            .iter()
            .filter_map(|p| p.ipv4_prefix());
        Ok(Reply::Assigned {
            addresses: addresses
                .map(|text| parse(action, text))
                .collect::<Result<_, _>>()?,
            prefixes: prefixes
                .map(|text| parse(action, text))
                .collect::<Result<_, _>>()?,
        })
    }

    async fn assign_ipv6(
        &self,
        action: &'static str,
        eni: EniId,
        prefixes: u16,
    ) -> Result<Reply, CallError> {
        let out = self
            .client
            .assign_ipv6_addresses()
            .network_interface_id(eni.0)
            .ipv6_prefix_count(prefixes.into())
            .send()
            .await
            .map_err(|e| failed(action, &e))?;
        let prefixes = out.assigned_ipv6_prefixes().iter();
        Ok(Reply::Assigned {
            addresses: Vec::new(),
            prefixes: prefixes
                .map(|text| parse(action, text))
                .collect::<Result<_, _>>()?,
        })
    }

    async fn describe_interfaces(
        &self,
        action: &'static str,
        filters: Vec<(String, String)>,
    ) -> Result<Reply, CallError> {
        let filters = filters
            .into_iter()
            .map(|(name, value)| Filter::builder().name(name).values(value).build());
        let mut pages = self
            .client
            .describe_network_interfaces()
            .set_filters(Some(filters.collect()))
            .max_results(1000)
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| failed(action, &e))?;
            for eni in page.network_interfaces() {
                // Interfaces of Lambda and load balancers and IPv6-only interfaces lack fields that our ENIs always
                // have.
                if let Ok(eni) = interface(action, eni) {
                    found.push(eni);
                }
            }
        }
        Ok(Reply::Interfaces(found))
    }
}

impl Ec2 for Aws {
    fn call(&self, call: Call) -> CallFuture<'_> {
        Box::pin(self.send(call))
    }
}

fn done<O, E, R>(
    action: &'static str,
    result: Result<O, SdkError<E, R>>,
) -> Result<Reply, CallError>
where
    SdkError<E, R>: ProvideErrorMetadata,
    E: std::error::Error + 'static,
    R: std::fmt::Debug,
{
    result.map(|_| Reply::Done).map_err(|e| failed(action, &e))
}

fn failed<E, R>(action: &'static str, error: &SdkError<E, R>) -> CallError
where
    SdkError<E, R>: ProvideErrorMetadata,
    E: std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let code = error.code().map(str::to_owned);
    let refused = match error {
        SdkError::ConstructionFailure(_) => true,
        SdkError::ServiceError(_) => code.is_some(),
        SdkError::DispatchFailure(failure) => failure
            .as_connector_error()
            .is_some_and(|e| e.is_user() || never_connected(e)),
        _ => false,
    };
    let message = match (&code, error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => chain(error),
    };
    CallError {
        action,
        code,
        message,
        refused,
    }
}

/// Whether the causes of `error` prove that no byte of the request left this host.
fn never_connected(error: &(dyn std::error::Error + 'static)) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    let mut cause = error.source();
    while let Some(e) = cause {
        if let Some(e) = e.downcast_ref::<io::Error>() {
            return matches!(
                e.kind(),
                ConnectionRefused | HostUnreachable | NetworkUnreachable
            );
        }
        cause = e.source();
    }
    false
}

fn unreadable(action: &'static str, what: &str) -> CallError {
    CallError {
        action,
        code: None,
        message: format!("unusable answer: {what}"),
        refused: false,
    }
}

fn parse<T: std::str::FromStr>(action: &'static str, text: &str) -> Result<T, CallError> {
    text.parse().map_err(|_| unreadable(action, text))
}

fn interface(action: &'static str, eni: &NetworkInterface) -> Result<Interface, CallError> {
    let need = |what: Option<&str>, name: &str| {
        what.map(str::to_owned)
            .ok_or_else(|| unreadable(action, &format!("interface without {name}")))
    };
    let secondary = eni
        .private_ip_addresses()
        .iter()
        .filter(|a| a.primary() != Some(true));
    let four = eni.ipv4_prefixes().iter().filter_map(|p| p.ipv4_prefix());
    let six = eni.ipv6_prefixes().iter().filter_map(|p| p.ipv6_prefix());
    let operator = eni.operator().and_then(|o| o.managed()).unwrap_or(false);
    let tags = eni
        .tag_set()
        .iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())));
    let groups = eni.groups().iter().filter_map(|group| group.group_id());
    Ok(Interface {
        eni: EniId(need(eni.network_interface_id(), "id")?),
        mac: mac(action, &need(eni.mac_address(), "MAC")?)?,
        subnet: SubnetId(need(eni.subnet_id(), "subnet")?),
        primary: eni
            .private_ip_address()
            .map(|text| parse(action, text))
            .transpose()?,
        secondary: secondary
            .filter_map(|a| a.private_ip_address())
            .map(|text| parse::<Ipv4Addr>(action, text))
            .collect::<Result<_, _>>()?,
        prefixes: four
            .chain(six)
            .map(|text| parse(action, text))
            .collect::<Result<_, _>>()?,
        vpc: eni.vpc_id().map(str::to_owned),
        zone: eni.availability_zone().map(str::to_owned),
        status: eni
            .status()
            .map_or_else(String::new, |s| s.as_str().to_owned()),
        interface_type: eni
            .interface_type()
            .map_or_else(|| "interface".to_owned(), |kind| kind.as_str().to_owned()),
        managed_by_aws: eni.requester_managed().unwrap_or(false) || operator,
        groups: groups.map(SecurityGroupId::from).collect(),
        description: eni.description().unwrap_or_default().to_owned(),
        requester: eni.requester_id().or(eni.owner_id()).map(str::to_owned),
        tags: tags.collect(),
        attachment: eni.attachment().and_then(|a| {
            Some(Attachment {
                id: AttachmentId::from(a.attachment_id()?),
                instance: a.instance_id().map(str::to_owned),
                account: a.instance_owner_id().map(str::to_owned),
                card: u16::try_from(a.network_card_index().unwrap_or(0)).ok()?,
                device: u16::try_from(a.device_index().unwrap_or(0)).ok()?,
                status: a
                    .status()
                    .map_or_else(String::new, |s| s.as_str().to_owned()),
            })
        }),
    })
}

fn mac(action: &'static str, text: &str) -> Result<Mac, CallError> {
    parse_mac(text).ok_or_else(|| unreadable(action, text))
}

#[cfg(test)]
mod tests;
