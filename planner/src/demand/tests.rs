//! What is learned from which ADDs, and how it decays. The tests of the machine show the pool's behaviour, and the
//! simulation in `benches` measures its value.

use super::*;

fn at(seconds: u64) -> Mono {
    Mono::from_epoch(Duration::from_secs(seconds))
}

/// m5.4xlarge: 29 pod addresses per ENI, 232 in total. The initial expectation of a new node has decayed after 10 000
/// s.
fn watch() -> DemandTracker {
    let mut watch = DemandTracker::new(29, 232);
    watch.learnt.fade(at(10_000));
    watch
}

fn burst(watch: &mut DemandTracker, size: u32, used: u32, seconds: u64) {
    for n in 0..size {
        let pause = Duration::from_millis(u64::from(n) * 20);
        watch.add(used + n, at(seconds) + pause);
    }
}

#[test]
fn a_new_node_expects_pods_and_an_idle_one_goes_down_to_the_minimum() {
    let watch = DemandTracker::new(29, 232);
    assert_eq!(watch.spare(at(0)), 14);
    let fall = watch.next_change(at(0)).unwrap();
    assert_eq!(watch.spare(fall), FLOOR);
    assert_eq!(watch.next_change(fall), None, "and then nothing changes");
}

#[test]
fn a_single_burst_changes_nothing() {
    let mut watch = watch();
    burst(&mut watch, 50, 0, 10_000);
    watch.advance(at(10_100));
    assert_eq!(watch.spare(at(10_100)), FLOOR);
    assert_eq!(watch.learnt.bursts.last().map(|(size, _)| *size), Some(50));
}

#[test]
fn frequent_bursts_are_covered_and_decay_within_hours() {
    let mut watch = watch();
    for n in 0..10 {
        burst(&mut watch, 12, 0, 10_000 + n * 240);
    }
    let end = at(10_000 + 10 * 240);
    watch.advance(end);
    assert_eq!(watch.spare(end), 12);
    assert_eq!(watch.spare(end + Duration::from_secs(600)), 12);
    assert_eq!(watch.spare(end + BURSTS_HALVE * 4), FLOOR);
}

#[test]
fn pods_that_come_and_go_are_a_burst_but_no_surge() {
    let mut watch = watch();
    for n in 0..300 {
        watch.add(20, at(10_000 + n));
    }
    watch.advance(at(11_000));
    let surge = watch.learnt.surge(at(11_000));
    assert_eq!(surge, 1, "each newcomer replaces one that left");
    assert!(watch.learnt.bursts.iter().any(|(size, _)| *size >= 5));
}

#[test]
fn a_run_beyond_the_spare_asks_for_the_surge_of_the_last_night() {
    let mut watch = watch();
    burst(&mut watch, 100, 10, 10_000);
    watch.advance(at(10_100));
    let night = 10_000 + 86_400;
    burst(&mut watch, 2, 10, night);
    assert_eq!(watch.target(at(night)).low, 1, "two pods are nothing new");
    burst(&mut watch, 10, 12, night + 1);
    let low = watch.target(at(night + 1)).low;
    assert!((90..=113).contains(&low), "{low}");
}

#[test]
fn an_unknown_surge_is_met_at_its_rate_and_by_one_eni_at_most() {
    let mut watch = watch();
    burst(&mut watch, 3, 0, 10_000);
    assert_eq!(
        watch.target(at(10_000)).low,
        18,
        "three a second for six seconds"
    );
    burst(&mut watch, 30, 3, 10_001);
    assert_eq!(watch.target(at(10_001)).low, 29);
}

#[test]
fn delivery_is_smoothed_and_bounded() {
    let mut watch = watch();
    assert_eq!(watch.learnt.expected(), DELIVERY);
    watch.delivered(Duration::from_secs(4));
    watch.delivered(Duration::from_secs(8));
    assert_eq!(watch.learnt.delivery, Some(Duration::from_secs(5)));
    for _ in 0..50 {
        watch.delivered(Duration::from_secs(3600));
    }
    assert!(watch.learnt.expected() <= DELIVERY_BOUNDS.1);
}

#[test]
fn the_spare_never_exceeds_the_node() {
    let mut watch = DemandTracker::new(3, 9);
    for n in 0..20 {
        burst(&mut watch, 40, 0, 10_000 + n * 60);
    }
    watch.advance(at(11_500));
    assert_eq!(watch.spare(at(11_500)), 9);
}

#[test]
fn a_node_may_be_smaller_than_the_floor() {
    for limit in 0..FLOOR {
        let watch = DemandTracker::new(limit, limit);
        assert_eq!(watch.spare(at(0)), limit);
        let later = at(100_000);
        assert_eq!(
            (watch.spare(later), watch.next_change(later)),
            (limit, None)
        );
    }
}

#[test]
fn the_learned_demand_survives_a_restart() {
    let mut before = watch();
    for n in 0..5 {
        burst(&mut before, 12, 0, 10_000 + n * 100);
    }
    let now = at(10_600);
    before.advance(now);
    let mut after = DemandTracker::new(29, 232);
    after.restore(before.learnt(now), now);
    assert_eq!(after.target(now), before.target(now));
    assert_eq!(after.spare(now), 12);
}

#[test]
fn a_corrupt_record_is_not_trusted() {
    let mut watch = watch();
    let learnt = Demand {
        bursts: vec![(40, f64::NAN), (9, 5.0), (30, f64::INFINITY), (4, 1.0)],
        surge: f64::NAN,
        delivery: Some(Duration::MAX),
        at: at(1_000_000),
    };
    watch.restore(learnt, at(10_000));
    let target = watch.target(at(10_000));
    assert_eq!(watch.spare(at(10_000)), 9);
    assert!(target.low <= target.fill && target.keep <= target.high);
    assert!(watch.next_change(at(10_000)).is_some());
    watch.delivered(Duration::from_secs(4));
    assert!(watch.learnt.delivery.unwrap() < DELIVERY_BOUNDS.1);
}
