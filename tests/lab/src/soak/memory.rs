//! The resources that the daemons use over time.

use std::{collections::BTreeMap, fs, io, time::Duration};

use super::ground::{Ground, Site, now};

/// A measurement of a daemon. Sizes in KiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub site: usize,
    /// The process of the daemon.
    pub pid: u32,
    /// Total resident memory.
    pub resident: u64,
    /// Resident private memory, not mapped from files.
    pub own: u64,
    pub descriptors: usize,
    /// Since the soak started.
    pub at: Duration,
}

const EVERY: Duration = Duration::from_secs(5);

pub(super) fn watch(sites: &[Site], ground: &Ground) {
    let begun = now();
    while !ground.over.wait(EVERY) {
        for site in sites {
            // A daemon that is just ending may be missing from /proc.
            if let Ok(sample) = look(site, begun.elapsed()) {
                ground.sample(sample);
            }
        }
    }
}

pub(super) fn look(site: &Site, at: Duration) -> io::Result<Sample> {
    let pid = site.node().pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let size = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| io::Error::other(format!("no {field} in the status of {pid}")))
    };
    Ok(Sample {
        site: site.number,
        pid,
        resident: size("VmRSS:")?,
        own: size("RssAnon:")?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
        at,
    })
}

/// The samples of the process that ran longest.
pub(super) fn longest_life(samples: &[Sample]) -> Vec<Sample> {
    let mut lives = BTreeMap::<(usize, u32), Vec<Sample>>::new();
    for sample in samples {
        let life = lives.entry((sample.site, sample.pid)).or_default();
        life.push(*sample);
    }
    lives.into_values().max_by_key(Vec::len).unwrap_or_default()
}

/// How much the daemon itself grew, in KiB: the maximum of its second sixth compared with the maximum of its last. A
/// pool, an SDK and their buffers reach their size in the first.
pub(super) fn growth(life: &[Sample]) -> i64 {
    let sixth = life.len() / 6;
    let most = |part: &[Sample]| part.iter().map(|sample| sample.own).max().unwrap_or(0);
    let (early, late) = (&life[sixth..2 * sixth], &life[life.len() - sixth..]);
    most(late).cast_signed() - most(early).cast_signed()
}
