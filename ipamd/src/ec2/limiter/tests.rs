//! Tests of what the limiter allows and when.

use super::*;

const ATTACH: &str = "AttachNetworkInterface";
const ASSIGN: &str = "AssignPrivateIpAddresses";

fn at(seconds: f64) -> Mono {
    Mono::from_epoch(Duration::from_secs_f64(seconds))
}

#[test]
fn capacities_are_those_of_the_throttling_page() {
    let table = [
        ("DescribeNetworkInterfaces", 100.0, 20.0),
        ("DescribeSubnets", 100.0, 20.0),
        ("CreateNetworkInterface", 100.0, 5.0),
        ("DeleteNetworkInterface", 100.0, 5.0),
        ("ModifyNetworkInterfaceAttribute", 100.0, 5.0),
        (ASSIGN, 100.0, 5.0),
        ("UnassignPrivateIpAddresses", 100.0, 5.0),
        (ATTACH, 50.0, 5.0),
        ("DetachNetworkInterface", 50.0, 5.0),
    ];
    for (action, burst, refill) in table {
        assert_eq!(capacity(action), Capacity { burst, refill }, "{action}");
    }
}

#[test]
fn a_node_alone_never_exceeds_the_account() {
    let mut limiter = Limiter::new(1);
    let mut sent: Vec<f64> = Vec::new();
    for tenth in 0..600 {
        let now = f64::from(tenth) / 10.0;
        while let Ok(wait) = limiter.take(ATTACH, at(now)) {
            sent.push(now + wait.as_secs_f64());
        }
    }
    for (n, when) in sent.iter().enumerate() {
        let allowed = 50.0 + when * 5.0 + 0.001;
        assert!(
            f64::from(u32::try_from(n).unwrap()) < allowed,
            "call {n} at {when} s"
        );
    }
    assert!(
        sent.len() >= 345,
        "and it uses what there is: {}",
        sent.len()
    );
}

#[test]
fn calls_queue_for_some_seconds_and_are_then_refused() {
    let mut limiter = Limiter::new(1);
    let waits: Vec<_> = (0..76).map(|_| limiter.take(ATTACH, at(0.0))).collect();
    assert!(waits[..50].iter().all(|wait| *wait == Ok(Duration::ZERO)));
    assert_eq!(waits[54], Ok(Duration::from_secs(1)));
    assert_eq!(waits[74], Ok(Duration::from_secs(5)));
    assert_eq!(waits[75], Err(Duration::from_millis(5200)));
    assert_eq!(
        limiter.take(ASSIGN, at(0.0)),
        Ok(Duration::ZERO),
        "each API has its own"
    );
}

#[test]
fn pauses_grow_with_the_time_spent_waiting() {
    // Time since the first refusal, and the bounds of the pause.
    let table = [
        (0.0, 2.5, 5.0),
        (10.0, 2.5, 5.0),
        (40.0, 5.0, 10.0),
        (120.0, 15.0, 30.0),
        (240.0, 30.0, 60.0),
        (4000.0, 30.0, 60.0),
    ];
    for seed in 0..50 {
        let mut limiter = Limiter::new(seed);
        for (waited, least, most) in table {
            let pause = limiter.throttled(ATTACH, at(1.0 + waited)).as_secs_f64();
            assert!(
                (least..=most).contains(&pause),
                "{pause} s after {waited} s"
            );
        }
    }
}

#[test]
fn answers_of_calls_already_sent_do_not_lengthen_the_pause() {
    let mut limiter = Limiter::new(3);
    let pause = limiter.throttled(ATTACH, at(1.0));
    let again = limiter.throttled(ATTACH, at(1.5));
    assert_eq!(again, pause - Duration::from_millis(500));
    limiter.admitted(ATTACH, at(2.0));
    assert!(
        limiter.take(ATTACH, at(2.0)).unwrap_or_else(|wait| wait) > Duration::ZERO,
        "nor end it"
    );
    assert_eq!(limiter.take(ASSIGN, at(2.0)), Ok(Duration::ZERO));
}

#[test]
fn after_a_pause_one_call_probes_and_successes_bring_the_rate_back() {
    let mut limiter = Limiter::new(3);
    let until = 1.0 + limiter.throttled(ATTACH, at(1.0)).as_secs_f64();
    let open = at(until + 0.001);
    assert_eq!(limiter.take(ATTACH, open), Ok(Duration::ZERO));
    let second = limiter.take(ATTACH, open).unwrap();
    assert!(
        (0.39..0.4).contains(&second.as_secs_f64()),
        "2.5 a second: {second:?}"
    );
    let rate = |limiter: &Limiter| limiter.gauges(open)[0].rate;
    assert_eq!(rate(&limiter), 2.5);
    for _ in 0..4 {
        limiter.admitted(ATTACH, open);
    }
    assert_eq!(rate(&limiter), 4.5);
    for _ in 0..4 {
        limiter.admitted(ATTACH, open);
    }
    assert_eq!(rate(&limiter), 5.0, "never above EC2's own");
    for n in 1..20 {
        limiter.throttled(ATTACH, at(f64::from(n) * 1000.0));
    }
    assert_eq!(rate(&limiter), LEAST_RATE);
}

#[test]
fn nodes_with_different_seeds_do_not_retry_in_step() {
    let pauses: std::collections::BTreeSet<_> = (0..100)
        .map(|seed| Limiter::new(seed).throttled(ATTACH, at(0.0)))
        .collect();
    assert_eq!(pauses.len(), 100);
    let first = *pauses.first().unwrap();
    let close = first + Duration::from_millis(25);
    assert!(pauses.iter().filter(|pause| **pause < close).count() < 10);
}
