//! Whether another network plugin is in charge of this node.
//!
//! Other processes are not visible from a container. Their listening sockets are, to everyone in the host's network
//! namespace. Cilium also runs chained behind Hawser, which is normal: it is in charge only if it routes pods of its own.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::net::UnixStream,
    path::Path,
};

use datapath::{
    host::{HostError, Predecessor, Scene},
    marks::Marks,
    netlink::{self, Family, Socket},
    sockets,
};
use nettypes::{HostPort, Transport};

/// Where the AWS VPC CNI's daemon listens for its plugin.
const AWS_NODE_SOCKET: &str = "/aws-node/ipamd.sock";
/// The same before version 1.23: `127.0.0.1:50051`, a port that others use too, so its other ports count as well.
const AWS_NODE_PORT: u16 = 50051;
/// Its metrics, and its introspection. It listens there until its process ends, which was seen minutes after it had closed its
/// socket. Hawser's daemon has the same ports.
const AWS_NODE_OTHER_PORTS: [u16; 2] = [61678, 61679];
/// Where Cilium's agent has its sockets.
const CILIUM_SOCKETS: &str = "/cilium/";

/// Why the daemon must not start.
#[derive(Debug, thiserror::Error)]
pub enum StillRunning {
    #[error(
        "aws-node runs on this node ({seen}), and two daemons would assign the same addresses: keep its DaemonSet off this \
         node (kubectl -n kube-system, nodeAffinity), then ipamd starts by itself"
    )]
    AwsNode { seen: String },
    #[error(
        "Cilium runs on this node in ENI mode ({seen}, and it routes pods of its own), and two daemons would assign the \
         same addresses: chain it behind Hawser (ipam.mode other than eni, cni.chainingMode=aws-cni), or keep one of \
         the two off this node"
    )]
    CiliumEni { seen: String },
    #[error("the rules and routes of other programs cannot be read")]
    Host(#[from] HostError),
    #[error("no netlink socket could be opened")]
    Socket(#[from] netlink::Error),
}

/// Each program with what shows that it runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// It serves its plugin.
    pub aws_node: Option<String>,
    /// It serves no plugin, but its process or Hawser's daemon runs.
    pub aws_node_or_ours: Option<String>,
    pub cilium: Option<String>,
}

impl Seen {
    /// In the network namespace of the calling thread.
    #[must_use]
    pub fn here() -> Self {
        let unix = fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
        Self::of(&unix, listens)
    }

    /// `listens`: whether a program listens on this port of exactly this address, or of any.
    fn of(unix: &str, listens: impl Fn(Option<Ipv4Addr>, u16) -> bool) -> Self {
        let paths: Vec<_> = listening_paths(unix).collect();
        let path = |wanted: &dyn Fn(&str) -> bool| {
            let found = paths.iter().find(|path| wanted(path));
            found.map(|path| format!("it listens at {path}"))
        };
        let mut others = AWS_NODE_OTHER_PORTS.into_iter();
        let other = others.find(|port| listens(None, *port));
        let old = other.is_some() && listens(Some(Ipv4Addr::LOCALHOST), AWS_NODE_PORT);
        let by_port = old.then(|| "it listens at 127.0.0.1:50051".to_owned());
        Self {
            aws_node: path(&|path| path.ends_with(AWS_NODE_SOCKET)).or(by_port),
            aws_node_or_ours: other.map(|port| format!("it listens on port {port}")),
            cilium: path(&|path| path.contains(CILIUM_SOCKETS)),
        }
    }
}

/// The predecessors that run, and that may therefore still use what they added. `ours` is the socket of Hawser's daemon.
///
/// # Errors
/// [`StillRunning`] if one of them is in charge of this node.
pub fn running(family: Family, ours: &Path) -> Result<Vec<Predecessor>, StillRunning> {
    let seen = Seen::here();
    let ends = || {
        let ends = seen.aws_node_or_ours;
        ends.filter(|_| UnixStream::connect(ours).is_err())
    };
    if let Some(seen) = seen.aws_node.or_else(ends) {
        return Err(StillRunning::AwsNode { seen });
    }
    let Some(seen) = seen.cilium else {
        return Ok(Vec::new());
    };
    let scene = Scene::of(&mut Socket::open()?, family, Marks::DEFAULT)?;
    if scene.routes_pods(Predecessor::CiliumEni) {
        return Err(StillRunning::CiliumEni { seen });
    }
    tracing::info!(seen, "Cilium runs on this node, chained");
    Ok(vec![Predecessor::CiliumEni])
}

/// Of `/proc/net/unix`: address, references, protocol, flags, type, state, inode, path.
fn listening_paths(table: &str) -> impl Iterator<Item = &str> {
    const ACCEPTS: u32 = 1 << 16;
    table.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let flags = u32::from_str_radix(words.nth(3)?, 16).ok()?;
        words.nth(3).filter(|_| flags & ACCEPTS != 0)
    })
}

/// By the kernel's socket diagnostics. `/proc/net/tcp` would tell the same, but the kernel walks the table of all connections
/// for it, which takes milliseconds even if there are none.
fn listens(address: Option<Ipv4Addr>, port: u16) -> bool {
    let port = HostPort {
        transport: Transport::Tcp,
        port,
        address: address.map(IpAddr::from),
        pod_port: port,
    };
    // A kernel without diagnostics still shows the socket of later versions.
    let found = sockets::in_use(&[port], Family::V4).ok().flatten();
    // A listener on all addresses has the port too, but is another program: many use 50051.
    found.is_some_and(|(_, at)| port.address.is_none_or(|wanted| at.ip() == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIX: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/containerd/containerd.sock\n\
        0000000000000000: 00000003 00000000 00000000 0001 03 12346 /var/run/aws-node/ipamd.sock\n\
        0000000000000000: 00000002 00000000 00000000 0002 01 12347\n";
    fn seen(unix: &str, ports: &[u16]) -> Seen {
        Seen::of(&format!("{UNIX}{unix}"), |_, port| ports.contains(&port))
    }

    #[test]
    fn only_listening_sockets_count() {
        assert_eq!(seen("", &[]), Seen::default());
        let aws =
            "0000000000000000: 00000002 00000000 00010000 0001 01 9 /var/run/aws-node/ipamd.sock\n";
        let evidence = "it listens at /var/run/aws-node/ipamd.sock";
        assert_eq!(seen(aws, &[]).aws_node.as_deref(), Some(evidence));
        let cilium =
            "0000000000000000: 00000002 00000000 00010000 0001 01 9 /var/run/cilium/cilium.sock\n";
        assert!(seen(cilium, &[]).cilium.is_some() && seen(cilium, &[]).aws_node.is_none());
    }

    #[test]
    fn the_port_of_old_versions_counts_only_together_with_another_one() {
        let evidence = Some("it listens at 127.0.0.1:50051".to_owned());
        assert_eq!(seen("", &[50051, 61678]).aws_node, evidence);
        assert_eq!(seen("", &[50051]), Seen::default());
    }

    #[test]
    fn the_ports_that_remain_until_its_process_ends_are_told_apart() {
        for (ports, port) in [(&[61678, 61679][..], 61678), (&[61679], 61679)] {
            let found = seen("", ports);
            let evidence = format!("it listens on port {port}");
            assert_eq!(found.aws_node_or_ours, Some(evidence));
            assert_eq!(found.aws_node, None, "it serves no plugin");
        }
    }
}
