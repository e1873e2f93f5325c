//! Tests of slots in virtual time.

use tokio::time::timeout;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn slots(slots: usize) -> ConnectionSlots {
    ConnectionSlots::new(Limits {
        slots,
        idle: 5 * SECOND,
        each: 1000,
        all: 3000,
    })
}

#[test]
fn slots_follow_the_descriptors() {
    assert_eq!(Limits::within(1 << 20).slots, 1024);
    assert_eq!(Limits::within(1024).slots, 179);
    assert_eq!(
        Limits::within(64).slots,
        8,
        "too few to work, and said elsewhere"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_and_one_with_a_request_does_not() {
    let slots = slots(8);
    let (mut idle, mut busy) = (slots.take().await, slots.take().await);
    let request = busy.requests().begin();
    let ends = timeout(10 * SECOND, idle.ended()).await;
    assert_eq!(ends, Ok(EndReason::Idle));
    assert!(timeout(60 * SECOND, busy.ended()).await.is_err());
    drop(request);
    let ends = timeout(11 * SECOND, busy.ended()).await;
    assert_eq!(ends, Ok(EndReason::Idle), "its answer was the last thing");
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_was_free_for_long_works_like_another() {
    let mut slot = slots(8).take().await;
    tokio::time::advance(60 * SECOND).await;
    slot.occupy();
    assert!(timeout(4 * SECOND, slot.ended()).await.is_err());
    assert_eq!(timeout(2 * SECOND, slot.ended()).await, Ok(EndReason::Idle));
}

#[tokio::test(start_paused = true)]
async fn requests_one_after_the_other_keep_a_connection() {
    let slots = slots(8);
    let mut slot = slots.take().await;
    for _ in 0..20 {
        drop(slot.requests().begin());
        assert!(timeout(4 * SECOND, slot.ended()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_idle_yields_and_those_at_work_do_not() {
    let slots = slots(3);
    let mut working = slots.take().await;
    let (mut older, mut younger) = (slots.take().await, slots.take().await);
    let _request = working.requests().begin();
    let mut newcomer = Box::pin(slots.take());
    assert!(
        timeout(SECOND, newcomer.as_mut()).await.is_err(),
        "its slot is not free yet"
    );
    assert_eq!(older.ended().await, EndReason::Yielded);
    drop(older);
    let _newcomer = timeout(SECOND, newcomer).await.expect("it is now");
    assert!(timeout(SECOND, younger.ended()).await.is_err());
    assert!(timeout(SECOND, working.ended()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn where_all_are_at_work_a_new_one_waits_for_the_first_to_go() {
    let slots = slots(2);
    let (first, second) = (slots.take().await, slots.take().await);
    let _requests = [first.requests().begin(), second.requests().begin()];
    let mut waiting = Box::pin(slots.take());
    assert!(timeout(SECOND, waiting.as_mut()).await.is_err());
    drop(first);
    assert!(timeout(SECOND, waiting).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn unanswered_input_is_bounded_per_connection_and_in_total() {
    let slots = slots(8);
    let mut greedy = slots.take().await;
    assert_eq!(greedy.charge(1000), Ok(()));
    assert_eq!(greedy.charge(1), Err(EndReason::Overfull));
    assert_eq!(greedy.ended().await, EndReason::Overfull);
    drop(greedy);

    let mut together = [slots.take().await, slots.take().await, slots.take().await];
    for slot in &mut together {
        assert_eq!(
            slot.charge(900),
            Ok(()),
            "what the greedy one held is free again"
        );
    }
    let mut last = slots.take().await;
    assert_eq!(last.charge(400), Err(EndReason::Overfull));
    drop(last);
    drop(together[0].requests().begin());
    assert_eq!(
        together[1].charge(100),
        Ok(()),
        "an answered request holds nothing"
    );
    assert_eq!(together[0].charge(900), Ok(()));
}
