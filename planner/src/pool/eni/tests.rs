//! Blocks and addresses of one ENI.

use super::{super::block::SlotState, *};

fn eni() -> Eni {
    let mut eni = Eni::remembered("eni-1".into(), "subnet-1".into(), Mono::ZERO);
    eni.trust = Trust::Sound;
    eni
}

#[test]
fn a_prefix_takes_over_the_address_it_covers() {
    let mut eni = eni();
    eni.add_block("10.0.0.17/32".parse().unwrap(), Mono::ZERO);
    eni.with_slot([10, 0, 0, 17].into(), |slot| {
        slot.state = SlotState::Assigned
    });
    eni.add_block("10.0.0.16/28".parse().unwrap(), Mono::ZERO);
    assert_eq!(
        (eni.blocks.len(), eni.counts().assigned, eni.counts().free),
        (1, 1, 15)
    );
}

#[test]
fn the_fullest_block_is_picked_first() {
    let mut eni = eni();
    eni.add_block("10.0.0.16/28".parse().unwrap(), Mono::ZERO);
    eni.add_block("10.0.0.32/28".parse().unwrap(), Mono::ZERO);
    eni.with_slot([10, 0, 0, 40].into(), |slot| {
        slot.state = SlotState::Assigned
    });
    assert_eq!(eni.pick(), Some([10, 0, 0, 32].into()));
}

#[test]
fn the_own_address_is_never_a_pods() {
    let mut eni = eni();
    eni.address = Some(Ipv4Addr::new(10, 0, 0, 9));
    eni.add_block("10.0.0.9/32".parse().unwrap(), Mono::ZERO);
    assert_eq!(eni.blocks.len(), 0);
}
