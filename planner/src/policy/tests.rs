//! The AWS VPC CNI's reference vectors (reference page §4.7) compared with the formulas, and our differences. All by
//! name.

use super::*;
use crate::limits::require;

/// 3 ENIs with 3 pod addresses each.
fn t3_small(config: Config) -> Policy {
    Policy::new(&config, require("t3.small").unwrap(), true)
}

fn p3dn(config: Config) -> Policy {
    Policy::new(&config, require("p3dn.24xlarge").unwrap(), true)
}

fn ip_targets(warm: u32, minimum: u32) -> Config {
    Config {
        warm_ip_target: Some(warm),
        minimum_ip_target: Some(minimum),
        ..Config::upstream()
    }
}

fn warm_enis(target: u32) -> Config {
    Config {
        warm_eni_target: Some(target),
        ..Config::upstream()
    }
}

fn prefixes(config: Config) -> Config {
    Config {
        prefix_delegation: true,
        ..config
    }
}

const QUIET: Flow = Flow {
    incoming: 0,
    waiting: 0,
    warm: true,
};

fn single(total: u32, used: u32) -> Stock {
    Stock {
        free: total - used,
        used,
        ..Stock::default()
    }
}

fn blocks(count: u32, used: u32) -> Stock {
    let free_prefixes = count - used.div_ceil(16);
    Stock {
        free: count * 16 - used,
        used,
        prefixes: count,
        free_prefixes,
        ..Stock::default()
    }
}

/// What the pool holds after it has grown for `pods`: (ENIs with addresses, addresses). Fills one ENI after another,
/// like the machine.
fn grown(policy: &Policy, pods: u32) -> (u32, u32) {
    let mut total = 0;
    loop {
        let used = pods.min(total);
        let waiting = pods - used;
        let need = policy.short(&single(total, used), &Flow { waiting, ..QUIET });
        if need.addresses == 0 {
            return (total.div_ceil(policy.slots), total);
        }
        total += need.addresses;
        if need.fill {
            total = total.next_multiple_of(policy.slots);
        }
    }
}

fn grown_prefixes(policy: &Policy, pods: u32) -> u32 {
    let mut count = 0;
    loop {
        let used = pods.min(count * 16);
        let need = policy.short(
            &blocks(count, used),
            &Flow {
                waiting: pods - used,
                ..QUIET
            },
        );
        if need.addresses == 0 {
            return count;
        }
        count += need.addresses / 16;
    }
}

macro_rules! vectors {
    ($($name:ident: $actual:expr => $expect:expr;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!($actual, $expect);
        })*
    };
}

fn short(policy: &Policy, stock: &Stock) -> u32 {
    policy.short(stock, &QUIET).addresses
}

fn short_over(config: Config, stock: Stock) -> (u32, u32) {
    // The limit of the instance must not matter here.
    let policy = Policy {
        pod_limit: 1000,
        ..t3_small(config)
    };
    let unit = if policy.prefixes() { 16 } else { 1 };
    (short(&policy, &stock) / unit, policy.over(&stock))
}

vectors! {
    v01_single_w5_empty: short_over(ip_targets(5, 0), single(0, 0)) => (5, 0);
    v02_single_w5_two_held: short_over(ip_targets(5, 0), single(2, 0)) => (3, 0);
    v03_single_w5_five_held: short_over(ip_targets(5, 0), single(5, 0)) => (0, 0);
    v04_prefix_w5_none: short_over(prefixes(ip_targets(5, 0)), blocks(0, 0)) => (1, 0);
    v05_prefix_w5_two_empty: short_over(prefixes(ip_targets(5, 0)), blocks(2, 0)) => (0, 1);
    v06_prefix_w5_one: short_over(prefixes(ip_targets(5, 0)), blocks(1, 0)) => (0, 0);

    v07_e1_one_of_three_is_low: short(&t3_small(warm_enis(1)), &single(3, 1)) > 0 => true;
    v08_e0_one_of_three_is_not_low: short(&t3_small(warm_enis(0)), &single(3, 1)) => 0;
    v09_e0_three_of_three_is_low: short(&t3_small(warm_enis(0)), &single(3, 3)) > 0 => true;
    v10_pod_limit_stops_growth: short(&Policy { pod_limit: 3, ..t3_small(ip_targets(5, 0)) }, &single(3, 0)) => 0;

    v11_t3_e1_no_pods: grown(&t3_small(warm_enis(1)), 0) => (1, 3);
    v12_t3_e1_five_pods: grown(&t3_small(warm_enis(1)), 5) => (3, 9);
    v13_t3_w1_m1_five_pods: grown(&t3_small(ip_targets(1, 1)), 5) => (2, 6);
    v14_t3_w2_m5_no_pods: grown(&t3_small(ip_targets(2, 5)), 0) => (2, 5);
    v15_t3_w2_m5_five_pods: grown(&t3_small(ip_targets(2, 5)), 5) => (3, 7);
    v16_p3dn_w5_m10_no_pods: grown(&p3dn(ip_targets(5, 10)), 0) => (1, 10);
    v17_p3dn_w5_m10_seven_pods: grown(&p3dn(ip_targets(5, 10)), 7) => (1, 12);
    v18_p3dn_w5_m10_fifteen_pods: grown(&p3dn(ip_targets(5, 10)), 15) => (1, 20);
    v19_p3dn_w5_m10_fortyfive_pods: grown(&p3dn(ip_targets(5, 10)), 45) => (2, 50);

    v20_prefix_p1_no_pods: grown_prefixes(&t3_small(prefixes(Config::upstream())), 0) => 1;
    v21_prefix_p1_five_pods: grown_prefixes(&t3_small(prefixes(Config::upstream())), 5) => 2;
    v22_prefix_p1_sixteen_pods: grown_prefixes(&t3_small(prefixes(Config::upstream())), 16) => 2;
    v23_prefix_p1_seventeen_pods: grown_prefixes(&t3_small(prefixes(Config::upstream())), 17) => 3;
    v24_prefix_p1_fiftyeight_pods: grown_prefixes(&t3_small(prefixes(Config::upstream())), 58) => 5;
    v25_prefix_w1_m1_five_pods: grown_prefixes(&t3_small(prefixes(ip_targets(1, 1))), 5) => 1;
    v26_prefix_w1_m1_seventeen_pods: grown_prefixes(&t3_small(prefixes(ip_targets(1, 1))), 17) => 2;
    v27_prefix_w1_m1_fiftyeight_pods: grown_prefixes(&t3_small(prefixes(ip_targets(1, 1))), 58) => 4;
}

/// The host keeps addresses of one of two prefixes.
#[test]
fn a_prefix_that_makes_up_for_claimed_addresses_is_not_given_back() {
    let with = |free| Stock {
        free,
        prefixes: 2,
        free_prefixes: 1,
        ..Stock::default()
    };
    let config = || prefixes(ip_targets(5, 15));
    assert_eq!(short_over(config(), with(30)), (0, 0));
    assert_eq!(short_over(config(), with(31)), (0, 1));
}

/// Which of ENI-2 (2 free) and ENI-3 (1 free) can be removed, in addition to ENI-1 (primary, 2 of 2 used).
fn deletable(warm: u32, minimum: u32, third: bool) -> Vec<&'static str> {
    let policy = t3_small(ip_targets(warm, minimum));
    let (two, three) = (single(2, 0), single(1, 0));
    let all = if third { single(5, 2) } else { single(4, 2) };
    let mut names = Vec::new();
    if policy.spares(&all, &two) {
        names.push("ENI-2");
    }
    if third && policy.spares(&all, &three) {
        names.push("ENI-3");
    }
    names
}

vectors! {
    v28_delete_w3_m1: deletable(3, 1, true) => Vec::<&str>::new();
    v29_delete_w1_m5: deletable(1, 5, true) => Vec::<&str>::new();
    v30_delete_w2_m4: deletable(2, 4, true) => vec!["ENI-3"];
    v31_delete_w0_m3: deletable(0, 3, false) => Vec::<&str>::new();
    v32_delete_w0_m2: deletable(0, 2, false) => vec!["ENI-2"];
}

/// The AWS VPC CNI says "not low" here and then fails the ADD (#1700): no pod can get the three addresses in cooldown.
#[test]
fn differs_cooling_is_not_available() {
    let resting = Stock {
        free: 0,
        used: 0,
        cooling: 3,
        ..Stock::default()
    };
    assert_eq!(short(&t3_small(ip_targets(3, 0)), &resting), 3);
    assert!(short(&t3_small(warm_enis(0)), &resting) > 0);
}

/// The reverse: a prefix with addresses in cooldown is not free. Otherwise it would be returned and missed at once.
#[test]
fn differs_cooling_is_not_surplus() {
    let stock = Stock {
        free: 28,
        cooling: 4,
        prefixes: 2,
        free_prefixes: 1,
        ..Stock::default()
    };
    let policy = t3_small(prefixes(ip_targets(14, 0)));
    assert_eq!(policy.over(&stock), 0);
}

/// Waiting pods are demand in addition to the warm target, in the same request.
#[test]
fn differs_waiting_pods_are_demand() {
    let policy = Policy {
        pod_limit: 1000,
        ..t3_small(ip_targets(2, 0))
    };
    let flow = Flow {
        incoming: 3,
        waiting: 10,
        warm: true,
    };
    assert_eq!(policy.short(&single(0, 0), &flow).addresses, 9);
}

#[test]
fn a_cordoned_node_grows_for_waiting_pods_alone() {
    let policy = t3_small(warm_enis(1));
    let flow = |waiting| Flow {
        waiting,
        ..Flow::default()
    };
    assert_eq!(policy.short(&single(0, 0), &flow(0)).addresses, 0);
    assert_eq!(
        policy.short(&single(0, 0), &flow(2)),
        Need {
            addresses: 2,
            fill: false,
            slack: 0,
        }
    );
}

/// A return must never make the pool short. Otherwise it would request and return addresses forever.
#[test]
fn shrinking_never_makes_short() {
    let configs = [
        ip_targets(3, 0),
        ip_targets(0, 5),
        ip_targets(2, 6),
        warm_enis(0),
        warm_enis(1),
    ];
    let both = configs
        .into_iter()
        .flat_map(|config| [config.clone(), prefixes(config)]);
    let warm = (0..4).map(|target| {
        prefixes(Config {
            warm_prefix_target: Some(target),
            ..Config::upstream()
        })
    });
    let own = (0..4).flat_map(|spare| {
        let target = Target {
            low: spare,
            fill: spare + 1,
            keep: spare + 1,
            high: spare + 3,
            rising: false,
        };
        [Config::default(), prefixes(Config::default())].map(|config| Policy {
            own: Some(target),
            ..t3_small(config)
        })
    });
    for policy in both.chain(warm).map(t3_small).chain(own) {
        for (count, used) in (0..=9).flat_map(|count| (0..=count).map(move |used| (count, used))) {
            let unit = if policy.prefixes() { 16 } else { 1 };
            let stock = if policy.prefixes() {
                blocks(count, used)
            } else {
                single(count, used)
            };
            let over = policy.over(&stock);
            let after = Stock {
                free: stock.free - over * unit,
                prefixes: stock.prefixes.saturating_sub(over),
                free_prefixes: stock.free_prefixes.saturating_sub(over),
                ..stock
            };
            let short = short(&policy, &after);
            assert!(
                over == 0 || short == 0,
                "{policy:?} {stock:?} over {over}, then short {short}"
            );
        }
    }
}

/// One call for all addresses of an ENI takes EC2 as long as one call for a few.
#[test]
fn enis_are_filled_while_pods_keep_coming() {
    for rising in [false, true] {
        let target = Target {
            low: 5,
            fill: 9,
            rising,
            ..Target::default()
        };
        let policy = Policy {
            own: Some(target),
            ..t3_small(Config::default())
        };
        assert_eq!(policy.short(&single(0, 0), &QUIET).fill, rising);
        let cordoned = Flow {
            waiting: 3,
            warm: false,
            ..QUIET
        };
        assert!(!policy.short(&single(0, 0), &cordoned).fill);
    }
}
