//! Gives the node back to the AWS VPC CNI without restarting a pod: its checkpoint, its rules and its network configuration
//! first, beside ours; and when its daemon runs, ours are removed.
//!
//! [`plan`] decides what its checkpoint will say. The daemon of Hawser must be stopped, and cannot start meanwhile, because
//! this holds the lock of the state file. Every step can be repeated: a mark in the run directory says that the first part is
//! complete, after which the links may already have stopped saying whose they are.
//!
//! May use the rest of `install`, `config`, `host`, `runtime` and `state`. Must not know how the AWS VPC CNI is started.

pub mod plan;

use std::{
    fs, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use datapath::{host, netlink::Socket, pod};
use proto::presence;

use self::plan::{Obstacle, Plan};
use super::{chain, conflist};
use crate::{
    config::{Paths, Takeover},
    runtime::clock,
    state::{
        aws_node::{self, CheckpointError},
        store::{Contents, Store, StoreError, read_only::peek},
    },
};

/// Why the node was not given back, or not completely. The command can be repeated at any time.
#[derive(Debug, thiserror::Error)]
pub enum HandbackError {
    #[error("ipamd is still running on this node: stop it first")]
    Running,
    #[error("{}\nuse --force to give back the other pods", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Obstacles(Vec<Obstacle>),
    #[error(
        "the AWS VPC CNI keeps its checkpoint in {}, which is not there: without a checkpoint, it would give the addresses of \
         running pods to others. Mount the directory from the node, or create it if aws-node never ran there", .0.display()
    )]
    NoDirectory(PathBuf),
    #[error("cannot list the pods on the node")]
    Look(#[source] datapath::netlink::Error),
    #[error("cannot change the node's network")]
    Network(#[from] host::HostError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("cannot {operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// A node whose pods have the rules of both programs. The lock on the state file is held as long as this lives.
#[derive(Debug)]
pub struct Both {
    paths: Paths,
    directory: PathBuf,
    _store: Store,
    /// How many pods have been given back; `None` if an earlier process did it.
    pub pods: Option<usize>,
}

/// What would be given back.
///
/// # Errors
/// If the kernel or the state file cannot be read.
pub fn dry_run(paths: &Paths, takeover: &Takeover) -> Result<Plan, HandbackError> {
    let contents = match paths.state().exists() {
        true => peek(&paths.state())?.0,
        false => Contents::default(),
    };
    Ok(planned(&contents, &takeover.directory)?.0)
}

fn planned(contents: &Contents, directory: &Path) -> Result<(Plan, Socket), HandbackError> {
    let mut socket = Socket::open().map_err(HandbackError::Look)?;
    let links = pod::list(&mut socket).map_err(HandbackError::Look)?;
    let aside = aws_node::read_aside(directory);
    Ok((
        plan::plan(contents, &links, &aside, clock::wall_nanoseconds()),
        socket,
    ))
}

/// Gives every pod what the AWS VPC CNI knows it by. With `force`, also if some of them cannot be given back.
///
/// # Errors
/// [`HandbackError`]; [`HandbackError::Obstacles`] before anything is changed.
pub fn begin(
    paths: &Paths,
    takeover: &Takeover,
    boot: &str,
    force: bool,
) -> Result<Both, HandbackError> {
    if UnixStream::connect(paths.socket()).is_ok() {
        return Err(HandbackError::Running);
    }
    // On a node where Hawser never ran, there is none.
    fs::create_dir_all(&paths.run_dir).map_err(|source| HandbackError::File {
        operation: "make",
        path: paths.run_dir.clone(),
        source,
    })?;
    let (store, contents) = Store::open(&paths.state(), boot)?;
    let directory = takeover.directory.clone();
    let mut both = Both {
        paths: paths.clone(),
        directory: directory.clone(),
        _store: store,
        pods: None,
    };
    // Pods have the rules of both programs.
    let mark = presence::handed_back(&paths.socket());
    if mark.exists() {
        return Ok(both);
    }
    let (plan, mut socket) = planned(&contents, &directory)?;
    if !plan.obstacles.is_empty() && !force {
        return Err(HandbackError::Obstacles(plan.obstacles));
    }
    // First: without it, the AWS VPC CNI would give the pods' addresses to others. Without pods it needs none, and if this node
    // was given back before, it has one of its own.
    if plan.entries.is_empty() {
        aws_node::unguard(&directory)?;
    } else {
        if !directory.is_dir() {
            return Err(HandbackError::NoDirectory(directory));
        }
        aws_node::write(&directory, 0, plan.entries)?;
    }
    host::restore_classic(&mut socket, &plan.pods)?;
    if let Some(conf) = &paths.cni_conf_dir {
        restore_conflist(conf)?;
    }
    fs::write(&mark, "").map_err(|source| HandbackError::File {
        operation: "write",
        path: mark,
        source,
    })?;
    both.pods = Some(plan.pods.len());
    Ok(both)
}

/// A daemon that starts again takes the pods back: then a later handback begins anew.
///
/// # Errors
/// If the mark cannot be removed.
pub fn forget(paths: &Paths) -> io::Result<()> {
    match fs::remove_file(presence::handed_back(&paths.socket())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Both {
    /// Removes everything of Hawser's except the plugin, which CRI-O calls for the pods that Hawser started.
    ///
    /// # Errors
    /// [`HandbackError`]. A repetition removes the rest.
    pub fn finish(self) -> Result<(), HandbackError> {
        let mut socket = Socket::open().map_err(HandbackError::Look)?;
        host::let_go(&mut socket)?;
        let aside = aws_node::path(&self.directory, 0).with_extension("json.taken-over");
        remove(&aside)?;
        // The state before the mark: a repetition in between finds the mark, and nothing else to do.
        remove(&self.paths.state())?;
        remove(&presence::handed_back(&self.paths.socket()))
    }
}

fn remove(path: &Path) -> Result<(), HandbackError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(HandbackError::File {
            operation: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Puts the AWS VPC CNI's network configuration back, which was kept when it was replaced. Its own daemon writes a new one
/// when it serves.
fn restore_conflist(directory: &Path) -> Result<(), HandbackError> {
    let path = directory.join(conflist::NAME);
    let kept = path.with_extension(conflist::OF_AWS_NODE);
    let restored = || -> io::Result<()> {
        let Some(theirs) = read(&kept)? else {
            return Ok(());
        };
        let ours = read(&path)?.unwrap_or_default();
        conflist::write(&path, &chain::hand_back(&ours, &theirs))?;
        fs::remove_file(&kept)
    };
    restored().map_err(|source| HandbackError::File {
        operation: "restore",
        path: path.clone(),
        source,
    })
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
