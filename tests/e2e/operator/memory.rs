//! The daemon's memory, as the kernel shows it.

use std::fs;

use lab::Lab;
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(all_threads_share_one_memory_arena);

/// glibc reserves this much address space for the arena of a thread, at a multiple of it (`HEAP_MAX_SIZE`).
const ARENA: u64 = 64 << 20;

fn all_threads_share_one_memory_arena() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    drop(node.add_pod("a")?);
    let maps = fs::read_to_string(format!("/proc/{}/maps", node.pid()))?;
    let arenas: Vec<&str> = maps
        .lines()
        .filter(|line| begins_an_arena(line, &maps))
        .collect();
    assert!(arenas.is_empty(), "{arenas:#?}");
    Ok(())
}

/// A writable part at the start of the reserved space, and the rest without access.
fn begins_an_arena(line: &str, maps: &str) -> bool {
    let Some((begin, end)) = range(line) else {
        return false;
    };
    let rest = |other: &str| {
        range(other).is_some_and(|(from, to)| {
            from == end && to == begin + ARENA && other.contains(" ---p ")
        })
    };
    begin % ARENA == 0 && line.contains(" rw-p ") && maps.lines().any(rest)
}

fn range(line: &str) -> Option<(u64, u64)> {
    let (begin, end) = line.split_whitespace().next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(begin)?, number(end)?))
}
