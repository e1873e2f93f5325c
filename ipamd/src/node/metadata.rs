//! The instance metadata service (IMDSv2): fetches texts, which `identity.rs` parses.

use std::time::Duration;

use aws_config::{imds::Client, provider_config::ProviderConfig};
use ipnet::Ipv4Net;
use planner::{Mac, SecurityGroupId};
use proto::error_chain::chain;

use super::{
    http_client::plain_client,
    identity::{self, Identity, MetadataError, Texts},
};

const INSTANCE_TYPE: &str = "/latest/meta-data/instance-type";
const REGION: &str = "/latest/meta-data/placement/region";

/// A client of the metadata service. It caches its session token, so each read is one request.
#[derive(Clone, Debug)]
pub struct Metadata {
    client: Client,
}

impl Metadata {
    /// For the metadata service at its link-local address, or at `AWS_EC2_METADATA_SERVICE_ENDPOINT`. `timeout` is the
    /// time limit per key, including the SDK's own retries.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        let provider = ProviderConfig::default().with_http_client(plain_client());
        let client = Client::builder()
            .configure(&provider)
            .operation_timeout(timeout)
            .build();
        Self { client }
    }

    /// Reads what does not change while the machine runs.
    ///
    /// # Errors
    /// [`MetadataError`] names the key.
    pub async fn identity(&self) -> Result<Identity, MetadataError> {
        let mac = self.text("/latest/meta-data/mac").await?;
        let card = format!("/latest/meta-data/network/interfaces/macs/{mac}");
        Identity::of(&Texts {
            instance: self.text("/latest/meta-data/instance-id").await?,
            instance_type: self.text(INSTANCE_TYPE).await?,
            region: self.text(REGION).await?,
            address: self.text("/latest/meta-data/local-ipv4").await?,
            subnet: self.text(&format!("{card}/subnet-id")).await?,
            subnet_cidr: self.text(&format!("{card}/subnet-ipv4-cidr-block")).await?,
            security_groups: self.text(&format!("{card}/security-group-ids")).await?,
            mac,
        })
    }

    /// The IPv4 blocks of the VPC of the ENI with this MAC address.
    ///
    /// # Errors
    /// [`MetadataError`] names the key.
    pub async fn vpc_blocks(&self, mac: Mac) -> Result<Vec<Ipv4Net>, MetadataError> {
        let key = format!("/latest/meta-data/network/interfaces/macs/{mac}/vpc-ipv4-cidr-blocks");
        identity::blocks(&key, &self.text(&key).await?)
    }

    /// The security groups of the ENI with this MAC address.
    ///
    /// # Errors
    /// [`MetadataError`] names the key.
    pub async fn security_groups(&self, mac: Mac) -> Result<Vec<SecurityGroupId>, MetadataError> {
        let key = format!("/latest/meta-data/network/interfaces/macs/{mac}/security-group-ids");
        let text = self.text(&key).await?;
        let lines = text
            .lines()
            .map(|line| SecurityGroupId(line.trim().to_owned()));
        Ok(lines.collect())
    }

    /// The availability zone of the instance.
    ///
    /// # Errors
    /// [`MetadataError`] names the key.
    pub async fn zone(&self) -> Result<String, MetadataError> {
        self.text("/latest/meta-data/placement/availability-zone")
            .await
    }

    async fn text(&self, key: &str) -> Result<String, MetadataError> {
        match self.client.get(key).await {
            Ok(text) => Ok(text.as_ref().trim().to_owned()),
            Err(error) => Err(MetadataError::Read {
                key: key.to_owned(),
                message: chain(&error),
            }),
        }
    }
}

/// Only the instance's type and region: what the command line needs on an instance that is not a node.
///
/// # Errors
/// As [`Metadata::identity`].
pub async fn type_and_region(timeout: Duration) -> Result<(String, String), MetadataError> {
    let imds = Metadata::new(timeout);
    Ok((imds.text(INSTANCE_TYPE).await?, imds.text(REGION).await?))
}
