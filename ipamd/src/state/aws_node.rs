//! The checkpoint of the AWS VPC CNI: which sandbox has which address, as its daemon keeps it in a file for each network card.
//!
//! Owns the format, as version 1 (`vpc-cni-ipam/1`) of it has been since release 1.7, and where the files are. Reading loses
//! nothing: what is read and written again means the same. While the node is Hawser's, a file in the checkpoint's place keeps the
//! AWS VPC CNI from serving. Must not interpret the entries.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

use planner::Sandbox;
use serde::{Deserialize, Serialize};

/// The only version that there has been.
pub const VERSION: &str = "vpc-cni-ipam/1";
/// The network's name in entries that release 1.7 took over from the container runtime. Their interface is unknown too.
pub const MIGRATED_NETWORK: &str = "_migrated-from-cri";
/// The version of the file that Hawser puts in the place of a checkpoint. The AWS VPC CNI does not start with it, and logs it.
/// Without any file, it would take the addresses of all pods for free.
const GUARD: &str = "hawser: this node is Hawser's, use ipamd handback first";
/// What a file is called that Hawser has taken over, after the name that it had.
const ASIDE: &str = "taken-over";

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("could not {operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{} is not a checkpoint of the AWS VPC CNI: has it been cut off?", path.display()
    )]
    Content {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error(
        "{} has version {version:?}, and only {VERSION:?} is known: update Hawser, or drain the node", path.display()
    )]
    Version { path: PathBuf, version: String },
}

/// The contents of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub version: String,
    /// `null` if there is none: Go writes an empty list so.
    #[serde(deserialize_with = "list_or_null")]
    pub allocations: Vec<Allocation>,
}

/// One address and its sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    #[serde(rename = "networkName")]
    pub network: String,
    #[serde(rename = "containerID")]
    pub container_id: String,
    #[serde(rename = "ifName")]
    pub ifname: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<IpAddr>,
    /// Unix time in nanoseconds.
    #[serde(rename = "allocationTimestamp", default)]
    pub since: i64,
    /// Old releases wrote none.
    #[serde(default)]
    pub metadata: Metadata,
}

/// Of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    #[serde(
        rename = "k8sPodNamespace",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub namespace: String,
    #[serde(
        rename = "k8sPodName",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub name: String,
    /// How many network cards the pod has interfaces on; 0 means one.
    #[serde(
        rename = "interfacesCount",
        default,
        skip_serializing_if = "is_unknown"
    )]
    pub interfaces: u32,
}

impl Allocation {
    /// Its address, of whichever family.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.ipv4.or(self.ipv6)
    }

    #[must_use]
    pub fn sandbox(&self) -> Sandbox {
        Sandbox {
            network: self.network.clone(),
            container_id: self.container_id.clone(),
            ifname: self.ifname.clone(),
        }
    }

    /// Namespace and name of the pod, if both are known.
    #[must_use]
    pub fn pod(&self) -> Option<(&str, &str)> {
        let Metadata {
            namespace, name, ..
        } = &self.metadata;
        let known = !namespace.is_empty() && !name.is_empty();
        known.then_some((namespace, name))
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_unknown(count: &u32) -> bool {
    *count == 0
}

fn list_or_null<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Allocation>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The file of a network card.
#[must_use]
pub fn path(directory: &Path, card: u16) -> PathBuf {
    directory.join(match card {
        0 => "ipam.json".to_owned(),
        card => format!("ipam-nic-{card}.json"),
    })
}

/// The card of a file with this name.
fn card_of(name: &str) -> Option<u16> {
    if name == "ipam.json" {
        return Some(0);
    }
    let number = name.strip_prefix("ipam-nic-")?.strip_suffix(".json")?;
    number.parse().ok().filter(|card| *card > 0)
}

/// All checkpoints of the directory, each with its card. None if the directory does not exist: it is not mounted, or the AWS
/// VPC CNI never ran since the boot.
///
/// # Errors
/// [`CheckpointError`]
pub fn read_all(directory: &Path) -> Result<Vec<(u16, Checkpoint)>, CheckpointError> {
    let failed = |source| CheckpointError::File {
        operation: "list",
        path: directory.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for card in cards(directory).map_err(failed)? {
        let path = path(directory, card);
        let text = fs::read_to_string(&path).map_err(|source| CheckpointError::File {
            operation: "read",
            path: path.clone(),
            source,
        })?;
        if !is_guard(&text) {
            found.push((card, parse(&text, &path)?));
        }
    }
    Ok(found)
}

fn cards(directory: &Path) -> io::Result<Vec<u16>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut cards = Vec::new();
    for entry in entries {
        cards.extend(card_of(&entry?.file_name().to_string_lossy()));
    }
    cards.sort_unstable();
    Ok(cards)
}

/// The contents of a file with this text.
///
/// # Errors
/// [`CheckpointError`]
pub fn parse(text: &str, path: &Path) -> Result<Checkpoint, CheckpointError> {
    let checkpoint: Checkpoint =
        serde_json::from_str(text).map_err(|source| CheckpointError::Content {
            path: path.to_owned(),
            source,
        })?;
    if checkpoint.version != VERSION {
        return Err(CheckpointError::Version {
            path: path.to_owned(),
            version: checkpoint.version,
        });
    }
    Ok(checkpoint)
}

/// Writes the file of a card: at each moment there is the old or the new one.
///
/// # Errors
/// [`CheckpointError::File`]
pub fn write(
    directory: &Path,
    card: u16,
    allocations: Vec<Allocation>,
) -> Result<(), CheckpointError> {
    put(&path(directory, card), VERSION, allocations)
}

fn put(path: &Path, version: &str, allocations: Vec<Allocation>) -> Result<(), CheckpointError> {
    let written = || -> io::Result<()> {
        let checkpoint = Checkpoint {
            version: version.to_owned(),
            allocations,
        };
        let unfinished = path.with_extension("json.hawser");
        let mut file = File::create(&unfinished)?;
        file.write_all(serde_json::to_string(&checkpoint)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    written().map_err(|source| CheckpointError::File {
        operation: "write",
        path: path.to_owned(),
        source,
    })
}

/// Keeps an AWS VPC CNI that is started by mistake from serving. Does nothing if there is a checkpoint, or no directory.
///
/// # Errors
/// [`CheckpointError::File`]
pub fn guard(directory: &Path) -> Result<(), CheckpointError> {
    let path = path(directory, 0);
    if !directory.is_dir() || path.exists() {
        return Ok(());
    }
    put(&path, GUARD, Vec::new())
}

/// Lets the AWS VPC CNI start again.
///
/// # Errors
/// [`CheckpointError::File`]
pub fn unguard(directory: &Path) -> Result<(), CheckpointError> {
    let path = path(directory, 0);
    if !fs::read_to_string(&path).is_ok_and(|text| is_guard(&text)) {
        return Ok(());
    }
    fs::remove_file(&path).map_err(|source| CheckpointError::File {
        operation: "remove",
        path,
        source,
    })
}

fn is_guard(text: &str) -> bool {
    let found: Option<Checkpoint> = serde_json::from_str(text).ok();
    found.is_some_and(|found| found.version == GUARD)
}

/// Moves the files away, so that a returning AWS VPC CNI does not take them for the present state, and removes what a crash of
/// it left unfinished.
///
/// # Errors
/// [`CheckpointError::File`]
pub fn set_aside(directory: &Path) -> Result<(), CheckpointError> {
    let moved = || -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if card_of(&name).is_some() {
                if fs::read_to_string(&path).is_ok_and(|text| is_guard(&text)) {
                    continue;
                }
                fs::rename(&path, path.with_extension(format!("json.{ASIDE}")))?;
            } else if name.starts_with("ipam") && name.contains(".json.tmp") {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    };
    match moved() {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CheckpointError::File {
            operation: "move aside the files of",
            path: directory.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// The entries of the files that were set aside; none if they cannot be read. They only tell how old an entry is.
#[must_use]
pub fn read_aside(directory: &Path) -> Vec<Allocation> {
    let aside = path(directory, 0).with_extension(format!("json.{ASIDE}"));
    let text = fs::read_to_string(&aside).unwrap_or_default();
    parse(&text, &aside).map_or_else(|_| Vec::new(), |found| found.allocations)
}

#[cfg(test)]
mod tests;
