//! What the pool refuses to assign.

use super::*;
use crate::pool::eni::Trust;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

fn at(seconds: u64) -> Mono {
    Mono::from_epoch(Duration::from_secs(seconds))
}

fn sandbox(name: &str) -> Sandbox {
    Sandbox {
        network: "hawser".into(),
        container_id: name.into(),
        ifname: "eth0".into(),
    }
}

fn ready(pool: &mut Pool, id: &str, index: u16) -> Key {
    let mut eni = Eni::remembered(id.into(), "subnet-1".into(), Mono::ZERO);
    eni.trust = Trust::Sound;
    eni.phase = Phase::Ready;
    eni.index = EniIndex::new(index);
    pool.insert(eni)
}

/// Found by the simulation: someone deleted an ENI, and EC2 assigned its address to another ENI of ours.
#[test]
fn an_address_that_came_back_on_another_eni_waits_for_its_old_pod() {
    let mut pool = Pool::default();
    let old = ready(&mut pool, "eni-1", 1);
    pool.add_block(old, IpNet::from(ADDRESS), at(0));
    pool.reserve(&sandbox("a"), &Pod::default(), at(1)).unwrap();
    assert!(pool.wired(&sandbox("a"), at(1)));
    pool.get_mut(old).unwrap().trust = Trust::Missing {
        since: at(2),
        reads: 1,
    };
    let new = ready(&mut pool, "eni-2", 2);
    pool.add_block(new, IpNet::from(ADDRESS), at(3));

    let asks = |pool: &mut Pool, now| pool.reserve(&sandbox("b"), &Pod::default(), now);
    assert_eq!(asks(&mut pool, at(4)), None, "its pod lives");
    assert!(pool.left(&sandbox("a"), Duration::from_secs(60), at(5)));
    pool.end_cooldowns(at(40));
    assert_eq!(asks(&mut pool, at(40)), None, "it rests");
    pool.end_cooldowns(at(80));
    assert_eq!(
        asks(&mut pool, at(80)),
        Some(Place {
            key: new,
            address: ADDRESS
        })
    );
}
