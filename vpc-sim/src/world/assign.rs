//! Assigning and unassigning addresses and prefixes of both families.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    World,
    address::{self, Given, V4, V6},
    interface::{check_slots, most_addresses},
    model::NetworkInterface,
    request::{AssignPrivateIpAddresses, Assigned, Pick, Pick4, Pick6},
};
use crate::{action::Action, error::ApiError, ids::EniId};

impl World {
    /// AssignPrivateIpAddresses: returns only the new addresses. With a count, it is not idempotent.
    ///
    /// # Errors
    /// EC2's errors. Nothing is assigned.
    pub fn assign_private_ip_addresses(
        &mut self,
        req: &AssignPrivateIpAddresses,
        now: Duration,
    ) -> Result<Assigned<Ipv4Addr, Ipv4Net>, ApiError> {
        self.begin(Action::AssignPrivateIpAddresses, true, now)?;
        let eni = self.ours(&req.eni)?;
        let held = eni.ipv4.len() + eni.ipv4_prefixes.len();
        let (subnet, mine) = (eni.subnet.clone(), eni.ipv4.clone());
        // An address that the interface already has is not an error, and is not returned as new.
        let pick = match &req.ipv4 {
            Pick::These(v) => {
                Pick::These(v.iter().copied().filter(|a| !mine.contains(a)).collect())
            }
            other => other.clone(),
        };
        self.check_room(
            &req.eni,
            held,
            address::slots(&pick),
            address::wants_prefixes(&pick),
        )?;
        self.take_over(&pick, req.allow_reassignment, now)?;
        let place = self
            .places
            .get_mut(&subnet)
            .expect("an interface's subnet outlives it");
        let Given {
            addresses,
            prefixes,
        } = address::take::<V4>(place, &pick, &mut self.dice.addresses)?;
        let eni = self.eni_mut(&req.eni)?;
        eni.ipv4.extend(&addresses);
        eni.ipv4_prefixes.extend(&prefixes);
        self.arrive(&req.eni, &nets4(&addresses, &prefixes), now);
        self.advance(now);
        Ok(Assigned {
            addresses,
            prefixes,
        })
    }

    /// AssignIpv6Addresses: returns only the new addresses.
    ///
    /// # Errors
    /// EC2's errors. Nothing is assigned.
    pub fn assign_ipv6_addresses(
        &mut self,
        id: &EniId,
        pick: &Pick6,
        now: Duration,
    ) -> Result<Assigned<Ipv6Addr, Ipv6Net>, ApiError> {
        self.begin(Action::AssignIpv6Addresses, true, now)?;
        let eni = self.ours(id)?;
        let (subnet, held) = (eni.subnet.clone(), eni.ipv6.len() + eni.ipv6_prefixes.len());
        self.check_room(
            id,
            held,
            address::slots(pick),
            address::wants_prefixes(pick),
        )?;
        let place = self
            .places
            .get_mut(&subnet)
            .expect("an interface's subnet outlives it");
        let Given {
            addresses,
            prefixes,
        } = address::take::<V6>(place, pick, &mut self.dice.addresses)?;
        let eni = self.eni_mut(id)?;
        eni.ipv6.extend(&addresses);
        eni.ipv6_prefixes.extend(&prefixes);
        self.arrive(id, &nets6(&addresses, &prefixes), now);
        self.advance(now);
        Ok(Assigned {
            addresses,
            prefixes,
        })
    }

    /// UnassignPrivateIpAddresses.
    ///
    /// # Errors
    /// If one of them is the primary address or not assigned to this interface. None is unassigned.
    pub fn unassign_private_ip_addresses(
        &mut self,
        id: &EniId,
        addresses: &[Ipv4Addr],
        prefixes: &[Ipv4Net],
        now: Duration,
    ) -> Result<(), ApiError> {
        self.begin(Action::UnassignPrivateIpAddresses, true, now)?;
        let eni = self.ours(id)?;
        if let Some(primary) = eni.primary().filter(|p| addresses.contains(p)) {
            return Err(ApiError::PrimaryAddress {
                eni: id.clone(),
                address: primary.into(),
            });
        }
        let here = addresses.iter().all(|a| eni.ipv4.contains(a))
            && prefixes.iter().all(|p| eni.ipv4_prefixes.contains(p));
        if !here {
            return Err(ApiError::NotAssigned { eni: id.clone() });
        }
        self.remove4(id, addresses, prefixes, now)
    }

    fn remove4(
        &mut self,
        id: &EniId,
        addresses: &[Ipv4Addr],
        prefixes: &[Ipv4Net],
        now: Duration,
    ) -> Result<(), ApiError> {
        let eni = self.eni_mut(id)?;
        eni.ipv4.retain(|a| !addresses.contains(a));
        eni.ipv4_prefixes.retain(|p| !prefixes.contains(p));
        let subnet = eni.subnet.clone();
        let given = Given::<V4> {
            addresses: addresses.to_vec(),
            prefixes: prefixes.to_vec(),
        };
        if let Some(place) = self.places.get_mut(&subnet) {
            address::give_back(place, &given);
        }
        self.depart(id, &nets4(addresses, prefixes), now);
        Ok(())
    }

    /// UnassignIpv6Addresses.
    ///
    /// # Errors
    /// If one of them is not assigned to this interface. None is unassigned.
    pub fn unassign_ipv6_addresses(
        &mut self,
        id: &EniId,
        addresses: &[Ipv6Addr],
        prefixes: &[Ipv6Net],
        now: Duration,
    ) -> Result<(), ApiError> {
        self.begin(Action::UnassignIpv6Addresses, true, now)?;
        let eni = self.ours(id)?;
        let here = addresses.iter().all(|a| eni.ipv6.contains(a))
            && prefixes.iter().all(|p| eni.ipv6_prefixes.contains(p));
        if !here {
            return Err(ApiError::NotAssigned { eni: id.clone() });
        }
        let eni = self.eni_mut(id)?;
        eni.ipv6.retain(|a| !addresses.contains(a));
        eni.ipv6_prefixes.retain(|p| !prefixes.contains(p));
        let subnet = eni.subnet.clone();
        let given = Given::<V6> {
            addresses: addresses.to_vec(),
            prefixes: prefixes.to_vec(),
        };
        if let Some(place) = self.places.get_mut(&subnet) {
            address::give_back(place, &given);
        }
        self.depart(id, &nets6(addresses, prefixes), now);
        Ok(())
    }

    fn ours(&self, id: &EniId) -> Result<&NetworkInterface, ApiError> {
        let eni = self.eni(id)?;
        if eni.requester_managed {
            Err(ApiError::Managed { eni: id.clone() })
        } else {
            Ok(eni)
        }
    }

    fn check_room(
        &self,
        id: &EniId,
        held: usize,
        more: usize,
        prefixes: bool,
    ) -> Result<(), ApiError> {
        let under = self.type_under(self.eni(id)?);
        if let Some(t) = under.filter(|t| prefixes && !t.supports_prefixes()) {
            return Err(ApiError::PrefixesUnsupported {
                instance_type: t.name.to_string(),
            });
        }
        check_slots(
            held.saturating_add(more),
            under.map_or_else(most_addresses, |t| t.ipv4_per_eni),
        )
    }

    /// Explicit addresses of other interfaces are moved if the request allows it, and refused otherwise.
    fn take_over(&mut self, pick: &Pick4, allowed: bool, now: Duration) -> Result<(), ApiError> {
        let Pick::These(wanted) = pick else {
            return Ok(());
        };
        let held: Vec<_> = wanted
            .iter()
            .filter_map(|a| Some((self.owner_of(*a)?.clone(), *a)))
            .collect();
        if let Some((_, address)) = held.first().filter(|_| !allowed) {
            return Err(ApiError::MoveNotAllowed {
                addresses: address.to_string(),
            });
        }
        for (eni, address) in &held {
            if eni.primary() == Some(*address) {
                return Err(ApiError::PrimaryAddress {
                    eni: eni.id.clone(),
                    address: IpAddr::V4(*address),
                });
            }
        }
        for (eni, address) in held {
            self.remove4(&eni.id, &[address], &[], now)?;
        }
        Ok(())
    }
}

fn nets4(addresses: &[Ipv4Addr], prefixes: &[Ipv4Net]) -> Vec<IpNet> {
    let singles = addresses.iter().map(|a| IpNet::from(IpAddr::from(*a)));
    singles
        .chain(prefixes.iter().copied().map(IpNet::from))
        .collect()
}

fn nets6(addresses: &[Ipv6Addr], prefixes: &[Ipv6Net]) -> Vec<IpNet> {
    let singles = addresses.iter().map(|a| IpNet::from(IpAddr::from(*a)));
    singles
        .chain(prefixes.iter().copied().map(IpNet::from))
        .collect()
}
