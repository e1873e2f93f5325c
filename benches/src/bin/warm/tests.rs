//! The targets, on the traces of the published table, shortened: compared with `WARM_ENI_TARGET=1`, at most half the
//! idle addresses, no more EC2 calls, and no longer wait at the 99th percentile.

use super::*;

const SHORT: u32 = 4;

fn aims(trace: Trace) {
    let pods = trace.pods(SHORT, SEED);
    let run = |config| run(INSTANCE, config, &pods, SHORT);
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
    assert!(
        own.wait(99) <= upstream.wait(99),
        "p99: {:?} against {:?}",
        own.wait(99),
        upstream.wait(99)
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
    let once = || run(INSTANCE, Config::default(), &pods, 1);
    let (a, b) = (once(), once());
    assert_eq!((a.waits, a.calls), (b.waits, b.calls));
}
