//! The bookkeeping under any order of pods.

use datapath::constants::is_egress;

use super::*;

fn leased(leases: &EgressLeases) -> IpAddr {
    let lease = leases.lease().unwrap().unwrap();
    let address = lease.address().unwrap();
    lease.keep();
    address
}

#[test]
fn a_node_has_1020_of_each_family_and_then_none() {
    for family in [Family::V4, Family::V6] {
        let leases = EgressLeases::new(Some(family), []);
        let all: BTreeSet<IpAddr> = (0..CAPACITY).map(|_| leased(&leases)).collect();
        assert_eq!(all.len(), 1020);
        assert!(
            all.iter()
                .all(|a| is_egress(*a) && Family::of(*a) == family)
        );
        assert!(matches!(leases.lease(), Err(Full)));
        let one = *all.iter().nth(500).unwrap();
        leases.end(one);
        assert_eq!(leased(&leases), one);
    }
    let spare = ["169.254.172.0", "169.254.172.1", "169.254.175.255"];
    let leases = EgressLeases::new(Some(Family::V4), []);
    let all: Vec<String> = (0..CAPACITY).map(|_| leased(&leases).to_string()).collect();
    assert!(
        spare
            .iter()
            .all(|spare| !all.contains(&(*spare).to_owned()))
    );
}

#[test]
fn an_address_is_used_again_as_late_as_possible_also_after_a_restart() {
    let leases = EgressLeases::new(Some(Family::V4), []);
    let first = leased(&leases);
    leases.end(first);
    let second = leased(&leases);
    assert_ne!(first, second);
    let restarted = EgressLeases::new(Some(Family::V4), [second]);
    let third = leased(&restarted);
    assert!(third != first && third != second);
}

#[test]
fn without_the_feature_there_is_none_and_what_was_held_can_end() {
    let held: IpAddr = "169.254.172.9".parse().unwrap();
    let leases = EgressLeases::new(None, [held]);
    assert!(leases.lease().unwrap().is_none());
    leases.end(held);
    assert_eq!(leases.in_use(), 0);
}

/// Numbers that are the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }
}

/// ADDs, some of which fail, DELs and restarts, on nodes that fill up and on nodes that do not.
#[test]
fn no_address_is_given_twice_and_none_is_lost() {
    for seed in 0..20 {
        let mut numbers = Numbers(seed);
        let adds = 3 + numbers.below(4);
        let mut leases = EgressLeases::new(Some(Family::V6), []);
        let mut pods: Vec<IpAddr> = Vec::new();
        for _ in 0..3000 {
            match numbers.below(10) {
                0 => drop(leases.lease()),
                1 => leases = EgressLeases::new(Some(Family::V6), pods.clone()),
                n if n < 2 + adds => match leases.lease() {
                    Ok(lease) => {
                        let lease = lease.unwrap();
                        let address = lease.address().unwrap();
                        assert!(!pods.contains(&address), "{seed}: {address} twice");
                        lease.keep();
                        pods.push(address);
                    }
                    Err(Full) => assert_eq!(pods.len(), usize::from(CAPACITY), "{seed}"),
                },
                _ if pods.is_empty() => {}
                _ => leases.end(pods.swap_remove(numbers.below(pods.len()))),
            }
            assert_eq!(leases.in_use(), pods.len(), "{seed}");
        }
    }
}

#[test]
fn no_pod_gets_what_others_have_until_they_have_it_no_more() {
    let leases = EgressLeases::new(Some(Family::V4), []);
    let (ours, next) = (leased(&leases), address(Family::V4, 1));
    let (late, node) = (address(Family::V4, 500), "169.254.172.1".parse().unwrap());
    let in_use = BTreeSet::from([ours, next, late, node]);
    assert_eq!(leases.reserve(&in_use), BTreeSet::new());
    let all: BTreeSet<IpAddr> = (0..CAPACITY - 3).map(|_| leased(&leases)).collect();
    assert!(all.is_disjoint(&in_use));
    assert!(matches!(leases.lease(), Err(Full)));
    // A pod of theirs ends.
    assert_eq!(
        leases.reserve(&BTreeSet::from([ours, next])),
        [late, node].into()
    );
    assert_eq!(leased(&leases), late);
    assert!(leases.has_reserved());
    assert_eq!(leases.reserve(&BTreeSet::new()), [next].into());
    assert!(!leases.has_reserved());
    assert_eq!(leased(&leases), next);
}
