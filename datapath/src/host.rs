//! The node's own network: rules, ENI tables, device settings, the marking of packets (design §4.2).
//!
//! Owns everything on a node that does not belong to one pod. Each function compares the actual state with the desired
//! state: correct objects are not touched, missing ones are added, and wrong ones are removed last. All functions can
//! therefore be repeated at any time, under traffic. Rules and routes of other programs are recognised by their
//! protocol number and are not changed.

mod eni;
mod ipv6;
mod monitor;
mod reconciler;
mod rules;
mod stale;
mod sysctl;
mod uninstall;

use std::time::Duration;

use ipnet::Ipv4Net;

use crate::constants::{MAX_ENI_INDEX, PODS_TABLE, RULE_PODS, RULE_PRIMARY};
use crate::netlink::link::{self, Change, InetConf, Link};
use crate::netlink::route::MAIN;
use crate::netlink::rule::Rule;
use crate::netlink::{Error, Family, Kind, Mac, Socket};
use crate::nft::{Egress, Nft, Ruleset};

pub use eni::{EniLink, add_eni, remove_eni};
pub use monitor::{Changes, HostMonitor};
pub use reconciler::{DirtySet, Reconciler, Repaired};
pub use uninstall::uninstall;

/// Loose source check. An ENI must accept replies that arrive on it, although the main table would route the answer
/// through another ENI.
const LOOSE: u32 = 2;

/// What a node needs before its first pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// MAC address of the primary ENI.
    pub primary_mac: Mac,
    /// MTU of the primary ENI, in bytes.
    pub mtu: u32,
    /// The packets that leave through the primary ENI, whichever ENI their pod is on.
    pub egress: Egress,
    /// Whether pods must not reach the instance metadata service.
    pub block_metadata: bool,
    /// The address family of pods.
    pub pods: Family,
}

/// Why the node's network cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// IPv4 forwarding is off, and the daemon may not enable it.
    #[error("net.ipv4.ip_forward is 0 and /proc/sys cannot be written: set it on the node")]
    ForwardingOff {
        /// Why it cannot be written: `EROFS` in a container without privileges.
        #[source]
        source: std::io::Error,
    },
    /// An IPv6 setting has the wrong value, and the daemon may not change it.
    #[error("{path} is not {value} and cannot be written: set it on the node")]
    Setting {
        /// The file.
        path: String,
        /// The required value.
        value: &'static str,
        /// Why it cannot be written: `EROFS` in a container without privileges.
        #[source]
        source: std::io::Error,
    },
    /// An IPv6 setting does not exist: the kernel has no IPv6, or was started with `ipv6.disable=1`.
    #[error("cannot read {path}: does the node have IPv6?")]
    NoIpv6 {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A setting could not be read.
    #[error("cannot read {path}")]
    Sysctl {
        /// The file.
        path: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// No link has this MAC address, or none appeared in time.
    #[error("no network interface with MAC {mac}")]
    LinkMissing {
        /// The address.
        mac: Mac,
    },
    /// An index that is not valid for a secondary ENI.
    #[error("ENI index {index} is not within 1..={MAX_ENI_INDEX}")]
    Index {
        /// The index.
        index: u16,
    },
    /// A subnet that is too small for a gateway.
    #[error("subnet {subnet} has no gateway address")]
    Subnet {
        /// The subnet.
        subnet: Ipv4Net,
    },
    /// The kernel refused a request, or a socket failed.
    #[error("{what}")]
    Netlink {
        /// The operation.
        what: &'static str,
        /// The cause.
        #[source]
        source: Error,
    },
}

/// Adds the name of an operation to a netlink error.
trait During<T> {
    fn during(self, what: &'static str) -> Result<T, HostError>;
}

impl<T> During<T> for Result<T, Error> {
    fn during(self, what: &'static str) -> Result<T, HostError> {
        self.map_err(|source| HostError::Netlink { what, source })
    }
}

/// Configures what every pod of the node needs: forwarding, the rule for local pods, the rule for packets through the
/// primary ENI, this ENI's settings, source translation, and the marking of packets for their pod's ENI. The calling
/// thread must be in the socket's namespace. Returns the primary ENI's link.
///
/// # Errors
/// [`HostError`]. Completed steps are not undone, because a repetition would do them again.
pub fn prepare(socket: &mut Socket, config: &HostConfig) -> Result<Link, HostError> {
    let primary = ensure(socket, config)?;
    let ruleset = ruleset(config, primary.index)?;
    nft(socket)?.replace(&ruleset).during("set up nftables")?;
    Ok(primary)
}

/// All of it except nftables.
fn ensure(socket: &mut Socket, config: &HostConfig) -> Result<Link, HostError> {
    if config.pods == Family::V6 {
        return ipv6::ensure(socket, config);
    }
    if sysctl::ensure_forwarding()? {
        socket.count(Kind::Setting);
    }
    let primary = crate::netlink::wait_for_link_by_mac(socket, config.primary_mac, Duration::ZERO)
        .during("find the primary ENI")?
        .ok_or(HostError::LinkMissing {
            mac: config.primary_mac,
        })?;
    ensure_link(socket, &primary, config.mtu)?;

    let pods = Rule::all(Family::V4, RULE_PODS, PODS_TABLE);
    let rival = |r: &Rule| r.priority == RULE_PODS;
    rules::ensure(socket, &pods, rival)?;
    let egress = &config.egress;
    let marked = Rule::mark(Family::V4, RULE_PRIMARY, egress.mark, egress.mark, MAIN);
    let rival = |r: &Rule| r.priority == RULE_PRIMARY;
    if egress.marks() {
        rules::ensure(socket, &marked, rival)?;
    } else {
        // The order relative to the marking does not matter: packets reach main in the end anyway.
        rules::remove(socket, Family::V4, rival)?;
    }
    Ok(primary)
}

/// Changes which destinations count as local, and nothing else. `config` is the configuration of the last [`prepare`];
/// afterwards, it contains the new destinations. If the kernel no longer has this configuration, everything is
/// configured again.
///
/// # Errors
/// As [`prepare`]. In this case `config` is unchanged.
pub fn update_local(
    socket: &mut Socket,
    config: &mut HostConfig,
    local: Vec<Ipv4Net>,
) -> Result<(), HostError> {
    let old = std::mem::replace(&mut config.egress.local, local);
    // Without translation, no chain uses the destinations.
    let done = match config.egress.snat {
        None => Ok(()),
        Some(_) => nft(socket).and_then(|mut nft| match nft.update_local(&config.egress) {
            Err(e) if e.is_gone() => prepare(socket, config).map(drop),
            other => other.during("change the local destinations"),
        }),
    };
    if done.is_err() {
        config.egress.local = old;
    }
    done
}

/// The desired nftables. `primary` is the link index of the primary ENI.
fn ruleset(config: &HostConfig, primary: u32) -> Result<Ruleset, HostError> {
    Ok(Ruleset {
        check_source: sysctl::source_check_is_loose()?,
        primary,
        egress: config.egress.clone(),
        block_metadata: config.block_metadata,
        pods: config.pods,
        refuse_ipv6: sysctl::has_ipv6(),
    })
}

/// Whether an ENI's link is up, has the right MTU and a loose source check, and forwards.
fn is_right(link: &Link, mtu: u32) -> bool {
    let loose = link.rp_filter.is_none_or(|have| have == 2);
    link.up && link.mtu == mtu && loose && link.forwarding != Some(0)
}

/// Configures it. Sends nothing if the link is already configured.
fn ensure_link(socket: &mut Socket, link: &Link, mtu: u32) -> Result<(), HostError> {
    let mut requests = Vec::new();
    if !link.up || link.mtu != mtu {
        let change = Change {
            up: Some(true),
            mtu: (link.mtu != mtu).then_some(mtu),
            ..Change::default()
        };
        requests.push(link::set(link.index, &change));
    }
    // Packets that arrive on an ENI are forwarded to pods. The setting of the link decides, whatever the value of
    // `ip_forward`.
    if link.rp_filter != Some(2) || link.forwarding == Some(0) {
        requests.push(link::set_inet_conf(
            link.index,
            &[(InetConf::RpFilter, LOOSE), (InetConf::Forwarding, 1)],
        ));
    }
    socket
        .batch(&requests)
        .and_then(crate::netlink::Report::ok)
        .during("set up the ENI's link")
}

/// A netfilter socket in the namespace of `socket`, which must be the namespace of the calling thread.
fn nft(socket: &Socket) -> Result<Nft, HostError> {
    let op = "open nftables";
    let nft = Nft::open().during(op)?;
    let same = socket.netns_id().during(op)? == nft.netns_id().during(op)?;
    if same {
        Ok(nft)
    } else {
        Err(Error::ForeignNamespace { op }).during(op)
    }
}

#[cfg(test)]
mod tests;
