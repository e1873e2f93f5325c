//! The desired contents of our tables, and the transactions that write them.

use super::batch::Batch;
use super::choose_eni::add_choose_eni;
use super::egress::other_family::add_other_family;
use super::egress::{self, Egress};
use super::guard::{self, check_source::add_check_source};
use super::observe::transit::TRANSIT;
use super::socket::{Nft, PORTS_TABLE, TABLE};
use crate::netlink::{Error, Family};

/// The desired contents of the table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    /// Drop packets of a pod with a source address that is not routed to it. The kernel's reverse path filter does this
    /// at a lower cost, unless `net.ipv4.conf.all.rp_filter` is 2, which turns every device's strict setting into a
    /// loose one.
    pub check_source: bool,
    /// Link index of the primary ENI.
    pub primary: u32,
    /// The packets that leave through the primary ENI, and their source address.
    pub egress: Egress,
    /// Pods cannot reach the instance metadata service.
    pub block_metadata: bool,
    /// The address family of pods. IPv6 packets are neither marked nor translated. For IPv6, there are only the source
    /// check and the block of the metadata service, in table `ip6 hawser`.
    pub pods: Family,
    /// The kernel has IPv6. If IPv4 pods do not reach IPv6 destinations, their IPv6 packets are dropped. Without it, table
    /// `ip6 hawser` is not touched.
    pub has_ipv6: bool,
}

/// The following messages are for our table of this family, which is empty. Deleting a table that does not exist would fail
/// the transaction, so it is created first.
pub(super) fn start_over(batch: &mut Batch, family: Family) {
    batch.turn_to(family, TABLE);
    batch.add_table();
    batch.del_table();
    batch.add_table();
}

impl Nft {
    /// Replaces the whole table, or creates it.
    ///
    /// # Errors
    /// The kernel's error. The table is then unchanged.
    pub fn replace(&mut self, ruleset: &Ruleset) -> Result<(), Error> {
        if ruleset.pods == Family::V6 {
            return self.replace_ipv6(ruleset);
        }
        let mut batch = Batch::new(Family::V4, TABLE);
        start_over(&mut batch, Family::V4);
        if ruleset.check_source {
            add_check_source(&mut batch);
        }
        let egress = &ruleset.egress;
        egress::add_chains(&mut batch, egress, ruleset.primary);
        add_choose_eni(&mut batch, egress);
        if ruleset.block_metadata {
            guard::add_block_metadata(&mut batch, Family::V4);
        }
        match egress.other_family {
            Some(ports) => {
                start_over(&mut batch, Family::V6);
                add_check_source(&mut batch);
                if ruleset.block_metadata {
                    guard::add_block_metadata(&mut batch, Family::V6);
                }
                add_other_family(&mut batch, Family::V6, ports);
            }
            None if ruleset.has_ipv6 => {
                start_over(&mut batch, Family::V6);
                guard::add_no_ipv6(&mut batch);
            }
            None => {}
        }
        batch.send(&mut self.channel, &mut self.seq)
    }

    /// Changes the local destinations to those of `egress`, and nothing else. Everything else must be unchanged, or the
    /// table must be replaced. Without [`Egress::snat`], nothing changes.
    ///
    /// # Errors
    /// `ENOENT` if the chains do not exist; otherwise the kernel's error. In both cases nothing has changed.
    pub fn update_local(&mut self, egress: &Egress) -> Result<(), Error> {
        let mut batch = Batch::new(Family::V4, TABLE);
        egress::change_local(&mut batch, egress);
        batch.send(&mut self.channel, &mut self.seq)
    }

    /// Removes our tables of both families. Tables that are not there are no error.
    ///
    /// # Errors
    /// The kernel's error; the tables are then unchanged.
    pub fn remove(&mut self) -> Result<(), Error> {
        let mut batch = Batch::new(Family::V4, TABLE);
        let tables = [
            (Family::V4, TABLE),
            (Family::V6, TABLE),
            (Family::V4, TRANSIT),
            (Family::V4, PORTS_TABLE),
            (Family::V6, PORTS_TABLE),
        ];
        for (family, table) in tables {
            batch.turn_to(family, table);
            // Deleting a table that is not there would fail the transaction, so it is made first.
            batch.add_table();
            batch.del_table();
        }
        batch.send(&mut self.channel, &mut self.seq)
    }
}
