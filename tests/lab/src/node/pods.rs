//! Pods on a node, added and removed by executing the plugin like a container runtime.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use datapath::{
    netlink::{self, Socket},
    netns::Netns,
};

use serde_json::Value;

use super::{
    Node,
    plugin::{Invocation, Outcome},
};
use crate::wait::eventually;

/// A pod's sandbox: its namespace, and the result of ADD.
#[derive(Debug)]
pub struct Pod {
    pub id: String,
    pub netns: Netns,
    pub path: PathBuf,
    /// What it asked for (`runtimeConfig`).
    pub asked: Value,
    pub added: Outcome,
}

impl Pod {
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.added.address()
    }

    /// The address of a pod on an IPv4 node.
    ///
    /// # Panics
    /// If it is of the other family.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        match self.address() {
            IpAddr::V4(address) => address,
            IpAddr::V6(address) => panic!("the pod has {address}"),
        }
    }
}

impl Node {
    /// Creates a sandbox like a runtime: a namespace bound to a path.
    ///
    /// # Errors
    /// If the namespace cannot be created or bound.
    pub fn sandbox(&self, id: &str) -> io::Result<(Netns, PathBuf)> {
        sandbox_in(&self.sandboxes(), id)
    }

    /// The directory of bound sandboxes.
    #[must_use]
    pub fn sandboxes(&self) -> PathBuf {
        self.dir.join("netns")
    }

    /// An ADD for a sandbox, not yet run.
    #[must_use]
    pub fn invocation(&self, verb: &str, id: &str, netns: Option<&Path>) -> Invocation {
        Invocation::new(verb, id, netns, &self.socket()).of(self.release)
    }

    /// Creates a sandbox and adds it.
    ///
    /// # Errors
    /// If the sandbox cannot be created, or ADD fails: the error contains its answer.
    pub fn add_pod(&self, id: &str) -> io::Result<Pod> {
        self.add_pod_asking(id, &Value::Null)
    }

    /// The same, for a pod that asks for more: `runtimeConfig` as the runtime passes it.
    ///
    /// # Errors
    /// As [`Node::add_pod`].
    pub fn add_pod_asking(&self, id: &str, runtime_config: &Value) -> io::Result<Pod> {
        let (netns, path) = self.sandbox(id)?;
        let add = self.invocation("ADD", id, Some(&path));
        let added = add
            .conf("runtimeConfig", runtime_config.clone())
            .run(self.netns())?;
        if !added.succeeded() {
            return Err(io::Error::other(format!(
                "ADD {id} failed: {added:?}\n{}",
                self.log()
            )));
        }
        Ok(Pod {
            id: id.to_owned(),
            netns,
            path,
            asked: runtime_config.clone(),
            added,
        })
    }

    /// Ends a pod's namespace without DEL, and waits for the removal of its link, which the kernel does asynchronously.
    ///
    /// # Errors
    /// If the link is not removed.
    pub fn end_pod(&self, pod: Pod) -> io::Result<()> {
        let link = host_link(&pod);
        Netns::unbind(&pod.path)?;
        drop(pod);
        let gone = || {
            self.shell("ip -o link")
                .is_ok_and(|links| !links.contains(&link))
        };
        match eventually(Duration::from_secs(60), gone) {
            true => Ok(()),
            false => Err(io::Error::other(format!("{link} stays"))),
        }
    }

    /// Deletes the pod: DEL, then the end of its namespace.
    ///
    /// # Errors
    /// If DEL fails or the namespace cannot be unbound.
    pub fn delete_pod(&self, pod: Pod) -> io::Result<Outcome> {
        let deleted = self
            .invocation("DEL", &pod.id, Some(&pod.path))
            .run(self.netns())?;
        if !deleted.succeeded() {
            return Err(io::Error::other(format!(
                "DEL {} failed: {deleted:?}",
                pod.id
            )));
        }
        Netns::unbind(&pod.path)?;
        Ok(deleted)
    }
}

/// The name of a pod's link on the host, from the result of ADD.
#[must_use]
pub fn host_link(pod: &Pod) -> String {
    let name = pod.added.json.pointer("/interfaces/0/name");
    name.and_then(|name| name.as_str())
        .unwrap_or_default()
        .to_owned()
}

/// Creates a sandbox bound in `directory`, for callers that cannot hold the node.
///
/// # Errors
/// If the namespace cannot be created or bound.
pub fn sandbox_in(directory: &Path, id: &str) -> io::Result<(Netns, PathBuf)> {
    let netns = Netns::create()?;
    let path = directory.join(format!("cni-{id}"));
    netns.bind(&path)?;
    Ok((netns, path))
}

/// Creates an interface with this name in the calling thread's namespace, so that no other can have it.
///
/// # Errors
/// The kernel's error.
pub fn occupy(name: &str) -> Result<(), netlink::Error> {
    let end = |name| netlink::link::End {
        name,
        mtu: None,
        mac: None,
        group: 0,
        up: false,
    };
    Socket::open()?.apply(&netlink::link::add_veth(&end(name), &end("occupier"), None))
}
