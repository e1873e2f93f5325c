//! The limits of an instance type: from the compiled-in table, or from EC2 for types that are newer than the table.
//!
//! Owns no formula. EC2 is called once, and only for types that are not in the table.

use std::time::Duration;

use planner::{
    InstanceType,
    limits::{self, UnknownType},
};

use super::aws::Aws;
use crate::{
    config::{Proxies, Strings},
    ec2::api::CallError,
    node::{identity::MetadataError, metadata},
};

#[derive(Debug, thiserror::Error)]
pub enum InstanceTypeError {
    #[error("{unknown}; EC2 does not know it either")]
    Unknown { unknown: UnknownType },
    #[error("{unknown}; the EC2 call failed")]
    NotAsked {
        unknown: UnknownType,
        source: CallError,
    },
    #[error("{unknown}; EC2 was not called, because the region is unknown")]
    NoRegion {
        unknown: UnknownType,
        source: MetadataError,
    },
    #[error("could not read the instance type from the instance metadata")]
    Metadata(#[from] MetadataError),
}

/// A type by name; `aws` is called if the table does not contain it.
///
/// # Errors
/// [`InstanceTypeError`] has the most similar known types, and why EC2 gave no answer.
pub async fn known_or_asked(name: &str, aws: &Aws) -> Result<InstanceType, InstanceTypeError> {
    let unknown = match limits::require(name) {
        Ok(known) => return Ok(known.clone()),
        Err(unknown) => unknown,
    };
    match aws.instance_type(name).await {
        Ok(told) => Ok(told),
        Err(error) if error.code.as_deref() == Some("InvalidInstanceType") => {
            Err(InstanceTypeError::Unknown { unknown })
        }
        Err(source) => Err(InstanceTypeError::NotAsked { unknown, source }),
    }
}

/// A type by name, on any machine. The region is `AWS_REGION`, `AWS_DEFAULT_REGION`, or the metadata service's.
///
/// # Errors
/// As [`known_or_asked`].
pub async fn by_name(
    name: &str,
    source: &dyn Strings,
    proxies: &Proxies,
    timeout: Duration,
) -> Result<InstanceType, InstanceTypeError> {
    let unknown = match limits::require(name) {
        Ok(known) => return Ok(known.clone()),
        Err(unknown) => unknown,
    };
    let named = ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .iter()
        .find_map(|variable| source.get(variable).filter(|region| !region.is_empty()));
    let region = match named {
        Some(region) => region,
        None => metadata::type_and_region(timeout)
            .await
            .map(|(_, region)| region)
            .map_err(|source| InstanceTypeError::NoRegion { unknown, source })?,
    };
    known_or_asked(name, &Aws::new(region, proxies, timeout).await).await
}

/// The type of the instance that this process runs on.
///
/// # Errors
/// [`InstanceTypeError::Metadata`], or as [`known_or_asked`].
pub async fn of_this_instance(
    proxies: &Proxies,
    timeout: Duration,
) -> Result<InstanceType, InstanceTypeError> {
    let (name, region) = metadata::type_and_region(timeout).await?;
    match limits::lookup(&name) {
        Some(known) => Ok(known.clone()),
        None => known_or_asked(&name, &Aws::new(region, proxies, timeout).await).await,
    }
}
