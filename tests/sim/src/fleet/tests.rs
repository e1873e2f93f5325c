//! A thousand nodes compared with the target; and the run is a function of its seed.

use ipamd::ec2::limiter::capacity;

use super::*;

fn in_virtual_time<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work)
}

fn simulate(nodes: usize, seed: u64) -> Vec<Row> {
    in_virtual_time(run(nodes, seed, &EniClass::by_tags(None)))
}

#[test]
fn a_thousand_nodes_are_served_close_to_the_floor_and_list_subnets_at_most_hourly() {
    let rows = simulate(1000, 1);
    for row in &rows {
        assert!(row.passes(), "{row}");
    }
    let [start, grow, idle] = &rows[..] else {
        panic!("three scenarios")
    };
    assert_eq!(start.floor(), Duration::from_secs(180));
    assert_eq!(grow.floor(), Duration::from_secs(190));
    let listed = idle.calls["DescribeSubnets"].answered;
    assert!(listed > 500, "{idle}");
    let refill = capacity("DescribeSubnets").refill;
    assert!((idle.peak as f64) < refill, "the lists are spread: {idle}");
    // One each, whatever order throttling caused.
    for (row, action) in [
        (start, "AssignPrivateIpAddresses"),
        (grow, "CreateNetworkInterface"),
        (grow, "AttachNetworkInterface"),
        (grow, "ModifyNetworkInterfaceAttribute"),
    ] {
        assert_eq!(row.calls[action].answered, 1000, "{action}");
    }
}

#[test]
fn nodes_whose_enis_are_like_the_primary_one_idle_in_silence() {
    let rows = in_virtual_time(run(300, 3, &EniClass::like_primary()));
    assert!(rows.iter().all(Row::passes), "{rows:?}");
    assert!(rows[2].calls.is_empty(), "{}", rows[2]);
}

#[test]
fn a_fleet_that_fits_the_buckets_is_never_throttled() {
    let rows = simulate(40, 2);
    assert!(
        rows.iter().all(|row| row.total().throttled == 0),
        "{rows:?}"
    );
    let slowest = rows.iter().map(|row| row.percentile(100)).max().unwrap();
    assert!(slowest < Duration::from_secs(12), "{slowest:?}");
}

#[test]
fn a_seed_repeats_a_run() {
    let print = |seed| format!("{:?}", simulate(150, seed));
    assert_eq!(print(7), print(7));
    assert_ne!(print(7), print(8));
}

/// I4: within ten minutes. I9: with one more read than a node without a leak, and without calls afterwards.
#[test]
fn unattached_enis_of_a_previous_process_are_found_in_time() {
    in_virtual_time(async {
        let account = Arc::new(Account::new(20, 5));
        let mut tasks = JoinSet::new();
        let nodes: Vec<_> = (0..20)
            .map(|n| Node::start(n, 5, &EniClass::like_primary(), &account, &mut tasks))
            .collect();
        account.leave_stray(3);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!((0..20).all(|node| account.interfaces(node) == 1));
        let calls = Row::new("start", 20, account.since(Duration::ZERO), Vec::new()).calls;
        let answered = |action| calls.get(action).map_or(0, |tally| tally.answered);
        assert_eq!(answered("DeleteNetworkInterface"), 1);
        assert_eq!(answered("DescribeNetworkInterfaces"), 20 * 2 + 2);
        let from = account.now();
        tokio::time::sleep(IDLE).await;
        assert_eq!(account.since(from), []);
        drop(nodes);
    });
}
