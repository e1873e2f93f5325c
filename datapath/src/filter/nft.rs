//! Rulesets of nftables, including those of iptables on top of it: decodes the parts that affect a forwarded packet.

use std::collections::BTreeMap;

use netlink_packet_core::NlasIterator;

use super::{
    Blocked, Packet,
    chains::{Action, Chains, Fit, Rule, walk},
    xt,
};
use crate::{
    marks::Marks,
    netlink::{Error, Family},
    nft::{
        Nft,
        list::{attribute, family_name, text},
    },
};

const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const NFGENMSG: usize = 4;
const INET: u8 = 1;
const TCP: u8 = 6;
/// Table of Hawser in each family.
const OWN: &str = "hawser";

/// A base chain: name, and whether its policy is drop.
type Base = (String, bool);

/// One table's chains, and the hooks that a forwarded packet passes.
#[derive(Default)]
struct Table {
    chains: Chains,
    bases: Vec<Base>,
}

pub fn blocked(packet: &Packet<'_>) -> Result<Vec<Blocked>, Error> {
    let mut nft = match Nft::open() {
        Ok(nft) => nft,
        // A kernel without nftables has no such rules.
        Err(_) => return Ok(Vec::new()),
    };
    let mut tables: BTreeMap<(u8, String), Table> = BTreeMap::new();
    nft.dump(GET_CHAIN, |_, payload| {
        if let Some((key, name, base)) = chain(payload, packet) {
            let table = tables.entry(key).or_default();
            table.chains.entry(name).or_default();
            table.bases.extend(base);
        }
    })?;
    nft.dump(GET_RULE, |_, payload| {
        if let Some((key, name, rule)) = rule(payload, packet) {
            let table = tables.entry(key).or_default();
            table.chains.entry(name).or_default().push(rule);
        }
    })?;
    let mut found = Vec::new();
    for ((family, name), table) in &tables {
        for (chain, drops) in &table.bases {
            if let Some(why) = walk(&table.chains, chain, *drops) {
                found.push(Blocked {
                    backend: "nft",
                    table: format!("{} {name}", family_name(*family)),
                    chain: chain.clone(),
                    why,
                });
            }
        }
    }
    Ok(found)
}

/// The table of an object, if the packet passes through it.
fn table_of(payload: &[u8], packet: &Packet<'_>) -> Option<(u8, String)> {
    let family = *payload.first()?;
    let own = match packet.family {
        Family::V4 => 2,
        Family::V6 => 10,
    };
    let name = text(payload.get(NFGENMSG..)?, 1)?;
    (matches!(family, INET) || family == own).then_some(())?;
    (name != OWN).then_some((family, name))
}

fn big_endian(object: &[u8], wanted: u16) -> Option<u32> {
    Some(u32::from_be_bytes(
        attribute(object, wanted)?.try_into().ok()?,
    ))
}

fn chain(payload: &[u8], packet: &Packet<'_>) -> Option<((u8, String), String, Option<Base>)> {
    /// Prerouting, forward, postrouting.
    const HOOKS: [u32; 3] = [0, 2, 4];
    let key = table_of(payload, packet)?;
    let object = payload.get(NFGENMSG..)?;
    let name = text(object, 3)?;
    let hook = attribute(object, 4).and_then(|hook| big_endian(&hook, 1));
    let base = hook
        .filter(|hook| HOOKS.contains(hook))
        .map(|_| (name.clone(), big_endian(object, 5) == Some(0)));
    Some((key, name, base))
}

fn rule(payload: &[u8], packet: &Packet<'_>) -> Option<((u8, String), String, Rule)> {
    let key = table_of(payload, packet)?;
    let object = payload.get(NFGENMSG..)?;
    let chain = text(object, 2)?;
    let list = attribute(object, 4).unwrap_or_default();
    let mut decoder = Decoder {
        packet,
        registers: BTreeMap::new(),
        fit: Fit::Yes,
        action: Action::Continue,
    };
    for expression in NlasIterator::new(&list[..]).flatten() {
        let name = text(expression.value(), 1)?;
        let data = attribute(expression.value(), 2).unwrap_or_default();
        decoder.expression(&name, &data);
    }
    let Decoder { fit, action, .. } = decoder;
    Some((key, chain, Rule { fit, action }))
}

/// What a register holds.
#[derive(Clone, Debug)]
enum Value {
    /// These bytes, followed by zeros.
    Bytes(Vec<u8>),
    /// The packet's mark under this mask.
    Mark(u32),
    /// The states of the connection, of which it has [`xt::NEW`] alone, under this mask.
    State(u32),
}

/// Decides one rule, expression by expression.
struct Decoder<'a> {
    packet: &'a Packet<'a>,
    registers: BTreeMap<u32, Value>,
    fit: Fit,
    action: Action,
}

impl Decoder<'_> {
    fn expression(&mut self, name: &str, data: &[u8]) {
        match name {
            "meta" => self.load(data, 1, 2, Self::meta),
            "ct" => self.load(data, 1, 2, |_, key| {
                (key == 0).then_some(Value::State(u32::MAX))
            }),
            "payload" => self.payload(data),
            "bitwise" => self.bitwise(data),
            "cmp" => self.compare(data),
            "lookup" => self.lookup(data),
            "immediate" => self.immediate(data),
            "reject" => self.action = Action::Drop,
            "queue" => self.action = Action::Unknown,
            "match" => {
                let info = attribute(data, 3).unwrap_or_default();
                let fit = xt::fits(&text(data, 1).unwrap_or_default(), &info, self.packet.marks);
                self.fit = self.fit.and(fit);
            }
            "target" => self.action = xt::target(&text(data, 1).unwrap_or_default()),
            "counter" | "log" | "nat" | "masq" | "redir" | "notrack" | "objref" | "last" => {}
            _ => self.fit = self.fit.and(Fit::Perhaps),
        }
    }

    fn load(
        &mut self,
        data: &[u8],
        register: u16,
        key: u16,
        value: impl Fn(&Self, u32) -> Option<Value>,
    ) {
        // Without a target register, it sets a property of the packet, such as the mark.
        let Some(register) = big_endian(data, register) else {
            return;
        };
        let value = big_endian(data, key).and_then(|key| value(self, key));
        self.registers.remove(&register);
        if let Some(value) = value {
            self.registers.insert(register, value);
        }
    }

    fn meta(&self, key: u32) -> Option<Value> {
        let family = match self.packet.family {
            Family::V4 => 2,
            Family::V6 => 10,
        };
        match key {
            3 => Some(Value::Mark(u32::MAX)),
            6 => Some(Value::Bytes(self.packet.iif.as_bytes().to_vec())),
            7 => Some(Value::Bytes(self.packet.oif.as_bytes().to_vec())),
            15 => Some(Value::Bytes(vec![family])),
            16 => Some(Value::Bytes(vec![TCP])),
            _ => None,
        }
    }

    /// Of the IPv4 header, only the protocol is known. iptables compares it this way.
    fn payload(&mut self, data: &[u8]) {
        const NETWORK: u32 = 1;
        let Some(register) = big_endian(data, 1) else {
            return;
        };
        let place = [2, 3, 4].map(|attribute| big_endian(data, attribute));
        self.registers.remove(&register);
        if self.packet.family == Family::V4 && place == [Some(NETWORK), Some(9), Some(1)] {
            self.registers.insert(register, Value::Bytes(vec![TCP]));
        }
    }

    fn bitwise(&mut self, data: &[u8]) {
        let (Some(from), Some(to)) = (big_endian(data, 1), big_endian(data, 2)) else {
            return;
        };
        let value = self.registers.remove(&from);
        let mask = attribute(data, 4).and_then(|mask| attribute(&mask, 1));
        let mask = mask.and_then(|mask| mask.try_into().ok().map(u32::from_ne_bytes));
        let masked = match (value, mask) {
            (Some(Value::Mark(_)), Some(mask)) => Some(Value::Mark(mask)),
            (Some(Value::State(_)), Some(mask)) => Some(Value::State(mask)),
            _ => None,
        };
        self.registers.remove(&to);
        if let Some(value) = masked {
            self.registers.insert(to, value);
        }
    }

    fn compare(&mut self, data: &[u8]) {
        const EQUAL: u32 = 0;
        const UNEQUAL: u32 = 1;
        let wanted = attribute(data, 3).and_then(|wanted| attribute(&wanted, 1));
        let value = big_endian(data, 1).and_then(|register| self.registers.get(&register));
        let fit = match (value, wanted) {
            (Some(value), Some(wanted)) => value.equals(&wanted, self.packet.marks),
            _ => Fit::Perhaps,
        };
        let fit = match big_endian(data, 2) {
            Some(EQUAL) => fit,
            Some(UNEQUAL) => fit.not(),
            _ => Fit::Perhaps,
        };
        self.fit = self.fit.and(fit);
    }

    /// A set or a map. Sets and maps of connection states are about existing connections, so a packet of a new connection
    /// continues. The contents of other sets and maps are not read.
    fn lookup(&mut self, data: &[u8]) {
        let source = big_endian(data, 2).and_then(|register| self.registers.get(&register));
        let of_states = matches!(source, Some(Value::State(_)));
        let is_map_to_verdicts = big_endian(data, 3) == Some(0);
        match (of_states, is_map_to_verdicts) {
            (true, _) => self.fit = Fit::No,
            (false, true) => self.action = Action::Unknown,
            (false, false) => self.fit = self.fit.and(Fit::Perhaps),
        }
    }

    fn immediate(&mut self, data: &[u8]) {
        let verdict = attribute(data, 2).and_then(|data| attribute(&data, 2));
        let Some(verdict) = verdict else { return };
        let code = big_endian(&verdict, 1).map(u32::cast_signed);
        let chain = text(&verdict, 2).unwrap_or_default();
        self.action = match code {
            Some(0) => Action::Drop,
            Some(1) => Action::Accept,
            Some(-1) => Action::Continue,
            Some(-3) => Action::Jump(chain),
            Some(-4) => Action::Goto(chain),
            Some(-5) => Action::Return,
            _ => Action::Unknown,
        };
    }
}

impl Value {
    fn equals(&self, wanted: &[u8], marks: Marks) -> Fit {
        let number = |wanted: &[u8]| wanted.try_into().ok().map(u32::from_ne_bytes);
        match self {
            // A value that is shorter than a link's name can be is compared as a prefix.
            Self::Bytes(bytes) => {
                let zeros = std::iter::repeat(&0);
                Fit::of(bytes.iter().chain(zeros).zip(wanted).all(|(a, b)| a == b))
            }
            Self::Mark(mask) => {
                number(wanted).map_or(Fit::Perhaps, |wanted| xt::mark(wanted, *mask, marks))
            }
            Self::State(mask) => {
                number(wanted).map_or(Fit::Perhaps, |wanted| Fit::of(xt::NEW & mask == wanted))
            }
        }
    }
}
