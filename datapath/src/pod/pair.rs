//! The first step of an ADD: the veth pair, its host end under the name that policy engines look for.
//!
//! Sandboxes of one pod have the same name, and they overlap: a StatefulSet's pod comes back while its previous link is
//! still being removed. The younger one gets the name. An older link is recognised by its owner and never removed here.

use std::os::fd::BorrowedFd;

use netlink_packet_core::NlasIterator;
use tracing::debug;

use super::error::{AddError, Step};
use super::pod_link::PodLink;
use super::repair::rename::{displace, is_pod_link};
use crate::netlink::link::{self, Link};
use crate::netlink::{Errno, Error, Frame, Socket};

/// A new pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) indices: Indices,
    /// The name of the host end.
    pub(super) host_name: String,
    /// Whether another link had the name that it shall have.
    pub(super) contested: bool,
}

/// Each in the namespace of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Indices {
    pub(super) host: u32,
    pub(super) pod: u32,
}

/// Creates the pair. If another link has its name, this link is removed if it is of an earlier attempt, renamed if it
/// belongs to another pod, and left alone otherwise; then the new link gets a name of its own.
pub(super) fn make_pair(
    host: &mut Socket,
    netns: BorrowedFd<'_>,
    link: &PodLink,
) -> Result<Pair, AddError> {
    let mut contested = false;
    for fallback in [false, true] {
        let name = match fallback {
            false => link.host_name.clone(),
            true => link.own_name(),
        };
        // Again after what was in the way is gone.
        for again in [false, true] {
            match try_pair(host, netns, link, &name) {
                Err(e) if e.is(Errno::EEXIST) => {}
                Err(e) => return Err(pair_failed(host, link, &name, e)),
                Ok(indices) => {
                    return Ok(Pair {
                        indices,
                        host_name: name,
                        contested,
                    });
                }
            }
            contested = true;
            // EEXIST does not tell which of the two names exists.
            let holder = host.link_by_name(&name);
            match holder.map_err(|e| AddError::refused(Step::Pair, e))? {
                // It may have been removed a moment ago.
                None if again => {
                    return Err(AddError::InterfaceExists {
                        name: link.pod_name.clone(),
                    });
                }
                None => {}
                Some(holder) if again || !make_room(host, &holder, link)? => break,
                Some(_) => {}
            }
        }
    }
    Err(AddError::HostNameTaken {
        name: link.host_name.clone(),
    })
}

/// Whether the name of `holder` is free now.
fn make_room(host: &mut Socket, holder: &Link, link: &PodLink) -> Result<bool, AddError> {
    if !is_pod_link(holder) {
        return Ok(false);
    }
    if link.is_of(holder) {
        debug!(host_end = %holder.name, "an earlier attempt's link is replaced");
        return match host.apply(&link::del(holder.index)) {
            Err(e) if !e.is_gone() => Err(AddError::refused(Step::Pair, e)),
            _ => Ok(true),
        };
    }
    let displaced = displace(host, holder);
    if let Err(error) = &displaced {
        debug!(host_end = %holder.name, %error, "an older link of this pod keeps its name");
    }
    Ok(displaced.is_ok())
}

/// One `RTM_NEWLINK`, whose echo contains both indices: the host end's own, and the other end's in `IFLA_LINK`. This
/// avoids a lookup, a second request (65 µs for the link with all its attributes), and a guess of a free index (which
/// the kernel would accept for both ends). Links are echoed from Linux 6.2 on; before, the host end is looked up.
fn try_pair(
    host: &mut Socket,
    netns: BorrowedFd<'_>,
    link: &PodLink,
    name: &str,
) -> Result<Indices, Error> {
    let pair = link::add_veth_with_one_queue(&link.host_end(name), &link.pod_end(), Some(netns));
    let request = link::echo(link::without_arp(pair));
    let mut wired = None;
    host.exchange(std::slice::from_ref(&request), |_, frame| {
        wired = wired.or(indices(&frame))
    })?
    .ok()?;
    wired.map_or_else(|| ask_indices(host, name), Ok)
}

/// The result that the echo would have contained.
fn ask_indices(host: &mut Socket, host_name: &str) -> Result<Indices, Error> {
    let host_end = host.link_by_name(host_name)?;
    let both = host_end.and_then(|l| {
        Some(Indices {
            host: l.index,
            pod: l.peer?,
        })
    });
    both.ok_or(Error::Truncated { op: "link get" })
}

/// The two indices in an echoed link, without decoding its sixty other attributes.
fn indices(frame: &Frame<'_>) -> Option<Indices> {
    const IFINFOMSG: usize = 16;
    const IFLA_LINK: u16 = 5;
    let payload = frame.payload();
    let number = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
    let host = number(payload.get(4..8)?)?;
    let mut attributes = NlasIterator::new(payload.get(IFINFOMSG..)?);
    let peer = attributes.find_map(|a| a.ok().filter(|a| a.kind() == IFLA_LINK))?;
    Some(Indices {
        host,
        pod: number(peer.value())?,
    })
}

/// The kernel removes a pair that it refuses. If its answer was lost, the pair may exist.
fn pair_failed(host: &mut Socket, link: &PodLink, name: &str, source: Error) -> AddError {
    if source.errno() == Some(Errno::EBADF) {
        return AddError::NamespaceGone;
    }
    let left_behind = match source {
        Error::Kernel { .. } => None,
        _ => remove_ours(host, link, name).err(),
    };
    AddError::Refused {
        step: Step::Pair,
        source,
        left_behind,
    }
}

/// Not by its name alone, which may belong to an older sandbox.
fn remove_ours(host: &mut Socket, link: &PodLink, name: &str) -> Result<(), Error> {
    let found = host.link_by_name(name)?;
    match found.filter(|found| link.is_of(found)) {
        None => Ok(()),
        Some(found) => match host.apply(&link::del(found.index)) {
            Err(e) if !e.is_gone() => Err(e),
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::netlink::Mac;
    use crate::testing::{netns, socket_in};
    use crate::uplink::Uplink;

    /// On kernels that do not echo links, the lookup must return the same result.
    #[test]
    fn a_lookup_of_the_indices_agrees_with_the_echo() {
        let (host, pod) = (netns(), netns());
        let mut host = socket_in(&host);
        // Makes the index counters of the two namespaces differ.
        let spare = link::End {
            name: "spare",
            mtu: None,
            mac: None,
            group: 0,
            up: false,
        };
        let pair = link::add_veth(
            &spare,
            &link::End {
                name: "other",
                ..spare
            },
            None,
        );
        host.apply(&pair).unwrap();
        let link = PodLink {
            host_name: "eni0".to_owned(),
            owner: "n/id/eth0".to_owned(),
            pod_name: "eth0".to_owned(),
            address: [10, 0, 0, 5].into(),
            mtu: 1500,
            uplink: Uplink::Eni(nettypes::EniIndex::PRIMARY),
            host_mac: Mac([2, 0, 0, 0, 0, 1]),
            pod_mac: Mac([2, 0, 0, 0, 0, 2]),
            secondary: false,
            asked: nettypes::Asked::default(),
            egress: None,
        };
        let wired = try_pair(&mut host, pod.as_fd(), &link, "eni0").unwrap();
        assert_ne!(wired.host, wired.pod);
        assert_eq!(ask_indices(&mut host, "eni0").unwrap(), wired);
    }
}
