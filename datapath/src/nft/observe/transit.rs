//! Counts packets in transit that no pod sent and that carry mark bits of ENIs: another program uses the same bits, and our
//! rules send its packets to an ENI that does not own their source. A routing rule cannot tell by which kind of link a packet
//! came in, so it cannot leave them out.
//!
//! In a table of its own: it may be missing where the kernel has no counters, and its contents change all the time.

use netlink_packet_core::NlasIterator;

use super::super::batch::{Batch, Chain, Hook};
use super::super::expr::{Expr, Key};
use super::super::list::{attribute, text};
use super::super::parts::POD_GROUP;
use super::super::socket::Nft;
use crate::constants::{GROUP_BASE, GROUP_ENI};
use crate::marks::Marks;
use crate::netlink::{Error, Family};

/// The name of the table, of family `ip`.
pub(in crate::nft) const TRANSIT: &str = "hawser_transit";
const CHAIN: &str = "foreign_marks";
/// Before the programs that set marks for later stages only.
const HOOK: Hook = Hook {
    kind: "filter",
    number: Hook::FORWARD,
    priority: -300,
};
const GET_RULE: u16 = 7;
/// Generic netfilter header.
const NFGENMSG: usize = 4;

impl Nft {
    /// Starts counting, from 0: `oifgroup 0x6bfe iifgroup & 0xffffff80 != 0x6b00 meta mark & 0x7f != 0 counter`.
    ///
    /// # Errors
    /// The kernel's error; nothing is then counted.
    pub fn count_transit(&mut self, marks: Marks) -> Result<(), Error> {
        let mut batch = Batch::new(Family::V4, TRANSIT);
        batch.add_table();
        batch.del_table();
        batch.add_table();
        batch.add_chain(&Chain {
            name: CHAIN,
            hook: Some(HOOK),
        });
        let [load, within] = POD_GROUP;
        let mask = marks.eni_mask();
        let rule = [
            Expr::Load(Key::OutputGroup),
            Expr::Equals(GROUP_ENI),
            load,
            within,
            Expr::Differs(GROUP_BASE),
            Expr::Load(Key::Mark),
            Expr::Bitwise { mask, xor: 0 },
            Expr::Differs(0),
            Expr::Counter,
        ];
        batch.add_rule(CHAIN, &rule);
        batch.send(&mut self.channel, &mut self.seq)
    }

    /// The packets so far; `None` if nothing is counted.
    ///
    /// # Errors
    /// If the kernel cannot be queried.
    pub fn transit(&mut self) -> Result<Option<u64>, Error> {
        let mut packets = None;
        self.dump(GET_RULE, |_, payload| {
            let object = payload.get(NFGENMSG..).unwrap_or_default();
            if text(object, 1).is_some_and(|table| table == TRANSIT) {
                packets = counted(object).or(packets);
            }
        })?;
        Ok(packets)
    }
}

/// The packets that a rule's counter has seen.
fn counted(rule: &[u8]) -> Option<u64> {
    const EXPRESSIONS: u16 = 4;
    const PACKETS: u16 = 2;
    let expressions = attribute(rule, EXPRESSIONS)?;
    let mut each = NlasIterator::new(&expressions[..]).flatten();
    let counter = each.find(|e| text(e.value(), 1).is_some_and(|name| name == "counter"))?;
    let packets = attribute(&attribute(counter.value(), 2)?, PACKETS)?;
    Some(u64::from_be_bytes(packets.try_into().ok()?))
}
