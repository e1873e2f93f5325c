//! Expressions: the instructions of a rule, as far as our rules use them, and their encoding.
//!
//! Every expression works on the kernel's first register, 32 bits wide. Numbers in netfilter attributes are in network
//! byte order; the contents of a register are in the machine's.

use super::batch::Encoder;

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
    InputGroup = 21,
}

/// Where evaluation goes on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict<'a> {
    Drop,
    Return,
    Jump(&'a str),
}

/// One instruction.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expr<'a> {
    /// Load a property of the packet.
    Load(Key),
    /// The register becomes the packet's mark.
    StoreMark,
    /// `register & mask ^ xor`.
    Bitwise { mask: u32, xor: u32 },
    /// Go on with this rule only if the register has this value.
    Equals(u32),
    /// Load the route type (`RTN_*`) of the packet's destination.
    FibDestinationType,
    /// Load 1 if the route to the packet's source leads over the link it came from, 0 otherwise.
    FibSourceIsRoutedBack,
    /// Look the register up in a verdict map and follow it; no element, no verdict.
    VerdictMap(&'a str),
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
            Self::Load(_) | Self::StoreMark => "meta",
            Self::Bitwise { .. } => "bitwise",
            Self::Equals(_) => "cmp",
            Self::FibDestinationType | Self::FibSourceIsRoutedBack => "fib",
            Self::VerdictMap(_) => "lookup",
            Self::Verdict(_) => "immediate",
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
            Self::Bitwise { mask, xor } => {
                out.number(BITWISE_SREG, REG);
                out.number(BITWISE_DREG, REG);
                out.number(BITWISE_LEN, 4);
                value(out, BITWISE_MASK, mask);
                value(out, BITWISE_XOR, xor);
            }
            Self::Equals(wanted) => {
                out.number(CMP_SREG, REG);
                out.number(CMP_OP, CMP_EQ);
                value(out, CMP_DATA, wanted);
            }
            Self::FibDestinationType => fib(out, FIB_RESULT_ADDRTYPE, FIB_DADDR),
            Self::FibSourceIsRoutedBack => {
                fib(out, FIB_RESULT_OIF, FIB_SADDR | FIB_IIF | FIB_PRESENT)
            }
            Self::VerdictMap(map) => {
                out.string(LOOKUP_SET, map);
                out.number(LOOKUP_SREG, REG);
                out.number(LOOKUP_DREG, REG_VERDICT);
            }
            Self::Verdict(verdict) => {
                out.number(IMMEDIATE_DREG, REG_VERDICT);
                out.nest(IMMEDIATE_DATA, |out| verdict.encode(out));
            }
        }
    }
}

impl Verdict<'_> {
    /// As the data of an expression or of a map's element.
    pub(super) fn encode(&self, out: &mut Encoder) {
        const VERDICT_CODE: u16 = 1;
        const VERDICT_CHAIN: u16 = 2;
        let (code, chain): (i32, _) = match *self {
            Self::Drop => (0, None),
            Self::Return => (-5, None),
            Self::Jump(chain) => (-3, Some(chain)),
        };
        out.nest(NFTA_DATA_VERDICT, |out| {
            out.number(VERDICT_CODE, code.cast_unsigned());
            if let Some(chain) = chain {
                out.string(VERDICT_CHAIN, chain);
            }
        });
    }
}

/// A 32-bit constant, to meet a register.
pub(super) fn value(out: &mut Encoder, kind: u16, value: u32) {
    out.nest(kind, |out| out.bytes(NFTA_DATA_VALUE, &value.to_ne_bytes()));
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
const FIB_DREG: u16 = 1;
const FIB_RESULT: u16 = 2;
const FIB_FLAGS: u16 = 3;
const FIB_RESULT_OIF: u32 = 1;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_SADDR: u32 = 1;
const FIB_DADDR: u32 = 2;
const FIB_IIF: u32 = 8;
const FIB_PRESENT: u32 = 32;
const LOOKUP_SET: u16 = 1;
const LOOKUP_SREG: u16 = 2;
const LOOKUP_DREG: u16 = 3;
const IMMEDIATE_DREG: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
