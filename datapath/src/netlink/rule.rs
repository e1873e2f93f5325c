//! Policy routing rules. Builds requests and parses answers; makes no decisions.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::{Error, Family, Request, Socket, family};
use crate::constants::PROTOCOL;

/// A rule that sends matching packets to a table. Two rules with the same priority can differ only in their match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The family of the packets.
    pub family: Family,
    /// Lower values come first.
    pub priority: u32,
    /// The table for the lookup.
    pub table: u32,
    /// Value and mask of the packet mark.
    pub mark: Option<(u32, u32)>,
    /// Source prefix.
    pub from: Option<IpNet>,
    /// Destination prefix.
    pub to: Option<IpNet>,
    /// Name of the incoming link.
    pub iif: Option<String>,
    /// The program that created it; 0 if the kernel does not report it (before 4.17).
    pub protocol: u8,
}

impl Rule {
    /// All packets of `family` → `table`. With our protocol.
    #[must_use]
    pub const fn all(family: Family, priority: u32, table: u32) -> Self {
        Self {
            family,
            priority,
            table,
            mark: None,
            from: None,
            to: None,
            iif: None,
            protocol: PROTOCOL,
        }
    }

    /// Packets of `family` whose mark is `value` under `mask` → `table`.
    #[must_use]
    pub fn mark(family: Family, priority: u32, value: u32, mask: u32, table: u32) -> Self {
        Self {
            mark: Some((value, mask)),
            ..Self::all(family, priority, table)
        }
    }

    /// Packets from the host address `from` → `table`.
    #[must_use]
    pub fn from(priority: u32, from: impl Into<IpAddr>, table: u32) -> Self {
        let from = from.into();
        Self {
            from: Some(from.into()),
            ..Self::all(Family::of(from), priority, table)
        }
    }

    /// Parses a `RTM_NEWRULE` or `RTM_DELRULE`; `None` for any other message or family, and for rules without a table.
    #[must_use]
    pub fn from_message(message: &RouteNetlinkMessage) -> Option<Self> {
        let (RouteNetlinkMessage::NewRule(message) | RouteNetlinkMessage::DelRule(message)) =
            message
        else {
            return None;
        };
        let header = &message.header;
        if header.action != RuleAction::ToTable {
            return None;
        }
        let mut rule = Self {
            protocol: 0,
            ..Self::all(family::from_code(header.family)?, 0, header.table.into())
        };
        // The kernel omits the mask if it is all ones, and both if there is no mark.
        let (mut mark, mut mask) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Table(table) => rule.table = *table,
                RuleAttribute::FwMark(value) => mark = Some(*value),
                RuleAttribute::FwMask(value) => mask = Some(*value),
                RuleAttribute::Source(ip) => rule.from = IpNet::new(*ip, header.src_len).ok(),
                RuleAttribute::Destination(ip) => rule.to = IpNet::new(*ip, header.dst_len).ok(),
                RuleAttribute::Iifname(name) => rule.iif = Some(name.clone()),
                RuleAttribute::Protocol(protocol) => rule.protocol = (*protocol).into(),
                _ => {}
            }
        }
        if mark.is_some() || mask.is_some_and(|m| m != 0) {
            rule.mark = Some((mark.unwrap_or(0), mask.unwrap_or(u32::MAX)));
        }
        Some(rule)
    }

    /// The same match, priority and table, with any protocol: the kernel would not distinguish the two.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        *self
            == Self {
                protocol: self.protocol,
                ..other.clone()
            }
    }
}

/// Adds the rule; `EEXIST` if an equal one exists.
#[must_use]
pub fn add(rule: &Rule) -> Request {
    Request::create("rule add", RouteNetlinkMessage::NewRule(message(rule)))
}

/// Removes the first rule that matches in all given properties; `ENOENT` if there is none.
#[must_use]
pub fn del(rule: &Rule) -> Request {
    Request::ack("rule del", RouteNetlinkMessage::DelRule(message(rule)), 0)
}

/// Lists all rules of a family.
#[must_use]
pub fn dump(family: Family) -> Request {
    let mut message = RuleMessage::default();
    message.header.family = family::code(family);
    Request::dump("rule dump", RouteNetlinkMessage::GetRule(message))
}

impl Socket {
    /// All rules of a family in the namespace that have a table, in the order in which the kernel evaluates them.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub fn rules(&mut self, family: Family) -> Result<Vec<Rule>, Error> {
        self.dump(&dump(family), Rule::from_message)
    }
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family::code(rule.family);
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or(0);
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    if rule.table > 255 {
        attributes.push(RuleAttribute::Table(rule.table));
    }
    if let Some((value, mask)) = rule.mark {
        attributes.extend([RuleAttribute::FwMark(value), RuleAttribute::FwMask(mask)]);
    }
    if let Some(net) = rule.from {
        message.header.src_len = net.prefix_len();
        attributes.push(RuleAttribute::Source(net.addr()));
    }
    if let Some(net) = rule.to {
        message.header.dst_len = net.prefix_len();
        attributes.push(RuleAttribute::Destination(net.addr()));
    }
    attributes.extend(rule.iif.clone().map(RuleAttribute::Iifname));
    if rule.protocol != 0 {
        attributes.push(RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)));
    }
    message
}
