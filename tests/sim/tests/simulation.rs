//! 2400 node lives, a fifth of them IPv6, in four parallel parts, and the proof that a seed is reproducible.

use sim::{
    campaign, crash,
    faults::Fault,
    run::{TraceDetail, live},
};
use stdout::outln;

const SEEDS: u64 = 2400;
const PARTS: u64 = 4;

fn part(number: u64) {
    let size = SEEDS / PARTS;
    let seeds = number * size..(number + 1) * size;
    let report =
        campaign::run_all(seeds, 1, |line| outln!("{line}")).expect("standard output is open");
    outln!("{report}").expect("standard output is open");
    assert!(
        report.failures.is_empty(),
        "{} seeds failed",
        report.failures.len()
    );
    // Some kinds are rare. One part, whose seeds are as good as any, shows that all of them still happen.
    if number == 0 {
        let missing: Vec<_> = report.tally.missing().map(Fault::name).collect();
        assert!(missing.is_empty(), "faults that never struck: {missing:?}");
    }
}

#[test]
fn part_0() {
    part(0);
}

#[test]
fn part_1() {
    part(1);
}

#[test]
fn part_2() {
    part(2);
}

#[test]
fn part_3() {
    part(3);
}

#[test]
fn a_seed_always_gives_the_same_run() {
    for seed in 0..20 {
        let (first, second) = (live(seed, TraceDetail::None), live(seed, TraceDetail::All));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.tally, second.tally, "seed {seed}");
    }
}

/// The points of every run with ADD, DEL, growth and shrinking; each at least once.
const KINDS: [&str; 26] = [
    "CreateNetworkInterface pending",
    "CreateNetworkInterface applied",
    "CreateNetworkInterface answered",
    "AttachNetworkInterface pending",
    "AttachNetworkInterface applied",
    "AttachNetworkInterface answered",
    "ModifyNetworkInterfaceAttribute applied",
    "AssignPrivateIpAddresses pending",
    "AssignPrivateIpAddresses applied",
    "AssignPrivateIpAddresses answered",
    "UnassignPrivateIpAddresses pending",
    "UnassignPrivateIpAddresses applied",
    "UnassignPrivateIpAddresses answered",
    "DetachNetworkInterface applied",
    "DeleteNetworkInterface applied",
    "DescribeNetworkInterfaces answered",
    "commit pending",
    "commit made",
    "setting up ENI",
    "ENI set up",
    "ENI removed",
    "veth done",
    "pod side done",
    "host route done",
    "unroute done",
    "unlink done",
];

fn crash_everywhere(faults: &[Fault], first: usize, stride: usize) {
    let report = crash::enumerate(faults, first, stride);
    outln!("{report}").expect("standard output is open");
    assert_eq!(report.failures, Vec::<String>::new());
    let wanted = (first..report.points.len()).step_by(stride).count();
    assert_eq!(
        report.covered, wanted,
        "points that no daemon was killed at"
    );
    if faults.is_empty() {
        let absent = |kind: &&&str| !report.points.iter().any(|point| point == **kind);
        let absent: Vec<_> = KINDS.iter().filter(absent).collect();
        assert!(absent.is_empty(), "the life does not pass {absent:?}");
    }
}

#[test]
fn a_daemon_killed_at_any_point_loses_and_leaks_nothing() {
    crash_everywhere(&[], 0, 1);
}

/// The same with another fault at the same time. Every fourth point, each time from another one; `make sim CRASH=all`
/// runs all of them.
macro_rules! crash_and {
    ($($name:ident from $first:literal: $($fault:ident),+;)*) => {
        $(#[test]
        fn $name() {
            crash_everywhere(&[$(Fault::$fault),+], $first, 4);
        })*
    };
}

crash_and! {
    crash_and_lost_replies from 0: LostReply;
    crash_and_lost_requests from 1: Unsent;
    crash_and_errors_that_took_effect from 2: InternalApplied, Truncated;
    crash_and_throttling from 3: Throttled;
    crash_and_old_lists from 0: Stale, Fresh;
    crash_and_an_unwilling_host from 1: HostFails, WireFails;
    crash_and_partial_answers from 2: Partial, LinkLate;
    crash_and_a_denied_assign from 3: Denied;
    crash_and_a_refused_assign from 0: Lasting;
}
