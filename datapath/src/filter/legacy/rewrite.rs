//! Removing chains and rules from tables of the older iptables, as its own programs do it: under their lock, the table is read
//! and replaced as a whole, and the rules that stay get their counters back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, TryLockError},
    io,
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::Duration,
};

use nix::{errno::Errno, libc};

use super::{Layout, Table, failed, half, layout, name, number, put_name, socket_of, tables};
use crate::{
    filter::{LegacyError, OfLegacy},
    netlink::{Error, Family},
};

/// What every program locks that changes such a table.
const LOCK: &str = "/run/xtables.lock";
/// Ten seconds: others hold it for milliseconds, and the daemon serves no pods yet.
const ATTEMPTS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(50);
const REPLACE: libc::c_int = 64;
const ADD_COUNTERS: libc::c_int = 65;
const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// `struct xt_entry_target`, before what is of the target itself: a verdict, or the name of a chain.
const TARGET: usize = 32;
/// `struct ipt_replace` and `struct xt_counters_info`, before their lists.
const REPLACE_HEAD: usize = 96;
const COUNTERS_HEAD: usize = 40;
/// `struct xt_counters`: packets and bytes.
const COUNTER: usize = 16;

/// Removes `wanted` from every table, and returns each object as text.
pub fn remove(family: Family, wanted: &OfLegacy<'_>) -> Result<Vec<String>, LegacyError> {
    let layout = layout(family);
    if rests(layout, wanted)?.is_empty() {
        return Ok(Vec::new());
    }
    // What others change while the lock is held is undone by our replacement.
    let _lock = lock(LOCK, ATTEMPTS).map_err(LegacyError::Lock)?;
    let mut removed = Vec::new();
    for (table, rest) in rests(layout, wanted)? {
        replace(layout, &table, &rest)?;
        removed.extend(rest.removed);
    }
    Ok(removed)
}

/// Waits for the programs that change a table at the moment, but not for one that hangs.
fn lock(path: &str, attempts: u32) -> io::Result<File> {
    let file = File::options().read(true).write(true).open(path)?;
    for _ in 0..attempts {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    let told = "another program holds it";
    Err(io::Error::new(io::ErrorKind::TimedOut, told))
}

/// The tables that have something of `wanted`, each with what stays of it.
fn rests(layout: &Layout, wanted: &OfLegacy<'_>) -> Result<Vec<(Table, Rest)>, Error> {
    let with_rest = tables(layout)?.into_iter().filter_map(|table| {
        let rest = without(&table, layout, wanted)?;
        Some((table, rest))
    });
    Ok(with_rest.collect())
}

/// A table after the removal.
#[derive(Debug, Default)]
struct Rest {
    entries: Vec<u8>,
    /// The positions of its entries in the old table.
    kept: Vec<usize>,
    /// Where the entries of each hook begin, and where its policy is.
    hooks: [u32; 5],
    policies: [u32; 5],
    removed: Vec<String>,
}

/// A rule, a policy, or the beginning of a chain.
struct Entry<'a> {
    at: u32,
    bytes: &'a [u8],
    target: usize,
    chain: String,
    /// It only carries the name of a chain.
    begins: bool,
}

impl Entry<'_> {
    /// Where it jumps to.
    fn jump(&self) -> Option<u32> {
        let target = self.bytes.get(self.target..)?;
        let plain = name(target.get(2..31)?).is_empty();
        let to = number(target, TARGET)?;
        (plain && to.cast_signed() >= 0).then_some(to)
    }

    fn mentions(&self, texts: &[&str]) -> bool {
        let within = |text: &&str| {
            let mut windows = self.bytes.windows(text.len());
            windows.any(|bytes| bytes == text.as_bytes())
        };
        texts.iter().any(within)
    }
}

/// `None` if nothing would be removed, or if the table is of a form that is not known.
fn without(table: &Table, layout: &Layout, wanted: &OfLegacy<'_>) -> Option<Rest> {
    let entries = split(table, layout)?;
    let theirs = |chain: &str| wanted.chains.iter().any(|start| chain.starts_with(start));
    let begins = entries.iter().filter(|e| e.begins && theirs(&e.chain));
    let first_rule = |e: &Entry<'_>| Some(e.at + u32::try_from(e.bytes.len()).ok()?);
    let doomed: BTreeSet<u32> = begins.filter_map(first_rule).collect();
    let goes = |entry: &Entry<'_>| {
        let leads_there = entry.jump().is_some_and(|to| doomed.contains(&to));
        theirs(&entry.chain) || leads_there || !entry.begins && entry.mentions(wanted.comments)
    };
    let mut rest = Rest::default();
    // The new place of each entry; of one that goes, that of the next one.
    let mut places = BTreeMap::new();
    for (position, entry) in entries.iter().enumerate() {
        places.insert(entry.at, u32::try_from(rest.entries.len()).ok()?);
        if goes(entry) {
            let what = if entry.begins {
                "chain"
            } else {
                "rule of chain"
            };
            let shown = format!("iptables-legacy {} {what} {}", table.name, entry.chain);
            rest.removed.push(shown);
        } else {
            rest.kept.push(position);
            rest.entries.extend(entry.bytes);
        }
    }
    if rest.removed.is_empty() {
        return None;
    }
    for position in &rest.kept {
        let entry = &entries[*position];
        if let Some(to) = entry.jump() {
            let at = usize::try_from(places[&entry.at]).ok()? + entry.target + TARGET;
            let to = places.get(&to)?.to_ne_bytes();
            rest.entries.get_mut(at..at + 4)?.copy_from_slice(&to);
        }
    }
    let moved = |at: usize, hook: usize| {
        let old = number(&table.info, at + 4 * hook)?;
        Some(places.get(&old).copied().unwrap_or(old))
    };
    for hook in 0..HOOKS.len() {
        rest.hooks[hook] = moved(36, hook)?;
        rest.policies[hook] = moved(56, hook)?;
    }
    Some(rest)
}

fn split<'a>(table: &'a Table, layout: &Layout) -> Option<Vec<Entry<'a>>> {
    let valid = number(&table.info, 32)?;
    let mut found = Vec::new();
    let mut chain = String::new();
    let mut at = 0;
    while let Some(entry) = table.entries.get(at..).filter(|left| !left.is_empty()) {
        let next = usize::from(half(entry, layout.next)?);
        let bytes = entry.get(..next).filter(|_| next >= layout.size)?;
        let place = u32::try_from(at).ok()?;
        for (hook, base) in HOOKS.into_iter().enumerate() {
            if valid & (1 << hook) != 0 && number(&table.info, 36 + 4 * hook)? == place {
                base.clone_into(&mut chain);
            }
        }
        let target = usize::from(half(entry, layout.target)?);
        let begins = name(bytes.get(target + 2..target + 31)?) == "ERROR";
        if begins {
            chain = name(bytes.get(target + TARGET..)?);
        }
        found.push(Entry {
            at: place,
            bytes,
            target,
            chain: chain.clone(),
            begins,
        });
        at += next;
    }
    Some(found)
}

/// Fails with `EAGAIN` if somebody without the lock has changed the number of rules.
fn replace(layout: &Layout, table: &Table, rest: &Rest) -> Result<(), Error> {
    let fd = socket_of(layout)?;
    let before = number(&table.info, 76).unwrap_or(0);
    // The kernel stores there what the old rules have counted.
    let words = usize::try_from(before).unwrap_or(0) * COUNTER / size_of::<u64>();
    let mut counted = vec![0_u64; words];
    let mut request = vec![0; 32];
    put_name(&mut request, &table.name);
    let size = u32::try_from(rest.entries.len()).unwrap_or(u32::MAX);
    let count = u32::try_from(rest.kept.len()).unwrap_or(u32::MAX);
    let valid = number(&table.info, 32).unwrap_or(0);
    let fields = [valid, count, size].into_iter();
    let fields = fields
        .chain(rest.hooks)
        .chain(rest.policies)
        .chain([before]);
    fields.for_each(|field| request.extend(field.to_ne_bytes()));
    // Exposed, because the kernel writes through this address.
    request.extend(counted.as_mut_ptr().expose_provenance().to_ne_bytes());
    debug_assert_eq!(request.len(), REPLACE_HEAD, "struct ipt_replace");
    request.extend(&rest.entries);
    tell(&fd, layout.level, REPLACE, &request).map_err(failed)?;
    let mut counters = vec![0; COUNTERS_HEAD];
    put_name(&mut counters, &table.name);
    counters[32..36].copy_from_slice(&count.to_ne_bytes());
    for position in &rest.kept {
        let both = counted.get(2 * position..2 * position + 2);
        both.unwrap_or(&[0, 0])
            .iter()
            .for_each(|word| counters.extend(word.to_ne_bytes()));
    }
    tell(&fd, layout.level, ADD_COUNTERS, &counters).map_err(failed)
}

fn tell(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, bytes: &[u8]) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(bytes.len()).map_err(|_| Errno::E2BIG)?;
    #[expect(unsafe_code, reason = "a socket option that nix does not wrap")]
    // SAFETY: the kernel reads `length` bytes, which `bytes` has. The address in a replacement is that of a buffer with room for
    // the counters of all old rules, and both live through the call.
    let done =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, bytes.as_ptr().cast(), length) };
    Errno::result(done).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_another_program_keeps_is_an_error_and_no_endless_wait() {
        let path = std::env::temp_dir().join(format!("xtables-{}.lock", std::process::id()));
        let path = path.to_str().unwrap();
        assert_eq!(lock(path, 1).unwrap_err().kind(), io::ErrorKind::NotFound);
        let held = File::create(path).unwrap();
        held.lock().unwrap();
        let error = lock(path, 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        drop(held);
        lock(path, 1).unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
