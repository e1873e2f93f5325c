//! The identity of this node, from the texts of its metadata. Makes no calls: `metadata.rs` does.
//!
//! Metadata is only a hint for what can change (addresses, interfaces). It is authoritative for what cannot (ids, type,
//! region), and only that is read here.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use planner::{Mac, Placement, SecurityGroupId, SubnetId};

/// The instance's identity from its own metadata.
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
    /// New ENIs get the security groups of the primary ENI.
    pub security_groups: Vec<SecurityGroupId>,
}

/// The metadata service could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    #[error(
        "instance metadata key \"{key}\" could not be read: {message}; check that the instance's metadata service is enabled \
         and that no firewall drops packets to it; for a pod that is not on the host's network, its hop limit must be 2"
    )]
    Read { key: String, message: String },
    #[error("instance metadata key \"{key}\" has the invalid value \"{text}\"")]
    Unusable { key: String, text: String },
}

/// The raw texts of the metadata keys.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    pub instance: String,
    pub instance_type: String,
    pub region: String,
    pub mac: String,
    pub address: String,
    pub subnet: String,
    pub subnet_cidr: String,
    /// One per line.
    pub security_groups: String,
}

impl Identity {
    /// Where the pool creates ENIs unless a setting says otherwise: in the primary ENI's subnet.
    #[must_use]
    pub fn placement(&self) -> Placement {
        Placement::like_primary(self.subnet.clone())
    }

    /// Parses the texts.
    ///
    /// # Errors
    /// [`MetadataError::Unusable`] names the first key with an invalid text.
    pub fn of(texts: &Texts) -> Result<Self, MetadataError> {
        let lines = texts
            .security_groups
            .lines()
            .map(|line| SecurityGroupId(line.trim().to_owned()));
        Ok(Self {
            instance: texts.instance.clone(),
            instance_type: texts.instance_type.clone(),
            region: texts.region.clone(),
            address: parsed("local-ipv4", &texts.address)?,
            subnet: SubnetId(texts.subnet.clone()),
            subnet_cidr: parsed("subnet-ipv4-cidr-block", &texts.subnet_cidr)?,
            security_groups: lines.collect(),
            mac: parse_mac(&texts.mac).ok_or_else(|| unusable("mac", &texts.mac))?,
        })
    }
}

/// Parses a list of IPv4 blocks, one per line.
///
/// # Errors
/// [`MetadataError::Unusable`] with the name `key`.
pub fn blocks(key: &str, text: &str) -> Result<Vec<Ipv4Net>, MetadataError> {
    let lines = text.lines().map(|line| line.trim().parse().ok());
    let blocks: Option<Vec<_>> = lines.collect();
    blocks.ok_or_else(|| unusable(key, text))
}

fn parsed<T: std::str::FromStr>(key: &str, text: &str) -> Result<T, MetadataError> {
    text.parse().map_err(|_| unusable(key, text))
}

fn unusable(key: &str, text: &str) -> MetadataError {
    MetadataError::Unusable {
        key: key.to_owned(),
        text: text.to_owned(),
    }
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
