//! What an instance type can hold: from the compiled-in table, or from EC2 when AWS is ahead of it.
//!
//! Owns no formula. EC2 is asked once and only about types that the table does not know.

use std::time::Duration;

use planner::{
    InstanceType,
    limits::{self, UnknownType},
};

use super::aws::Aws;
use crate::{
    config::Strings,
    ec2::api::CallError,
    node::{identity::MetadataError, metadata},
};

#[derive(Debug, thiserror::Error)]
pub enum KindError {
    #[error("{unknown}; EC2 does not know it either")]
    Unknown { unknown: UnknownType },
    #[error("{unknown}; EC2 could not be asked")]
    NotAsked {
        unknown: UnknownType,
        source: CallError,
    },
    #[error("{unknown}; EC2 could not be asked, for no region is known")]
    NoRegion {
        unknown: UnknownType,
        source: MetadataError,
    },
    #[error("the instance could not be asked what it is")]
    Metadata(#[from] MetadataError),
}

/// A type by name; what the table does not know is asked of `aws`.
///
/// # Errors
/// [`KindError`] names the nearest types that are known, and why EC2's word is missing.
pub async fn known_or_asked(name: &str, aws: &Aws) -> Result<InstanceType, KindError> {
    let unknown = match limits::require(name) {
        Ok(known) => return Ok(known.clone()),
        Err(unknown) => unknown,
    };
    match aws.instance_type(name).await {
        Ok(told) => Ok(told),
        Err(error) if error.code.as_deref() == Some("InvalidInstanceType") => {
            Err(KindError::Unknown { unknown })
        }
        Err(source) => Err(KindError::NotAsked { unknown, source }),
    }
}

/// A type by name, anywhere: the region is `AWS_REGION`, `AWS_DEFAULT_REGION`, or the metadata service's.
///
/// # Errors
/// As [`known_or_asked`].
pub async fn by_name(
    name: &str,
    source: &dyn Strings,
    timeout: Duration,
) -> Result<InstanceType, KindError> {
    let unknown = match limits::require(name) {
        Ok(known) => return Ok(known.clone()),
        Err(unknown) => unknown,
    };
    let named = ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .iter()
        .find_map(|variable| source.get(variable).filter(|region| !region.is_empty()));
    let region = match named {
        Some(region) => region,
        None => metadata::kind_and_region(timeout)
            .await
            .map(|(_, region)| region)
            .map_err(|source| KindError::NoRegion { unknown, source })?,
    };
    known_or_asked(name, &Aws::new(region, timeout).await).await
}

/// The type of the instance that this runs on.
///
/// # Errors
/// [`KindError::Metadata`], or as [`known_or_asked`].
pub async fn of_this_instance(timeout: Duration) -> Result<InstanceType, KindError> {
    let (name, region) = metadata::kind_and_region(timeout).await?;
    match limits::lookup(&name) {
        Some(known) => Ok(known.clone()),
        None => known_or_asked(&name, &Aws::new(region, timeout).await).await,
    }
}
