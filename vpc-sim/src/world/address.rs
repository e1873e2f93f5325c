//! Takes addresses and prefixes from a subnet: everything that a request needs, or nothing.
//!
//! Owns the differences between the families; [`pool`] owns the addresses of one subnet in one family. May use
//! `request`, `error`, `ids` and `random`. Must not know interfaces.

pub(super) mod pool;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use self::pool::{Pool, Unfit, V4_BLOCK, V6_BLOCK};
use super::{Place, request::Pick};
use crate::{error::ApiError, ids::SubnetId, random::Rng};

/// The differences between the two families.
pub(super) trait Family {
    type Addr: Copy + ToString;
    type Net: Copy + ToString;

    fn pool(place: &mut Place) -> Result<&mut Pool, ApiError>;
    fn number(addr: Self::Addr) -> u128;
    fn addr(number: u128) -> Self::Addr;
    fn net(number: u128) -> Self::Net;
    /// The first address of a prefix of the delegated length; `None` if it has another length or host bits.
    fn block(net: Self::Net) -> Option<u128>;
}

#[derive(Debug)]
pub(super) enum V4 {}
#[derive(Debug)]
pub(super) enum V6 {}

impl Family for V4 {
    type Addr = Ipv4Addr;
    type Net = Ipv4Net;

    fn pool(place: &mut Place) -> Result<&mut Pool, ApiError> {
        Ok(&mut place.v4)
    }

    fn number(addr: Ipv4Addr) -> u128 {
        u32::from(addr).into()
    }

    fn addr(number: u128) -> Ipv4Addr {
        Ipv4Addr::from(u32::try_from(number).expect("an IPv4 pool holds 32-bit numbers"))
    }

    fn net(number: u128) -> Ipv4Net {
        Ipv4Net::new_assert(Self::addr(number), V4_BLOCK)
    }

    fn block(net: Ipv4Net) -> Option<u128> {
        (net.prefix_len() == V4_BLOCK && net.trunc() == net).then(|| Self::number(net.addr()))
    }
}

impl Family for V6 {
    type Addr = Ipv6Addr;
    type Net = Ipv6Net;

    fn pool(place: &mut Place) -> Result<&mut Pool, ApiError> {
        let Place { v6, subnet, .. } = place;
        v6.as_mut().ok_or_else(|| ApiError::NoIpv6 {
            subnet: subnet.id.clone(),
        })
    }

    fn number(addr: Ipv6Addr) -> u128 {
        addr.into()
    }

    fn addr(number: u128) -> Ipv6Addr {
        number.into()
    }

    fn net(number: u128) -> Ipv6Net {
        Ipv6Net::new_assert(number.into(), V6_BLOCK)
    }

    fn block(net: Ipv6Net) -> Option<u128> {
        (net.prefix_len() == V6_BLOCK && net.trunc() == net).then(|| Self::number(net.addr()))
    }
}

/// What was taken.
#[derive(Clone, Debug)]
pub(super) struct Given<F: Family> {
    pub addresses: Vec<F::Addr>,
    pub prefixes: Vec<F::Net>,
}

impl<F: Family> Default for Given<F> {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            prefixes: Vec::new(),
        }
    }
}

/// The number of address slots that `pick` uses on an interface.
pub(super) fn slots<A, P>(pick: &Pick<A, P>) -> usize {
    match pick {
        Pick::Nothing => 0,
        Pick::Count(n) | Pick::PrefixCount(n) => usize::try_from(*n).unwrap_or(usize::MAX),
        Pick::These(v) => v.len(),
        Pick::Prefixes(v) => v.len(),
    }
}

/// Whether `pick` requests prefixes.
pub(super) const fn wants_prefixes<A, P>(pick: &Pick<A, P>) -> bool {
    matches!(pick, Pick::PrefixCount(_) | Pick::Prefixes(_))
}

/// Takes what `pick` requests; on an error, nothing is taken.
pub(super) fn take<F: Family>(
    place: &mut Place,
    pick: &Pick<F::Addr, F::Net>,
    rng: &mut Rng,
) -> Result<Given<F>, ApiError> {
    let mut given = Given::default();
    let outcome = take_into::<F>(place, pick, rng, &mut given);
    if outcome.is_err() {
        give_back::<F>(place, &given);
    }
    outcome.map(|()| given)
}

fn take_into<F: Family>(
    place: &mut Place,
    pick: &Pick<F::Addr, F::Net>,
    rng: &mut Rng,
    given: &mut Given<F>,
) -> Result<(), ApiError> {
    let subnet = place.subnet.id.clone();
    match pick {
        Pick::Nothing => {}
        Pick::Count(count) => {
            for _ in 0..*count {
                let n = F::pool(place)?
                    .pick(rng)
                    .ok_or_else(|| ApiError::NoFreeAddresses {
                        subnet: subnet.clone(),
                    })?;
                given.addresses.push(F::addr(n));
            }
        }
        Pick::These(addresses) => {
            for a in addresses {
                F::pool(place)?
                    .take(F::number(*a))
                    .map_err(|u| unfit(u, a.to_string(), &subnet))?;
                given.addresses.push(*a);
            }
        }
        Pick::PrefixCount(count) => {
            for _ in 0..*count {
                let n = F::pool(place)?
                    .pick_block(rng)
                    .ok_or_else(|| ApiError::NoFreeBlocks {
                        subnet: subnet.clone(),
                    })?;
                given.prefixes.push(F::net(n));
            }
        }
        Pick::Prefixes(prefixes) => {
            for p in prefixes {
                let block = F::block(*p).ok_or_else(|| ApiError::BadPrefix {
                    prefix: p.to_string(),
                })?;
                F::pool(place)?
                    .take_block(block)
                    .map_err(|u| unfit_block(u, p.to_string(), &subnet))?;
                given.prefixes.push(*p);
            }
        }
    }
    Ok(())
}

/// Frees what was taken, or what an interface had.
pub(super) fn give_back<F: Family>(place: &mut Place, given: &Given<F>) {
    let Ok(pool) = F::pool(place) else { return };
    given
        .addresses
        .iter()
        .for_each(|a| pool.give_back(F::number(*a)));
    given
        .prefixes
        .iter()
        .filter_map(|p| F::block(*p))
        .for_each(|n| pool.give_back_block(n));
}

fn unfit(why: Unfit, address: String, subnet: &SubnetId) -> ApiError {
    match why {
        Unfit::Outside => ApiError::OutsideSubnet {
            address,
            subnet: subnet.clone(),
        },
        Unfit::Reserved => ApiError::ReservedAddress { address },
        Unfit::Taken | Unfit::Unaligned => ApiError::AddressInUse { address },
    }
}

/// A requested prefix that is not completely free is refused like a lack of blocks.
fn unfit_block(why: Unfit, prefix: String, subnet: &SubnetId) -> ApiError {
    match why {
        Unfit::Outside => ApiError::OutsideSubnet {
            address: prefix,
            subnet: subnet.clone(),
        },
        Unfit::Unaligned => ApiError::BadPrefix { prefix },
        Unfit::Reserved | Unfit::Taken => ApiError::NoFreeBlocks {
            subnet: subnet.clone(),
        },
    }
}
