//! Pods on a node, placed and removed by executing the plugin as a container runtime does.

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

use super::{
    Node,
    plugin::{Invocation, Outcome},
};
use crate::wait::eventually;

/// A pod's sandbox: its namespace, and what ADD answered.
#[derive(Debug)]
pub struct Pod {
    pub id: String,
    pub netns: Netns,
    pub path: PathBuf,
    pub added: Outcome,
}

impl Pod {
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.added.address()
    }

    /// The address of a pod on a node of IPv4.
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
    /// Makes a sandbox as a runtime would: a namespace bound to a path.
    ///
    /// # Errors
    /// If the namespace cannot be made or bound.
    pub fn sandbox(&self, id: &str) -> io::Result<(Netns, PathBuf)> {
        sandbox_in(&self.sandboxes(), id)
    }

    /// Where sandboxes are bound.
    #[must_use]
    pub fn sandboxes(&self) -> PathBuf {
        self.dir.join("netns")
    }

    /// An ADD for a sandbox, not yet run.
    #[must_use]
    pub fn invocation(&self, verb: &str, id: &str, netns: Option<&Path>) -> Invocation {
        Invocation::new(verb, id, netns, &self.socket())
    }

    /// Makes a sandbox and adds it.
    ///
    /// # Errors
    /// If the sandbox cannot be made, or ADD fails: the error holds what it answered.
    pub fn add_pod(&self, id: &str) -> io::Result<Pod> {
        let (netns, path) = self.sandbox(id)?;
        let added = self.invocation("ADD", id, Some(&path)).run(self.netns())?;
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
            added,
        })
    }

    /// Ends a pod's namespace without DEL, and waits for its link: the kernel takes that along in its own time.
    ///
    /// # Errors
    /// If the link stays.
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

/// The name of a pod's link on the host, as ADD told it.
#[must_use]
pub fn host_link(pod: &Pod) -> String {
    let name = pod.added.json.pointer("/interfaces/0/name");
    name.and_then(|name| name.as_str())
        .unwrap_or_default()
        .to_owned()
}

/// Makes a sandbox bound in `directory`, for whoever cannot hold the node meanwhile.
///
/// # Errors
/// If the namespace cannot be made or bound.
pub fn sandbox_in(directory: &Path, id: &str) -> io::Result<(Netns, PathBuf)> {
    let netns = Netns::create()?;
    let path = directory.join(format!("cni-{id}"));
    netns.bind(&path)?;
    Ok((netns, path))
}

/// Makes an interface of this name in the calling thread's namespace, so that nobody else can.
///
/// # Errors
/// What the kernel says.
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
