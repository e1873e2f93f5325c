//! The targets, on the traces of the published table, shortened: compared with `WARM_ENI_TARGET=1`, at most half the
//! idle addresses, no more EC2 calls, and no longer wait at the 99th percentile.

use super::*;

const SHORT: u32 = 4;
const RUNS: u64 = 20;

fn aims(trace: Trace) {
    let pods = trace.pods(SHORT, SEED);
    let time = trace::days(SHORT);
    let (mut own_waits, mut upstream_waits) = (Duration::ZERO, Duration::ZERO);
    // One slow attach decides the longest wait of a run.
    for seed in 0..RUNS {
        let run = |config| run(INSTANCE, config, &pods, time, seed);
        let (own, upstream) = (run(Config::default()), run(Config::upstream()));
        assert_eq!((own.refused, upstream.refused), (0, 0));
        assert!(
            own.waits.len() >= pods.len() - 1,
            "at most the last one is not served"
        );
        assert!(
            own.idle * 2.0 <= upstream.idle,
            "idle: {} against {}",
            own.idle,
            upstream.idle
        );
        assert!(
            own.total() <= upstream.total(),
            "calls: {} against {}",
            own.total(),
            upstream.total()
        );
        own_waits += own.wait(99);
        upstream_waits += upstream.wait(99);
    }
    assert!(
        own_waits <= upstream_waits,
        "p99, sum of {RUNS} runs: {own_waits:?} against {upstream_waits:?}"
    );
}

#[test]
fn steady() {
    aims(Trace::Steady);
}

#[test]
fn nightly_batch() {
    aims(Trace::Nightly);
}

#[test]
fn ci_like_churn() {
    aims(Trace::Ci);
}

#[test]
fn a_run_repeats_exactly() {
    let pods = Trace::Ci.pods(1, SEED);
    let once = || {
        run(
            INSTANCE,
            Config::default(),
            &pods,
            trace::days(1),
            LATENCIES,
        )
    };
    let (a, b) = (once(), once());
    assert_eq!((a.waits, a.calls), (b.waits, b.calls));
}

/// Six ENIs beside the primary one have room for 200 pods, at three calls each. One call fills the primary ENI, and one
/// reads the node's ENIs.
#[test]
fn a_new_node_is_filled_with_hardly_more_than_the_fewest_calls() {
    let fewest = 6 * 3 + 2;
    for seconds in [0.5, 2.0, 5.0, 10.0, 20.0, 30.0] {
        let pods = trace::cold(COLD_PODS, seconds, SEED);
        let outcome = run(INSTANCE, Config::default(), &pods, FIRST_MINUTES, LATENCIES);
        assert_eq!(outcome.waits.len(), pods.len(), "in {seconds} s");
        assert_eq!(outcome.refused, 0, "in {seconds} s");
        let calls = outcome.total();
        assert!(calls * 5 <= fewest * 6, "{calls} calls in {seconds} s");
    }
}

/// The fastest way is to know the number of pods beforehand, and to request everything in one moment.
#[test]
fn the_last_pod_of_a_new_node_waits_hardly_longer_than_ec2_takes() {
    let known = Config {
        warm_ip_target: Some(1),
        minimum_ip_target: Some(COLD_PODS),
        ..Config::default()
    };
    let (mut own, mut fastest) = (Duration::ZERO, Duration::ZERO);
    for seed in 0..40 {
        let last = |config, pods: &[_]| {
            let outcome = run(INSTANCE, config, pods, FIRST_MINUTES, seed);
            outcome.wait(100)
        };
        let mut pods = trace::cold(COLD_PODS, 0.5, SEED);
        own += last(Config::default(), &pods);
        pods.iter_mut().for_each(|pod| pod.comes = Duration::ZERO);
        fastest += last(known.clone(), &pods);
    }
    assert!(own * 4 <= fastest * 5, "{own:?} against {fastest:?}");
}
