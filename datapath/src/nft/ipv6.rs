//! The tables of a node with IPv6 pods. In `ip6 hawser`: a pod can send only from its own address.
//!
//! IPv6 has no reverse path filter, so nftables do this check on every node. The rule looks up the route back to the
//! source: if it does not use the packet's input link, the packet is dropped. A pod's link has a route to the pod's
//! address and, without a link-local address, no other route. The same rule therefore drops router advertisements and
//! redirects, which need a link-local source, and neighbour discovery with a forged sender.
//!
//! Table `ip hawser` is there if pods reach IPv4 destinations. Otherwise they have no IPv4 at all.

use super::batch::Batch;
use super::egress::other_family::add_other_family;
use super::guard::{self, check_source::add_check_source};
use super::ruleset::{Ruleset, start_over};
use super::socket::{Nft, TABLE};
use crate::netlink::{Error, Family};

impl Nft {
    /// Replaces both tables, or creates them. They depend on few parts of `ruleset`.
    ///
    /// # Errors
    /// The kernel's error. The tables are then unchanged.
    pub(super) fn replace_ipv6(&mut self, ruleset: &Ruleset) -> Result<(), Error> {
        let mut batch = Batch::new(Family::V6, TABLE);
        start_over(&mut batch, Family::V6);
        add_check_source(&mut batch);
        if ruleset.block_metadata {
            guard::add_block_metadata(&mut batch, Family::V6);
        }
        start_over(&mut batch, Family::V4);
        match ruleset.egress.other_family {
            None => batch.del_table(),
            Some(ports) => {
                if ruleset.check_source {
                    add_check_source(&mut batch);
                }
                if ruleset.block_metadata {
                    guard::add_block_metadata(&mut batch, Family::V4);
                }
                add_other_family(&mut batch, Family::V4, ports);
            }
        }
        batch.send(&mut self.channel, &mut self.seq)
    }
}
