//! Rulesets of the older iptables, read like its own programs read them (`ip_tables.h`, `ip6_tables.h`).
//!
//! [`remove`] alone changes something. May use the rest of `filter`, and `netlink`. Must not know whose rules they are.
//!
//! The kernel creates a table when a program asks for it, so only the tables in `ip_tables_names` are requested. The file is
//! read for the thread, because `/proc/net` shows the namespace of the process.

mod rewrite;

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{
    Blocked, Packet,
    chains::{Action, Chains, Fit, Rule, walk},
    xt,
};
use crate::netlink::{Error, Family};

pub use rewrite::remove;

const OP: &str = "iptables tables";
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
const TCP: u16 = 6;
/// Prerouting, forward, postrouting, with the names of their chains.
const HOOKS: [(usize, &str); 3] = [(0, "PREROUTING"), (2, "FORWARD"), (4, "POSTROUTING")];
/// A limit above the largest known ruleset.
const LARGEST: usize = 64 << 20;

/// The offsets of an entry's parts.
struct Layout {
    level: libc::c_int,
    domain: AddressFamily,
    names: &'static str,
    family: &'static str,
    /// Names of links and their masks: in, out.
    links: [(usize, usize); 2],
    protocol: usize,
    flags: usize,
    inverted: usize,
    /// The masks of the addresses.
    masks: std::ops::Range<usize>,
    target: usize,
    next: usize,
    /// The first match.
    size: usize,
}

const V4: Layout = Layout {
    level: libc::IPPROTO_IP,
    domain: AddressFamily::Inet,
    names: "/proc/thread-self/net/ip_tables_names",
    family: "ip",
    links: [(16, 48), (32, 64)],
    protocol: 80,
    flags: 82,
    inverted: 83,
    masks: 8..16,
    target: 88,
    next: 90,
    size: 112,
};

const V6: Layout = Layout {
    level: libc::IPPROTO_IPV6,
    domain: AddressFamily::Inet6,
    names: "/proc/thread-self/net/ip6_tables_names",
    family: "ip6",
    links: [(64, 96), (80, 112)],
    protocol: 128,
    flags: 131,
    inverted: 132,
    masks: 32..64,
    target: 140,
    next: 142,
    size: 168,
};

/// Flags of the inverted conditions of an entry.
const INV_IN: u8 = 1;
const INV_OUT: u8 = 2;
const INV_PROTOCOL: u8 = 0x40;
/// Flag of a jump that does not return.
const GOTO: u8 = 2;

pub fn blocked(packet: &Packet<'_>) -> Result<Vec<Blocked>, Error> {
    let layout = layout(packet.family);
    let mut found = Vec::new();
    for Table {
        name,
        info,
        entries,
    } in tables(layout)?
    {
        found.extend(judge(&info, &entries, layout, &name, packet));
    }
    Ok(found)
}

pub fn mentions(family: Family, texts: &[&str]) -> Result<bool, Error> {
    let within = |bytes: &[u8]| {
        let mentioned = |text: &&str| bytes.windows(text.len()).any(|b| b == text.as_bytes());
        texts.iter().any(mentioned)
    };
    let all = tables(layout(family))?;
    Ok(all.iter().any(|table| within(&table.entries)))
}

const fn layout(family: Family) -> &'static Layout {
    match family {
        Family::V4 => &V4,
        Family::V6 => &V6,
    }
}

/// A table in the kernel's binary form.
struct Table {
    name: String,
    /// `struct ipt_getinfo`.
    info: Vec<u8>,
    /// Of `struct ipt_get_entries`.
    entries: Vec<u8>,
}

/// All existing tables.
fn tables(layout: &Layout) -> Result<Vec<Table>, Error> {
    let names = fs::read_to_string(layout.names).unwrap_or_default();
    let mut found = Vec::new();
    for name in names.split_whitespace() {
        let fd = socket_of(layout)?;
        let (info, entries) = table(&fd, layout, name)?;
        found.push(Table {
            name: name.to_owned(),
            info,
            entries,
        });
    }
    Ok(found)
}

fn socket_of(layout: &Layout) -> Result<OwnedFd, Error> {
    let (kind, flags) = (SockType::Datagram, SockFlag::SOCK_CLOEXEC);
    socket(layout.domain, kind, flags, None).map_err(failed)
}

const fn failed(errno: Errno) -> Error {
    Error::Socket { op: OP, errno }
}

/// `struct ipt_getinfo` and the entries of `struct ipt_get_entries`.
fn table(fd: &OwnedFd, layout: &Layout, name: &str) -> Result<(Vec<u8>, Vec<u8>), Error> {
    const HEAD: usize = 40;
    // Another program may change the table between the two requests.
    for _ in 0..8 {
        let mut info = vec![0; 84];
        put_name(&mut info, name);
        ask(fd, layout.level, GET_INFO, &mut info).map_err(failed)?;
        let size = number(&info, 80).unwrap_or(0);
        let length = usize::try_from(size).unwrap_or(usize::MAX).min(LARGEST);
        let mut entries = vec![0; HEAD + length];
        put_name(&mut entries, name);
        entries[32..36].copy_from_slice(&size.to_ne_bytes());
        match ask(fd, layout.level, GET_ENTRIES, &mut entries) {
            Ok(()) => return Ok((info, entries.split_off(HEAD))),
            Err(Errno::EAGAIN) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Err(failed(Errno::EAGAIN))
}

fn put_name(bytes: &mut [u8], name: &str) {
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(31)) {
        *to = from;
    }
}

fn ask(
    fd: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    bytes: &mut [u8],
) -> Result<(), Errno> {
    let mut length = libc::socklen_t::try_from(bytes.len()).map_err(|_| Errno::E2BIG)?;
    #[expect(unsafe_code, reason = "a socket option that nix does not wrap")]
    // SAFETY: the kernel writes at most `length` bytes, which `bytes` has, and both live through the call.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            option,
            bytes.as_mut_ptr().cast(),
            &mut length,
        )
    };
    Errno::result(done).map(drop)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

/// The chains of a table that drop the packet.
fn judge(
    info: &[u8],
    entries: &[u8],
    layout: &Layout,
    table: &str,
    packet: &Packet<'_>,
) -> Vec<Blocked> {
    let rules = rules(entries, layout, packet);
    let valid = number(info, 32).unwrap_or(0);
    let mut found = Vec::new();
    for (hook, name) in HOOKS {
        if valid & (1 << hook) == 0 {
            continue;
        }
        let (Some(begin), Some(policy)) =
            (number(info, 36 + 4 * hook), number(info, 56 + 4 * hook))
        else {
            continue;
        };
        let drops = rules
            .get(&policy)
            .is_some_and(|(rule, _)| rule.action == Action::Drop);
        let chains = chains(&rules, begin, policy);
        if let Some(why) = walk(&chains, &begin.to_string(), drops) {
            found.push(Blocked {
                backend: "iptables-legacy",
                table: format!("{} {table}", layout.family),
                chain: name.to_owned(),
                why,
            });
        }
    }
    found
}

/// Rules by their offset, each with the offset of the next one. A jump has the offset of its target.
type Rules = BTreeMap<u32, (Rule, Option<u32>)>;

/// Splits the rules into chains, each named after the offset of its first rule. A jump leads to the start of a chain. A chain
/// ends before the name of the next one (a target `ERROR`), and a base chain ends at its policy.
fn chains(rules: &Rules, base: u32, policy: u32) -> Chains {
    let mut begins = vec![base];
    for (rule, _) in rules.values() {
        if let Action::Jump(to) | Action::Goto(to) = &rule.action {
            begins.extend(to.parse::<u32>().ok());
        }
    }
    let chain = |begin: u32| {
        let mut list = Vec::new();
        let mut at = Some(begin);
        while let Some((rule, next)) = at.filter(|at| *at != policy).and_then(|at| rules.get(&at)) {
            list.push(rule.clone());
            at = *next;
        }
        (begin.to_string(), list)
    };
    begins.into_iter().map(chain).collect()
}

fn rules(entries: &[u8], layout: &Layout, packet: &Packet<'_>) -> Rules {
    let mut rules = Rules::new();
    let mut at = 0;
    while let Some(entry) = entries.get(at..).filter(|entry| entry.len() > layout.size) {
        let next = usize::from(half(entry, layout.next).unwrap_or(0));
        if next < layout.size || next > entry.len() {
            break;
        }
        let entry = &entry[..next];
        let fit = fits(entry, layout, packet);
        let target = usize::from(half(entry, layout.target).unwrap_or(0));
        let (action, ends) = action(entry.get(target..).unwrap_or_default(), entry[layout.flags]);
        let place = u32::try_from(at).unwrap_or(u32::MAX);
        let following = u32::try_from(at + next).ok().filter(|_| !ends);
        rules.insert(place, (Rule { fit, action }, following));
        at += next;
    }
    rules
}

fn fits(entry: &[u8], layout: &Layout, packet: &Packet<'_>) -> Fit {
    let inverted = entry[layout.inverted];
    let mut fit = Fit::Yes;
    let links = [(packet.iif, INV_IN), (packet.oif, INV_OUT)];
    for ((name, inverts), (wanted, mask)) in links.into_iter().zip(layout.links) {
        let matches = xt::link(name, &entry[wanted..wanted + 16], &entry[mask..mask + 16]);
        fit = fit.and(Fit::of(matches != (inverted & inverts != 0)));
    }
    let protocol = half(entry, layout.protocol).unwrap_or(0);
    if protocol != 0 {
        let matches = protocol == TCP;
        fit = fit.and(Fit::of(matches != (inverted & INV_PROTOCOL != 0)));
    }
    if entry[layout.masks.clone()].iter().any(|byte| *byte != 0) {
        fit = fit.and(Fit::Perhaps);
    }
    let target = usize::from(half(entry, layout.target).unwrap_or(0)).min(entry.len());
    let mut at = layout.size;
    while let Some(found) = entry.get(at..target).filter(|found| found.len() >= 32) {
        let size = usize::from(half(found, 0).unwrap_or(0));
        if size < 32 || size > found.len() {
            break;
        }
        fit = fit.and(xt::fits(
            &name(&found[2..31]),
            &found[32..size],
            packet.marks,
        ));
        at += size;
    }
    fit
}

fn name(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The effect of a target, and whether it is the end of a chain.
fn action(target: &[u8], flags: u8) -> (Action, bool) {
    if target.len() < 36 {
        return (Action::Unknown, true);
    }
    let kind = name(&target[2..31]);
    if kind == "ERROR" {
        return (Action::Continue, true);
    }
    if !kind.is_empty() {
        return (xt::target(&kind), false);
    }
    let verdict = number(target, 32).unwrap_or(0).cast_signed();
    let action = match verdict {
        -1 => Action::Drop,
        -2 => Action::Accept,
        -5 => Action::Return,
        to if to >= 0 && flags & GOTO != 0 => Action::Goto(to.to_string()),
        to if to >= 0 => Action::Jump(to.to_string()),
        _ => Action::Unknown,
    };
    (action, false)
}
