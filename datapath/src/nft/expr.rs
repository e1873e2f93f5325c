//! Expressions: the instructions that our rules use, and their encoding.
//!
//! Most expressions use the kernel's first register, as 32 bits, or as 128 bits for an IPv6 address. Those for maps name
//! their registers. Numbers in netfilter attributes are in network byte order. Register contents are in the machine's byte
//! order, except addresses and ports.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::encoder::{Encoder, family_code};
use crate::netlink::Family;

const REG_VERDICT: u32 = 0;
const REG: u32 = 1;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;

/// What `meta` loads.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(super) enum Key {
    Mark = 3,
    InputLink = 4,
    OutputName = 7,
    Transport = 16,
    InputGroup = 21,
    OutputGroup = 22,
}

/// What `ct` loads. For an untracked packet, the rule ends.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(super) enum CtKey {
    /// A bit mask with one bit set.
    State = 0,
    Mark = 3,
}

/// The address and the link of a lookup in the local addresses.
#[derive(Debug, Clone, Copy)]
pub(super) enum FibType {
    /// The destination, on any link.
    Destination,
    /// The destination, on the packet's input link.
    DestinationOnInput,
    /// The source, on the packet's output link.
    SourceOnOutput,
}

/// Where evaluation continues.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict<'a> {
    Drop,
    Return,
    Jump(&'a str),
    Goto(&'a str),
}

/// One of the sixteen registers of 32 bits. A longer value uses the following ones too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Register(pub(super) u32);

impl Register {
    const FIRST: u32 = 8;

    pub(super) const fn number(self) -> u32 {
        Self::FIRST + self.0
    }

    pub(super) const fn after(self, words: u32) -> Self {
        Self(self.0 + words)
    }
}

/// Bytes of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field {
    /// Of the network header: offset and length.
    Network(u32, u32),
    /// Of the transport header.
    Transport(u32, u32),
}

/// One instruction.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expr<'a> {
    /// Load a property of the packet.
    Load(Key),
    /// Load a property of the packet's connection.
    LoadCt(CtKey),
    /// Load the packet's source address.
    LoadSource,
    /// The same of an IPv6 packet.
    LoadSourceV6,
    /// Load the packet's destination address.
    LoadDestination,
    /// The same of an IPv6 packet.
    LoadDestinationV6,
    /// Store the register in the packet's mark.
    StoreMark,
    /// Store the register in the connection's mark.
    StoreCtMark,
    /// `register & mask ^ xor`.
    Bitwise { mask: u32, xor: u32 },
    /// Continue with this rule only if the register has this value.
    Equals(u32),
    /// Continue only if the register is this address.
    IsAddress(Ipv4Addr),
    /// The same of an IPv6 address.
    IsAddressV6(Ipv6Addr),
    /// The opposite of [`Expr::Equals`].
    Differs(u32),
    /// Continue only if the register, a name, has this prefix.
    BeginsWith(&'a str),
    /// Load the route type (`RTN_*`) of an address.
    FibType(FibType),
    /// Load 1 if the route to the packet's source uses its input link, 0 otherwise.
    FibSourceIsRoutedBack,
    /// The network of an address with this prefix length.
    Network(u8),
    /// The same of an IPv6 address.
    NetworkV6(u8),
    /// Load a constant address.
    Address(Ipv4Addr),
    /// Translate the connection's source to the address in the register. `flags` (`NF_NAT_RANGE_*`) determine how its
    /// port is chosen.
    SourceNat { flags: u32 },
    /// Translate the connection's source to an address of the output link, or to another one of the node, as of its
    /// first packet.
    Masquerade { flags: u32 },
    /// Load a property of the packet into this register.
    LoadInto(Key, Register),
    /// Load bytes of the packet into this register.
    FieldInto(Field, Register),
    /// Continue only if the set has the key that starts in this register.
    IsIn { set: &'a str, key: Register },
    /// Continue only if the map has the key; its value starts in the other register.
    Find {
        map: &'a str,
        key: Register,
        value: Register,
    },
    /// Translate the connection's destination to the address and the port in these registers.
    DestinationNat {
        family: Family,
        address: Register,
        port: Register,
    },
    /// Count the packet.
    Counter,
    /// Stop here.
    Verdict(Verdict<'a>),
}

impl Expr<'_> {
    pub(super) fn encode(&self, out: &mut Encoder) {
        out.nest(NFTA_LIST_ELEM, |out| {
            out.string(NFTA_EXPR_NAME, self.name());
            out.nest(NFTA_EXPR_DATA, |out| self.encode_data(out));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Load(_) | Self::LoadInto(..) | Self::StoreMark => "meta",
            Self::LoadCt(_) | Self::StoreCtMark => "ct",
            Self::LoadSource
            | Self::LoadSourceV6
            | Self::LoadDestination
            | Self::LoadDestinationV6
            | Self::FieldInto(..) => "payload",
            Self::Bitwise { .. } | Self::Network(_) | Self::NetworkV6(_) => "bitwise",
            Self::Equals(_)
            | Self::IsAddress(_)
            | Self::IsAddressV6(_)
            | Self::Differs(_)
            | Self::BeginsWith(_) => "cmp",
            Self::FibType(_) | Self::FibSourceIsRoutedBack => "fib",
            Self::Address(_) | Self::Verdict(_) => "immediate",
            Self::SourceNat { .. } | Self::DestinationNat { .. } => "nat",
            Self::IsIn { .. } | Self::Find { .. } => "lookup",
            Self::Masquerade { .. } => "masq",
            Self::Counter => "counter",
        }
    }

    fn encode_data(&self, out: &mut Encoder) {
        match *self {
            Self::Load(key) => {
                out.number(META_KEY, key as u32);
                out.number(META_DREG, REG);
            }
            Self::StoreMark => {
                out.number(META_KEY, Key::Mark as u32);
                out.number(META_SREG, REG);
            }
            Self::LoadCt(key) => {
                out.number(CT_DREG, REG);
                out.number(CT_KEY, key as u32);
            }
            Self::StoreCtMark => {
                out.number(CT_KEY, CtKey::Mark as u32);
                out.number(CT_SREG, REG);
            }
            Self::LoadSource => payload(out, REG, Field::Network(12, 4)),
            Self::LoadSourceV6 => payload(out, REG, Field::Network(8, 16)),
            Self::LoadDestination => payload(out, REG, Field::Network(16, 4)),
            Self::LoadDestinationV6 => payload(out, REG, Field::Network(24, 16)),
            Self::LoadInto(key, register) => {
                out.number(META_KEY, key as u32);
                out.number(META_DREG, register.number());
            }
            Self::FieldInto(field, register) => payload(out, register.number(), field),
            Self::IsIn { set, key } => lookup(out, set, key, None),
            Self::Find { map, key, value } => lookup(out, map, key, Some(value)),
            Self::DestinationNat {
                family,
                address,
                port,
            } => {
                out.number(NAT_TYPE, NAT_DESTINATION);
                out.number(NAT_FAMILY, family_code(family).into());
                out.number(NAT_ADDRESS, address.number());
                out.number(NAT_PORT, port.number());
            }
            Self::Bitwise { mask, xor } => bitwise(out, mask.to_ne_bytes(), xor.to_ne_bytes()),
            Self::Network(length) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                bitwise(out, mask.to_be_bytes(), [0; 4]);
            }
            Self::NetworkV6(length) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                bitwise(out, mask.to_be_bytes(), [0; 16]);
            }
            Self::Equals(wanted) => compare(out, CMP_EQ, &wanted.to_ne_bytes()),
            Self::IsAddress(wanted) => compare(out, CMP_EQ, &wanted.octets()),
            Self::IsAddressV6(wanted) => compare(out, CMP_EQ, &wanted.octets()),
            Self::Differs(unwanted) => compare(out, CMP_NEQ, &unwanted.to_ne_bytes()),
            // Shorter than the register's contents: only this part is compared.
            Self::BeginsWith(name) => compare(out, CMP_EQ, name.as_bytes()),
            Self::FibType(what) => {
                let flags = match what {
                    FibType::Destination => FIB_DADDR,
                    FibType::DestinationOnInput => FIB_DADDR | FIB_IIF,
                    FibType::SourceOnOutput => FIB_SADDR | FIB_OIF,
                };
                fib(out, FIB_RESULT_ADDRTYPE, flags);
            }
            Self::FibSourceIsRoutedBack => {
                fib(out, FIB_RESULT_OIF, FIB_SADDR | FIB_IIF | FIB_PRESENT)
            }
            Self::Address(address) => {
                out.number(IMMEDIATE_DREG, REG);
                bytes(out, IMMEDIATE_DATA, &address.octets());
            }
            Self::SourceNat { flags } => {
                out.number(NAT_TYPE, NAT_SOURCE);
                out.number(NAT_FAMILY, NFPROTO_IPV4);
                out.number(NAT_ADDRESS, REG);
                if flags != 0 {
                    out.number(NAT_FLAGS, flags);
                }
            }
            Self::Masquerade { flags } => out.number(MASQ_FLAGS, flags),
            // It starts at 0.
            Self::Counter => {}
            Self::Verdict(verdict) => {
                out.number(IMMEDIATE_DREG, REG_VERDICT);
                out.nest(IMMEDIATE_DATA, |out| verdict.encode(out));
            }
        }
    }
}

impl Verdict<'_> {
    fn encode(&self, out: &mut Encoder) {
        const VERDICT_CODE: u16 = 1;
        const VERDICT_CHAIN: u16 = 2;
        let (code, chain): (i32, _) = match *self {
            Self::Drop => (0, None),
            Self::Return => (-5, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
        };
        out.nest(NFTA_DATA_VERDICT, |out| {
            out.number(VERDICT_CODE, code.cast_unsigned());
            if let Some(chain) = chain {
                out.string(VERDICT_CHAIN, chain);
            }
        });
    }
}

/// A constant of any width. Addresses are in network byte order in registers too.
fn bytes(out: &mut Encoder, kind: u16, value: &[u8]) {
    out.nest(kind, |out| out.bytes(NFTA_DATA_VALUE, value));
}

fn payload(out: &mut Encoder, register: u32, field: Field) {
    let (base, offset, len) = match field {
        Field::Network(offset, len) => (PAYLOAD_NETWORK_HEADER, offset, len),
        Field::Transport(offset, len) => (PAYLOAD_TRANSPORT_HEADER, offset, len),
    };
    out.number(PAYLOAD_DREG, register);
    out.number(PAYLOAD_BASE, base);
    out.number(PAYLOAD_OFFSET, offset);
    out.number(PAYLOAD_LEN, len);
}

fn lookup(out: &mut Encoder, set: &str, key: Register, value: Option<Register>) {
    out.string(LOOKUP_SET, set);
    out.number(LOOKUP_SREG, key.number());
    if let Some(value) = value {
        out.number(LOOKUP_DREG, value.number());
    }
}

fn bitwise<const N: usize>(out: &mut Encoder, mask: [u8; N], xor: [u8; N]) {
    out.number(BITWISE_SREG, REG);
    out.number(BITWISE_DREG, REG);
    out.number(BITWISE_LEN, u32::try_from(N).expect("an address"));
    bytes(out, BITWISE_MASK, &mask);
    bytes(out, BITWISE_XOR, &xor);
}

fn compare(out: &mut Encoder, operator: u32, with: &[u8]) {
    out.number(CMP_SREG, REG);
    out.number(CMP_OP, operator);
    bytes(out, CMP_DATA, with);
}

fn fib(out: &mut Encoder, result: u32, flags: u32) {
    out.number(FIB_FLAGS, flags);
    out.number(FIB_RESULT, result);
    out.number(FIB_DREG, REG);
}

// Attribute numbers, from linux/netfilter/nf_tables.h.
const META_DREG: u16 = 1;
const META_KEY: u16 = 2;
const META_SREG: u16 = 3;
const BITWISE_SREG: u16 = 1;
const BITWISE_DREG: u16 = 2;
const BITWISE_LEN: u16 = 3;
const BITWISE_MASK: u16 = 4;
const BITWISE_XOR: u16 = 5;
const CMP_SREG: u16 = 1;
const CMP_OP: u16 = 2;
const CMP_DATA: u16 = 3;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const CT_DREG: u16 = 1;
const CT_KEY: u16 = 2;
const CT_SREG: u16 = 4;
const FIB_DREG: u16 = 1;
const FIB_RESULT: u16 = 2;
const FIB_FLAGS: u16 = 3;
const FIB_RESULT_OIF: u32 = 1;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_SADDR: u32 = 1;
const FIB_DADDR: u32 = 2;
const FIB_IIF: u32 = 8;
const FIB_OIF: u32 = 16;
const FIB_PRESENT: u32 = 32;
const NAT_TYPE: u16 = 1;
const NAT_FAMILY: u16 = 2;
const NAT_ADDRESS: u16 = 3;
const NAT_PORT: u16 = 5;
const NAT_FLAGS: u16 = 7;
const NAT_SOURCE: u32 = 0;
const MASQ_FLAGS: u16 = 1;
const NAT_DESTINATION: u32 = 1;
const NFPROTO_IPV4: u32 = 2;
const PAYLOAD_DREG: u16 = 1;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LEN: u16 = 4;
const PAYLOAD_NETWORK_HEADER: u32 = 1;
const PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const LOOKUP_SET: u16 = 1;
const LOOKUP_SREG: u16 = 2;
const LOOKUP_DREG: u16 = 3;
const IMMEDIATE_DREG: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
