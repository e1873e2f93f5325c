//! The resources that the daemons use over time.

use std::{collections::BTreeMap, fs, io, time::Duration};

use super::shared_state::{Sample, SharedState, Site, now};

const EVERY: Duration = Duration::from_secs(5);

pub(super) fn watch(sites: &[Site], shared: &SharedState) {
    let begun = now();
    while !shared.over.wait(EVERY) {
        for site in sites {
            // A daemon that is just ending may be missing from /proc.
            if let Ok(sample) = measure(site, begun.elapsed()) {
                shared.sample(sample);
            }
        }
    }
}

pub(super) fn measure(site: &Site, at: Duration) -> io::Result<Sample> {
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
