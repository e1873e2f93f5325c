//! Transactions: messages between a begin and an end, encoded into one datagram, applied completely or not at all.
//!
//! Owns the wire format of tables, chains, rules, sets and their elements. Does not know their purpose.

use tracing::trace;

use super::encoder::{Encoder, family_code};
use super::expr::Expr;
use crate::netlink::{Channel, Error, Family, verdict};

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 2;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFTABLES: u16 = 10;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const NEWELEMENT: u16 = 12;
const DELELEMENT: u16 = 14;

/// Where a chain is hooked into packet processing, and in which order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    /// `filter`, or `nat`, whose chains see only the first packet of a connection.
    pub(super) kind: &'static str,
    pub(super) number: u32,
    pub(super) priority: i32,
}

impl Hook {
    pub(super) const PREROUTING: u32 = 0;
    pub(super) const FORWARD: u32 = 2;
    pub(super) const OUTPUT: u32 = 3;
    pub(super) const POSTROUTING: u32 = 4;
}

/// A chain. Without a hook, it is reached only from other chains.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain<'a> {
    pub(super) name: &'a str,
    pub(super) hook: Option<Hook>,
}

/// A set, or a map if it has values. Keys and values have parts, each padded to a multiple of four bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Set<'a> {
    pub(super) name: &'a str,
    pub(super) key: Layout,
    pub(super) value: Option<Layout>,
}

/// What a key or a value consists of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// The numbers of the parts' types, six bits each, the last one lowest. The kernel only returns it to `nft`.
    pub(super) types: u32,
    /// In bytes.
    pub(super) len: u32,
}

/// A key, and its value in a map.
pub(super) type Element = (Vec<u8>, Option<Vec<u8>>);

/// One transaction on one table.
#[derive(Debug)]
pub(super) struct Batch {
    table: &'static str,
    family: u8,
    out: Encoder,
    /// What each message does, and its offset in the buffer.
    messages: Vec<(&'static str, usize)>,
}

impl Batch {
    /// For a table of family `ip` or `ip6`.
    pub(super) fn new(family: Family, table: &'static str) -> Self {
        let mut batch = Self {
            table,
            family: family_code(family),
            out: Encoder::default(),
            messages: Vec::new(),
        };
        batch.frame("nft begin", BATCH_BEGIN, NLM_F_REQUEST, 0, NFTABLES, |_| {});
        batch
    }

    /// The following messages are for this table. A transaction can contain several tables.
    pub(super) fn turn_to(&mut self, family: Family, table: &'static str) {
        self.family = family_code(family);
        self.table = table;
    }

    pub(super) fn add_table(&mut self) {
        let table = self.table;
        self.message("nft add table", NEWTABLE, NLM_F_CREATE, |out| {
            out.string(TABLE_NAME, table)
        });
    }

    pub(super) fn del_table(&mut self) {
        let table = self.table;
        self.message("nft delete table", DELTABLE, 0, |out| {
            out.string(TABLE_NAME, table)
        });
    }

    pub(super) fn add_chain(&mut self, chain: &Chain<'_>) {
        let table = self.table;
        self.message("nft add chain", NEWCHAIN, NLM_F_CREATE, |out| {
            out.string(CHAIN_TABLE, table);
            out.string(CHAIN_NAME, chain.name);
            let Some(hook) = chain.hook else { return };
            out.string(CHAIN_TYPE, hook.kind);
            out.number(CHAIN_POLICY, NF_ACCEPT);
            out.nest(CHAIN_HOOK, |out| {
                out.number(HOOK_NUM, hook.number);
                out.number(HOOK_PRIORITY, hook.priority.cast_unsigned());
            });
        });
    }

    /// An existing set with this name and layout stays, with its elements. `number` is different for each set of a
    /// transaction.
    pub(super) fn add_set(&mut self, set: &Set<'_>, number: u32) {
        const MAP: u32 = 8;
        let table = self.table;
        self.message("nft add set", NEWSET, NLM_F_CREATE, |out| {
            out.string(SET_TABLE, table);
            out.string(SET_NAME, set.name);
            out.number(SET_FLAGS, set.value.map_or(0, |_| MAP));
            out.number(SET_KEY_TYPE, set.key.types);
            out.number(SET_KEY_LEN, set.key.len);
            if let Some(value) = set.value {
                out.number(SET_DATA_TYPE, value.types);
                out.number(SET_DATA_LEN, value.len);
            }
            out.number(SET_ID, number);
        });
    }

    /// `EEXIST`, or `EBUSY` in earlier kernels, if a key has another value.
    pub(super) fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(
            "nft add elements",
            (NEWELEMENT, NLM_F_CREATE),
            set,
            elements,
        );
    }

    /// `ENOENT` if a key is missing.
    pub(super) fn del_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements("nft delete elements", (DELELEMENT, 0), set, elements);
    }

    fn elements(
        &mut self,
        op: &'static str,
        (kind, flags): (u16, u16),
        set: &str,
        elements: &[Element],
    ) {
        /// An attribute has at most 64 KiB.
        const PER_MESSAGE: usize = 512;
        let table = self.table;
        for some in elements.chunks(PER_MESSAGE) {
            self.message(op, kind, flags, |out| {
                out.string(LIST_TABLE, table);
                out.string(LIST_SET, set);
                out.nest(LIST_ELEMENTS, |out| {
                    for (key, value) in some {
                        out.nest(LIST_ELEMENT, |out| {
                            out.nest(ELEMENT_KEY, |out| out.bytes(DATA_VALUE, key));
                            if let Some(value) = value {
                                out.nest(ELEMENT_DATA, |out| out.bytes(DATA_VALUE, value));
                            }
                        });
                    }
                });
            });
        }
    }

    /// Deletes all rules of a chain.
    pub(super) fn flush_chain(&mut self, chain: &str) {
        let table = self.table;
        self.message("nft flush chain", DELRULE, 0, |out| {
            out.string(RULE_TABLE, table);
            out.string(RULE_CHAIN, chain);
        });
    }

    pub(super) fn add_rule(&mut self, chain: &str, expressions: &[Expr<'_>]) {
        let table = self.table;
        self.message(
            "nft add rule",
            NEWRULE,
            NLM_F_CREATE | NLM_F_APPEND,
            |out| {
                out.string(RULE_TABLE, table);
                out.string(RULE_CHAIN, chain);
                out.nest(RULE_EXPRESSIONS, |out| {
                    expressions.iter().for_each(|e| e.encode(out))
                });
            },
        );
    }

    /// Deletes one rule of another program's table, which is given with the number of its family.
    pub(super) fn del_rule(&mut self, (family, table): (u8, &str), chain: &str, handle: u64) {
        let kind = NFTABLES << 8 | DELRULE;
        self.frame("nft delete rule", kind, NLM_F_REQUEST, family, 0, |out| {
            out.string(RULE_TABLE, table);
            out.string(RULE_CHAIN, chain);
            out.bytes(RULE_HANDLE, &handle.to_be_bytes());
        });
    }

    /// As [`Batch::flush_chain`], in another program's table.
    pub(super) fn flush_chain_of(&mut self, (family, table): (u8, &str), chain: &str) {
        let kind = NFTABLES << 8 | DELRULE;
        self.frame("nft flush chain", kind, NLM_F_REQUEST, family, 0, |out| {
            out.string(RULE_TABLE, table);
            out.string(RULE_CHAIN, chain);
        });
    }

    /// Deletes a chain of another program's table. It must be empty.
    pub(super) fn del_chain(&mut self, (family, table): (u8, &str), chain: &str) {
        let kind = NFTABLES << 8 | DELCHAIN;
        self.frame("nft delete chain", kind, NLM_F_REQUEST, family, 0, |out| {
            out.string(CHAIN_TABLE, table);
            out.string(CHAIN_NAME, chain);
        });
    }

    /// Deletes another program's table with everything in it.
    pub(super) fn del_table_of(&mut self, (family, table): (u8, &str)) {
        let kind = NFTABLES << 8 | DELTABLE;
        self.frame("nft delete table", kind, NLM_F_REQUEST, family, 0, |out| {
            out.string(TABLE_NAME, table)
        });
    }

    fn message(
        &mut self,
        op: &'static str,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Encoder),
    ) {
        self.frame(
            op,
            NFTABLES << 8 | kind,
            NLM_F_REQUEST | flags,
            self.family,
            0,
            body,
        );
    }

    fn frame(
        &mut self,
        op: &'static str,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        body: impl FnOnce(&mut Encoder),
    ) {
        let out = &mut self.out.0;
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(&flags.to_ne_bytes());
        // Sequence number (set when sent) and port; then the generic netfilter header.
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&[family, 0]);
        out.extend_from_slice(&resource.to_be_bytes());
        body(&mut self.out);
        let length = u32::try_from(self.out.0.len() - start).expect("a message is far below 4 GiB");
        self.out.0[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.messages.push((op, start));
    }

    /// Sends the transaction and waits for the kernel's result.
    ///
    /// Only the last message asks for an acknowledgement, so that a large transaction cannot overrun the receive
    /// buffer. Errors are always reported, in order. If the transaction fails as a whole, the error refers to its begin
    /// message and comes first.
    pub(super) fn send(mut self, channel: &mut Channel, seq: &mut u32) -> Result<(), Error> {
        let (_, last) = *self.messages.last().expect("a batch starts with its begin");
        self.out.0[last + 6] |= u8::try_from(NLM_F_ACK).expect("a small flag");
        let last = self.messages.len() - 1;
        self.frame("nft end", BATCH_END, NLM_F_REQUEST, 0, NFTABLES, |_| {});
        let first = seq.wrapping_add(1);
        for (_, start) in &self.messages {
            *seq = seq.wrapping_add(1);
            self.out.0[start + 8..start + 12].copy_from_slice(&seq.to_ne_bytes());
        }
        trace!(seq = first, messages = ?self.messages, bytes = self.out.0.len(), "nft transaction");
        channel.send("nft transaction", &self.out.0)?;
        let port = channel.port;
        loop {
            for frame in channel.receive("nft transaction")? {
                let frame = frame?;
                let position = usize::try_from(frame.seq.wrapping_sub(first)).unwrap_or(usize::MAX);
                let Some((op, _)) = self.messages.get(position).filter(|_| frame.port == port)
                else {
                    trace!(seq = frame.seq, "stale netlink answer skipped");
                    continue;
                };
                if frame.kind == NLMSG_ERROR {
                    verdict(op, &frame)?;
                    if position == last {
                        return Ok(());
                    }
                }
            }
        }
    }
}

// Attribute numbers, from linux/netfilter/nf_tables.h.
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const NF_ACCEPT: u32 = 1;
const HOOK_NUM: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LEN: u16 = 7;
const SET_ID: u16 = 10;
pub(super) const LIST_TABLE: u16 = 1;
pub(super) const LIST_SET: u16 = 2;
pub(super) const LIST_ELEMENTS: u16 = 3;
pub(super) const LIST_ELEMENT: u16 = 1;
pub(super) const ELEMENT_KEY: u16 = 1;
pub(super) const ELEMENT_DATA: u16 = 2;
pub(super) const DATA_VALUE: u16 = 1;
