//! Removes Hawser from the node: first the network configuration, so that the runtime requests no more pods, then the
//! network, the state and the plugin. The node's ENIs stay attached; EC2 deletes them with the instance.

use std::{fs, io, os::unix::net::UnixStream, path::PathBuf};

use datapath::{
    host,
    netlink::Socket,
    pod::{self, HostSide},
};

use super::{chain, conflist, plugin};
use crate::{
    config::{Paths, Takeover},
    host::names::is_link_of,
    state::{
        aws_node::{self, CheckpointError},
        store::{Record, read_only::peek},
    },
};

/// The most pods that an error names.
const NAMED: usize = 5;

/// Why the node was not cleaned, or not completely. The command can be repeated at any time.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    #[error("ipamd is still running on this node: stop it first")]
    Running,
    #[error(
        "{count} pods with Hawser's addresses run on this node ({names}): drain it first, or use --force, which breaks \
         their connections"
    )]
    Pods { count: usize, names: String },
    #[error("cannot list the pods on the node")]
    Look(#[source] datapath::netlink::Error),
    #[error("cannot clean the node's network")]
    Network(#[from] host::HostError),
    #[error("cannot remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Guard(#[from] CheckpointError),
    #[error("cannot remove the plugin")]
    Plugin(#[from] plugin::InstallError),
}

/// Cleans the node. With `force`, also if pods run on it.
///
/// # Errors
/// [`UninstallError`]
pub fn uninstall(paths: &Paths, takeover: &Takeover, force: bool) -> Result<(), UninstallError> {
    if UnixStream::connect(paths.socket()).is_ok() {
        return Err(UninstallError::Running);
    }
    let mut socket = Socket::open().map_err(UninstallError::Look)?;
    let pods = pod::list(&mut socket).map_err(UninstallError::Look)?;
    if !pods.is_empty() && !force {
        return Err(UninstallError::Pods {
            count: pods.len(),
            names: names(paths, &pods),
        });
    }
    if let Some(directory) = &paths.cni_conf_dir {
        for name in [conflist::NAME, conflist::FORMER_NAME] {
            let path = directory.join(name);
            // The AWS VPC CNI's file has the same name.
            let theirs = fs::read_to_string(&path).is_ok_and(|text| chain::is_of_aws_node(&text));
            if !theirs {
                remove(fs::remove_file(&path), path)?;
            }
        }
    }
    host::uninstall(&mut socket)?;
    aws_node::unguard(&takeover.directory)?;
    // The plugin first: a DEL that starts afterwards would leave a tombstone in the empty directory.
    plugin::remove(&paths.cni_bin_dir)?;
    remove_state(paths)
}

/// The names of these links' pods in the state file, or the links' names.
fn names(paths: &Paths, links: &[HostSide]) -> String {
    let records = peek(&paths.state());
    let records = records.map(|(contents, _)| contents.records);
    let records = records.unwrap_or_default();
    let name = |link: &HostSide| {
        let of_link = |record: &&Record| is_link_of(record, link);
        let record = records.iter().find(of_link)?;
        record.pod.full_name()
    };
    let named = links.iter().take(NAMED);
    let mut names: Vec<_> = named
        .map(|link| name(link).unwrap_or_else(|| link.name.clone()))
        .collect();
    if links.len() > NAMED {
        names.push("…".to_owned());
    }
    names.join(", ")
}

/// Empties the run directory. The directory itself stays, because it may be a mount point.
fn remove_state(paths: &Paths) -> Result<(), UninstallError> {
    let directory = &paths.run_dir;
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.and_then(Iterator::collect::<Result<Vec<_>, _>>),
    };
    let entries = entries.map_err(|source| UninstallError::Remove {
        path: directory.clone(),
        source,
    })?;
    for entry in entries {
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
        remove(removed, path)?;
    }
    Ok(())
}

fn remove(removed: io::Result<()>, path: PathBuf) -> Result<(), UninstallError> {
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(UninstallError::Remove { path, source })
        }
        _ => Ok(()),
    }
}
