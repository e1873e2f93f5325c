//! Who this node is: read once from the instance metadata service (IMDSv2) at start.
//!
//! Metadata is a hint for what changes (addresses, interfaces) and the truth for what does not (ids, type, region);
//! only the latter is read here.

use std::{net::Ipv4Addr, time::Duration};

use aws_config::{imds::Client, provider_config::ProviderConfig};
use ipnet::Ipv4Net;
use planner::{Mac, SubnetId};

use super::aws;
use crate::refusals;

const INSTANCE_TYPE: &str = "/latest/meta-data/instance-type";
const REGION: &str = "/latest/meta-data/placement/region";

/// What the instance's own metadata says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub instance: String,
    pub instance_type: String,
    pub region: String,
    /// The primary ENI.
    pub mac: Mac,
    pub address: Ipv4Addr,
    pub subnet: SubnetId,
    pub subnet_cidr: Ipv4Net,
    /// New ENIs get the primary's security groups.
    pub security_groups: Vec<String>,
}

/// The metadata service could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    #[error("instance metadata key \"{key}\" could not be read: {message}")]
    Read { key: String, message: String },
    #[error("instance metadata key \"{key}\" holds \"{text}\", which cannot be used")]
    Unusable { key: String, text: String },
}

/// A client of the metadata service. It keeps its session token, so that a question is one request.
#[derive(Clone, Debug)]
pub struct Metadata {
    client: Client,
}

impl Identity {
    /// Reads what does not change while the machine runs.
    ///
    /// # Errors
    /// [`MetadataError`] names the key.
    pub async fn read(imds: &Metadata) -> Result<Self, MetadataError> {
        let mac = imds.text("/latest/meta-data/mac").await?;
        let card = format!("/latest/meta-data/network/interfaces/macs/{mac}");
        Ok(Self {
            instance: imds.text("/latest/meta-data/instance-id").await?,
            instance_type: imds.text(INSTANCE_TYPE).await?,
            region: imds.text(REGION).await?,
            address: imds.parsed("/latest/meta-data/local-ipv4").await?,
            subnet: SubnetId(imds.text(&format!("{card}/subnet-id")).await?),
            subnet_cidr: imds
                .parsed(&format!("{card}/subnet-ipv4-cidr-block"))
                .await?,
            security_groups: imds.lines(&format!("{card}/security-group-ids")).await?,
            mac: parse_mac(&mac).ok_or(MetadataError::Unusable {
                key: "mac".into(),
                text: mac,
            })?,
        })
    }
}

impl Metadata {
    /// Of the metadata service at its link-local address, or where `AWS_EC2_METADATA_SERVICE_ENDPOINT` says. A key may
    /// take `timeout` in all, the SDK's own retries included.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        let provider = ProviderConfig::default().with_http_client(aws::http_client());
        let client = Client::builder()
            .configure(&provider)
            .operation_timeout(timeout)
            .build();
        Self { client }
    }

    /// The IPv4 blocks of the VPC that the ENI with this MAC address is in.
    ///
    /// # Errors
    /// [`MetadataError`] names the key.
    pub async fn vpc_blocks(&self, mac: Mac) -> Result<Vec<Ipv4Net>, MetadataError> {
        let key = format!("/latest/meta-data/network/interfaces/macs/{mac}/vpc-ipv4-cidr-blocks");
        let lines = self.lines(&key).await?;
        let parse = |text: &String| text.parse().ok();
        let blocks: Option<Vec<_>> = lines.iter().map(parse).collect();
        blocks.ok_or_else(|| MetadataError::Unusable {
            key,
            text: lines.join("\n"),
        })
    }

    async fn text(&self, key: &str) -> Result<String, MetadataError> {
        match self.client.get(key).await {
            Ok(text) => Ok(text.as_ref().trim().to_owned()),
            Err(error) => Err(MetadataError::Read {
                key: key.to_owned(),
                message: refusals::chain(&error),
            }),
        }
    }

    async fn parsed<T: std::str::FromStr>(&self, key: &str) -> Result<T, MetadataError> {
        let text = self.text(key).await?;
        text.parse().map_err(|_| MetadataError::Unusable {
            key: key.to_owned(),
            text,
        })
    }

    async fn lines(&self, key: &str) -> Result<Vec<String>, MetadataError> {
        Ok(self
            .text(key)
            .await?
            .lines()
            .map(|line| line.trim().to_owned())
            .collect())
    }
}

/// The instance's type and region, and nothing else: what the command line needs on an instance that is not a node.
///
/// # Errors
/// As [`Identity::read`].
pub async fn kind_and_region(timeout: Duration) -> Result<(String, String), MetadataError> {
    let imds = Metadata::new(timeout);
    Ok((imds.text(INSTANCE_TYPE).await?, imds.text(REGION).await?))
}

/// Six colon-separated hexadecimal bytes.
#[must_use]
pub fn parse_mac(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = parts
            .next()
            .filter(|part| part.len() == 2)
            .and_then(|part| u8::from_str_radix(part, 16).ok())?;
    }
    parts.next().is_none().then_some(Mac(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_six_bytes_or_nothing() {
        assert_eq!(
            parse_mac("0a:58:00:00:00:ff"),
            Some(Mac([0x0a, 0x58, 0, 0, 0, 0xff]))
        );
        for text in [
            "",
            "0a:58:00:00:00",
            "0a:58:00:00:00:ff:00",
            "0a:58:00:00:00:fg",
            "a:58:00:00:00:ff",
        ] {
            assert_eq!(parse_mac(text), None, "{text}");
        }
    }
}
