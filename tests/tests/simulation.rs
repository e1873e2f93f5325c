//! Two thousand lives of a node, in eight parts that run beside each other, and the proof that a seed repeats.

use e2e::simulation::{Words, campaign, faults::Fault, live};

const SEEDS: u64 = 2000;
const PARTS: u64 = 8;

fn part(number: u64) {
    let size = SEEDS / PARTS;
    let report = campaign::run_all(number * size..(number + 1) * size, 1, |line| {
        println!("{line}")
    });
    println!("{report}");
    assert!(
        report.failures.is_empty(),
        "{} seeds failed",
        report.failures.len()
    );
    let missing: Vec<_> = report.tally.missing().map(Fault::name).collect();
    assert!(missing.is_empty(), "faults that never struck: {missing:?}");
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
fn part_4() {
    part(4);
}

#[test]
fn part_5() {
    part(5);
}

#[test]
fn part_6() {
    part(6);
}

#[test]
fn part_7() {
    part(7);
}

#[test]
fn a_seed_always_lives_the_same_life() {
    for seed in 0..20 {
        let (first, second) = (live(seed, Words::None), live(seed, Words::All));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.tally, second.tally, "seed {seed}");
    }
}
