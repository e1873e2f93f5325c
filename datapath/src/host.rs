//! The node's own network: rules, ENI tables, device settings, the marking of packets (design §4.2).
//!
//! Owns everything on a node that does not belong to one pod. Each function brings what is there to what shall be
//! there, by difference: what is right is not touched, what is missing is added, and only then is what is wrong taken
//! away. So all of them may be repeated at any time, under traffic. Other programs' rules and routes are told by
//! their protocol number, and left alone.

mod eni;
mod ipv6;
mod monitor;
mod reconciler;
mod rules;
mod stale;
mod sysctl;

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

/// Loose source check. An ENI must accept what comes back over it although the main table would answer by another.
const LOOSE: u32 = 2;

/// What a node needs before its first pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// MAC address of the primary ENI.
    pub primary_mac: Mac,
    /// MTU of the primary ENI, in bytes.
    pub mtu: u32,
    /// What leaves by the primary ENI whichever ENI its pod is on.
    pub egress: Egress,
    /// Whether pods are kept from the instance metadata service.
    pub block_metadata: bool,
    /// Which addresses pods have.
    pub pods: Family,
}

/// Why the node cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// IPv4 forwarding is off, and we may not switch it on.
    #[error("net.ipv4.ip_forward is 0 and /proc/sys cannot be written: set it on the node")]
    ForwardingOff {
        /// Why it cannot be written: `EROFS` in a container without privileges.
        #[source]
        source: std::io::Error,
    },
    /// A setting of IPv6 is not as pods need it, and we may not change it.
    #[error("{path} is not {value} and cannot be written: set it on the node")]
    Setting {
        /// The file.
        path: String,
        /// What it must hold.
        value: &'static str,
        /// Why it cannot be written: `EROFS` in a container without privileges.
        #[source]
        source: std::io::Error,
    },
    /// A setting of IPv6 is not there: the kernel has none, or was started with `ipv6.disable=1`.
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
    /// An index that cannot be a secondary ENI's.
    #[error("ENI index {index} is not within 1..={MAX_ENI_INDEX}")]
    Index {
        /// The index.
        index: u16,
    },
    /// A subnet without room for a gateway.
    #[error("subnet {subnet} has no gateway address")]
    Subnet {
        /// The subnet.
        subnet: Ipv4Net,
    },
    /// The kernel refused something, or a socket failed.
    #[error("{what}")]
    Netlink {
        /// What was being brought about.
        what: &'static str,
        /// The cause.
        #[source]
        source: Error,
    },
}

/// Puts an operation's name on a netlink error.
trait During<T> {
    fn during(self, what: &'static str) -> Result<T, HostError>;
}

impl<T> During<T> for Result<T, Error> {
    fn during(self, what: &'static str) -> Result<T, HostError> {
        self.map_err(|source| HostError::Netlink { what, source })
    }
}

/// Brings about what every pod of the node relies on: forwarding, the rule that lets local pods win, the one for what
/// leaves by the primary ENI, that ENI's settings, source translation, the marking of packets for their pod's ENI. The
/// calling thread must be in the socket's namespace. Returns the primary ENI's link.
///
/// # Errors
/// [`HostError`]; what was done before the failure stays, as a repetition would do it again.
pub fn prepare(socket: &mut Socket, config: &HostConfig) -> Result<Link, HostError> {
    let primary = ensure(socket, config)?;
    let ruleset = ruleset(config, primary.index)?;
    nft(socket)?.replace(&ruleset).during("set up nftables")?;
    Ok(primary)
}

/// All of it but nftables.
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
        // In any order with the marking: main is what comes at the end all the same.
        rules::remove(socket, Family::V4, rival)?;
    }
    Ok(primary)
}

/// Changes which destinations count as local, and touches nothing else. `config` is what was prepared last; it has the
/// new destinations afterwards. Where the kernel no longer has what was prepared, all of it is prepared again.
///
/// # Errors
/// As [`prepare`]; then `config` is as it was.
pub fn update_local(
    socket: &mut Socket,
    config: &mut HostConfig,
    local: Vec<Ipv4Net>,
) -> Result<(), HostError> {
    let old = std::mem::replace(&mut config.egress.local, local);
    // Without translation no chain asks.
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

/// What nftables shall have. `primary`: link index of the primary ENI.
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

/// Whether an ENI's link is up, of the right MTU, with a loose source check, and forwards.
fn is_right(link: &Link, mtu: u32) -> bool {
    let loose = link.rp_filter.is_none_or(|have| have == 2);
    link.up && link.mtu == mtu && loose && link.forwarding != Some(0)
}

/// Makes it so. Nothing is sent when all is so.
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
    // What comes in by an ENI is forwarded to pods; the setting of the link decides, whatever `ip_forward` says.
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

/// A netfilter socket in the namespace of `socket`, which must be the calling thread's.
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
