//! How messages of netfilter netlink are encoded. Knows no tables, chains or rules.

use crate::netlink::{Family, align4};

/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
pub(super) const fn family_code(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// A message under construction. Attributes may be nested, and are padded to four bytes.
#[derive(Debug, Default)]
pub(super) struct Encoder(pub(super) Vec<u8>);

impl Encoder {
    /// A complete message outside a transaction, about tables of this family.
    pub(super) fn message(
        family: Family,
        kind: u16,
        flags: u16,
        seq: u32,
        body: impl FnOnce(&mut Self),
    ) -> Vec<u8> {
        let mut out = Self(vec![0; 4]);
        out.0.extend_from_slice(&kind.to_ne_bytes());
        out.0.extend_from_slice(&flags.to_ne_bytes());
        out.0.extend_from_slice(&seq.to_ne_bytes());
        // Port; then the generic netfilter header.
        out.0
            .extend_from_slice(&[0, 0, 0, 0, family_code(family), 0, 0, 0]);
        body(&mut out);
        let length = u32::try_from(out.0.len()).expect("a message is far below 4 GiB");
        out.0[..4].copy_from_slice(&length.to_ne_bytes());
        out.0
    }

    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("our attributes are small");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(align4(self.0.len()), 0);
    }

    /// A zero-terminated string.
    pub(super) fn string(&mut self, kind: u16, value: &str) {
        let mut terminated = value.as_bytes().to_vec();
        terminated.push(0);
        self.bytes(kind, &terminated);
    }

    /// A number, in network byte order as everywhere in netfilter.
    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(super) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        const NLA_F_NESTED: u16 = 0x8000;
        let start = self.0.len();
        self.bytes(kind | NLA_F_NESTED, &[]);
        body(self);
        let length = u16::try_from(self.0.len() - start).expect("our attributes are small");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}
