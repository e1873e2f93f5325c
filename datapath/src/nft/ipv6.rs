//! Table `ip6 hawser`: a pod can send only from its own address.
//!
//! IPv6 has no reverse path filter, so nftables do this check on every node. The rule looks up the route back to the
//! source: if it does not use the packet's input link, the packet is dropped. A pod's link has a route to the pod's
//! address and, without a link-local address, no other route. The same rule therefore drops router advertisements and
//! redirects, which need a link-local source, and neighbour discovery with a forged sender.

use super::batch::Batch;
use super::check_source::add_check_source;
use super::guard;
use super::socket::{Nft, TABLE};
use crate::netlink::{Error, Family};

impl Nft {
    /// Replaces table `ip6 hawser`, or creates it. `block_metadata`: [`Ruleset::block_metadata`](super::Ruleset).
    ///
    /// # Errors
    /// The kernel's error. The table is then unchanged.
    pub fn replace_ipv6(&mut self, block_metadata: bool) -> Result<(), Error> {
        let mut batch = Batch::new(Family::V6, TABLE);
        // As for `ip hawser`: it is created first, so that deleting it cannot fail.
        batch.add_table();
        batch.del_table();
        batch.add_table();
        add_check_source(&mut batch);
        if block_metadata {
            guard::add_block_metadata(&mut batch, Family::V6);
        }
        batch.send(&mut self.channel, &mut self.seq)
    }
}
