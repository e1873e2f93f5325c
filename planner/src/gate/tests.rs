//! What closes a gate, for which calls, and for how long.

use super::*;

fn at(seconds: u64) -> Mono {
    Mono::from_epoch(Duration::from_secs(seconds))
}

fn throttled(seconds: Option<u64>) -> Failure {
    let retry_after = seconds.map(Duration::from_secs);
    Failure::new(Class::Throttled { retry_after }, "Request limit exceeded.")
}

#[test]
fn throttling_shuts_its_own_action_only() {
    let mut gates = Gates::new(Rng::new(1, 1));
    gates.failed(Action::Modify, &throttled(Some(20)), at(100));
    assert!(!gates.open(Action::Modify, at(119)));
    assert!(gates.open(Action::Attach, at(100)));
    assert!(gates.open(Action::Modify, at(120)));
    assert!(
        gates.throttled.explains(at(110)).is_none(),
        "no pod waits for a Modify"
    );
    gates.failed(Action::Attach, &throttled(Some(10)), at(110));
    let gate = gates.throttled.explains(at(110)).unwrap();
    assert_eq!((gate.until(), gates.throttled.until()), (at(120), at(120)));
}

/// If the gate doubled a pause from the limiter, the account's bucket would be unused while nodes wait.
#[test]
fn the_pause_of_the_limiter_is_used_unchanged() {
    let mut gates = Gates::new(Rng::new(1, 1));
    for n in 0..10 {
        let now = at(n * 7);
        assert!(gates.open(Action::Create, now), "round {n}");
        gates.failed(Action::Create, &throttled(Some(7)), now);
        assert!(!gates.open(Action::Create, at(n * 7 + 6)));
    }
}

#[test]
fn without_a_retry_time_pauses_double_up_to_a_minute() {
    let mut gates = Gates::new(Rng::new(1, 1));
    let mut now = at(0);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        gates.failed(Action::Create, &throttled(None), now);
        let until = gates.throttled.until();
        pauses.push(until.since(now).as_secs_f64());
        now = until;
    }
    let full = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0];
    for (pause, full) in pauses.into_iter().zip(full) {
        assert!((full / 2.0..=full).contains(&pause), "{pause} of {full}");
    }
}
