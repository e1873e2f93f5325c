//! Removing the chains that the AWS VPC CNI's plugin `egress-cni` made for pods that have ended. Each pod has one that translates
//! its address of the other family, and a jump to it by this address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_core::NlasIterator;

use super::super::batch::Batch;
use super::super::encoder::family_code;
use super::super::list::{attribute, text};
use super::super::socket::{Nft, TABLE};
use super::{GET_RULE, NFGENMSG, Table, ip_family};
use crate::netlink::{Error, Family};

/// What the names of the chains begin with, for each family of the translated address.
const CHAINS: [(Family, &str); 2] = [(Family::V4, "CNI-E4-"), (Family::V6, "CNI-E6-")];

/// The jump to a pod's chain.
#[derive(Debug, PartialEq, Eq)]
struct Jump {
    table: Table,
    chain: String,
    handle: u64,
    /// The pod's chain.
    to: String,
    pod: IpAddr,
}

impl Nft {
    /// Removes the chains of pods whose address is not one of `alive`, in one transaction, and returns their addresses.
    ///
    /// # Errors
    /// If the kernel cannot be queried or refuses. Then all of them are still there.
    pub fn remove_egress_cni(&mut self, alive: &BTreeSet<IpAddr>) -> Result<Vec<IpAddr>, Error> {
        let mut jumps = Vec::new();
        self.dump(GET_RULE, |_, payload| jumps.extend(jump(payload)))?;
        jumps.retain(|jump| !alive.contains(&jump.pod));
        if jumps.is_empty() {
            return Ok(Vec::new());
        }
        let mut batch = Batch::new(Family::V4, TABLE);
        for Jump {
            table: (family, table),
            chain,
            handle,
            to,
            ..
        } in &jumps
        {
            batch.del_rule((*family, table), chain, *handle);
            batch.flush_chain_of((*family, table), to);
            batch.del_chain((*family, table), to);
        }
        batch.send(&mut self.channel, &mut self.seq)?;
        Ok(jumps.into_iter().map(|jump| jump.pod).collect())
    }
}

/// The rule, if it is the jump to a pod's chain.
fn jump(payload: &[u8]) -> Option<Jump> {
    let object = payload.get(NFGENMSG..)?;
    let family = ip_family(payload)?;
    let (_, prefix) = CHAINS
        .into_iter()
        .find(|(of, _)| family_code(*of) == family)?;
    let expressions = attribute(object, 4)?;
    let to = name(&expressions, prefix)?;
    let chain = text(object, 2)?;
    // The rules of a pod's own chain do not name it.
    let handle = attribute(object, 3)?.try_into().ok()?;
    Some(Jump {
        table: (family, text(object, 1)?),
        chain,
        handle: u64::from_be_bytes(handle),
        to,
        pod: compared(&expressions)?,
    })
}

/// The text that begins with `prefix`, up to the zero after it.
fn name(bytes: &[u8], prefix: &str) -> Option<String> {
    let at = bytes
        .windows(prefix.len())
        .position(|window| window == prefix.as_bytes())?;
    let name = bytes.get(at..)?.split(|byte| *byte == 0).next()?;
    String::from_utf8(name.to_vec()).ok()
}

/// The address that the rule compares with: the only value of such a length.
fn compared(expressions: &[u8]) -> Option<IpAddr> {
    let mut values = NlasIterator::new(expressions).flatten().filter_map(|e| {
        text(e.value(), 1).filter(|kind| kind == "cmp")?;
        let data = attribute(e.value(), 2)?;
        attribute(&attribute(&data, 3)?, 1)
    });
    values.find_map(|value| {
        let four = <[u8; 4]>::try_from(&value[..]).map(IpAddr::from);
        let sixteen = || <[u8; 16]>::try_from(&value[..]).map(IpAddr::from);
        four.or_else(|_| sixteen()).ok()
    })
}
