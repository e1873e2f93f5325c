//! Table `ip6 hawser`: a pod sends from its own address or not at all.
//!
//! IPv6 has no reverse path filter, so the check is nftables' here, on every node. It looks the source up as an answer
//! would be routed: over the link that the packet came from, or the packet is dropped. A pod's link has a route to the
//! pod's one address and, as it has no link-local address, no other: so what pods must never send, router advertisements
//! and redirects, which count only from a link-local source, is dropped by the same rule, and so is any neighbour
//! discovery with a forged sender.

use super::{Nft, TABLE, add_check_source, batch::Batch, guard};
use crate::netlink::{Error, Family};

impl Nft {
    /// Replaces table `ip6 hawser`, or makes it. `block_metadata`: [`Ruleset::block_metadata`](super::Ruleset).
    ///
    /// # Errors
    /// The kernel's verdict; the table is then as it was.
    pub fn replace_ipv6(&mut self, block_metadata: bool) -> Result<(), Error> {
        let mut batch = Batch::new(Family::V6, TABLE);
        // As for `ip hawser`: made first, so that deleting it cannot fail.
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
