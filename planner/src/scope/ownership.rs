//! Whose an ENI is: which ENIs the pool may grow, shrink, detach and delete.
//!
//! Owns that decision and its reasons. It looks at what EC2 says about the ENI and about the node. It must not know the
//! pool, and it must not call EC2: the daemon passes the facts in.

use std::{fmt, net::IpAddr};

use crate::EniId;

/// What EC2 says about an ENI, as far as the decision needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    pub eni: &'a EniId,
    /// It is the instance's primary ENI.
    pub primary: bool,
    /// `interface`, `efa`, `trunk`, …
    pub interface_type: &'a str,
    /// It has an IPv4 address. EFA-only interfaces have none.
    pub has_ipv4: bool,
    /// An AWS service requested it or operates it.
    pub managed_by_aws: bool,
    /// The instance id in the tag of the node that created it.
    pub instance_tag: Option<&'a str>,
    /// The value of the tag `no_manage`.
    pub no_manage_tag: Option<&'a str>,
    pub vpc: Option<&'a str>,
    pub zone: Option<&'a str>,
    /// `in-use`, `available`, `associated`, …
    pub status: &'a str,
    /// Whether EC2 shows its subnet to this account.
    pub subnet_visible: bool,
    /// An address of it that the node itself uses, as the kernel shows. `None` once the pool has managed the ENI: a DHCP
    /// client that configures it later does not make it the node's.
    pub used_by_host: Option<IpAddr>,
}

/// The node, as far as the decision needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    pub instance: &'a str,
    /// `None` if the node does not know its VPC: then the VPC is not compared. Likewise the zone.
    pub vpc: Option<&'a str>,
    pub zone: Option<&'a str>,
    /// `MANAGE_UNTAGGED_ENI`.
    pub manage_untagged: bool,
}

/// Whether the pool manages an ENI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    Managed,
    Unmanaged(Reason),
}

/// Why the pool leaves an ENI alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    InterfaceType(String),
    NoIpv4,
    ManagedByAws,
    OtherVpc { vpc: String, ours: String },
    OtherZone { zone: String, ours: String },
    Status(String),
    NoManageTag,
    Untagged,
    SubnetNotVisible,
    UsedByHost(IpAddr),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InterfaceType(kind) => write!(f, "its type is {kind}, not interface"),
            Self::NoIpv4 => f.write_str("it has no IPv4 address"),
            Self::ManagedByAws => f.write_str("an AWS service manages it"),
            Self::OtherVpc { vpc, ours } => {
                write!(f, "it is in {vpc}, and the node is in {ours}")
            }
            Self::OtherZone { zone, ours } => {
                write!(f, "it is in zone {zone}, and the node is in {ours}")
            }
            Self::Status(status) => write!(f, "its status is {status}"),
            Self::NoManageTag => f.write_str("it carries the tag no_manage"),
            Self::Untagged => {
                f.write_str("it does not carry this node's tag, and MANAGE_UNTAGGED_ENI is false")
            }
            Self::SubnetNotVisible => f.write_str("EC2 does not show its subnet to this account"),
            Self::UsedByHost(address) => write!(
                f,
                "the node did not create it, and uses its address {address} itself"
            ),
        }
    }
}

impl Ownership {
    #[must_use]
    pub fn is_managed(&self) -> bool {
        *self == Self::Managed
    }
}

impl Facts<'_> {
    /// Whether `node` created it. If it is unattached, it may be deleted.
    #[must_use]
    pub fn tagged_ours(&self, node: &Node<'_>) -> bool {
        self.instance_tag == Some(node.instance)
    }
}

/// Decides whose an ENI is. The primary ENI always belongs to the pool. Other ENIs must be ordinary ones that pods of this
/// node can use; then the tags decide. One that the node did not create must not serve the node itself.
#[must_use]
pub fn ownership(facts: &Facts<'_>, node: &Node<'_>) -> Ownership {
    if facts.primary {
        return Ownership::Managed;
    }
    let reason = unusable(facts, node)
        .or_else(|| refused_by_tags(facts, node))
        .or_else(|| serves_the_host(facts, node));
    match reason {
        Some(reason) => Ownership::Unmanaged(reason),
        None => Ownership::Managed,
    }
}

fn unusable(facts: &Facts<'_>, node: &Node<'_>) -> Option<Reason> {
    if facts.interface_type != "interface" {
        return Some(Reason::InterfaceType(facts.interface_type.to_owned()));
    }
    if !facts.has_ipv4 {
        return Some(Reason::NoIpv4);
    }
    if facts.managed_by_aws {
        return Some(Reason::ManagedByAws);
    }
    if let Some((vpc, ours)) = differ(facts.vpc, node.vpc) {
        return Some(Reason::OtherVpc { vpc, ours });
    }
    // One that this node created in another zone by mistake cannot be attached, and nobody else would delete it.
    let stray = facts.tagged_ours(node) && facts.status == "available";
    if let Some((zone, ours)) = differ(facts.zone, node.zone).filter(|_| !stray) {
        return Some(Reason::OtherZone { zone, ours });
    }
    // An ENI that is being attached is `in-use`; `attaching` and `detaching` are states of EC2's own transitions.
    if !["in-use", "available", "attaching", "detaching", "pending"].contains(&facts.status) {
        return Some(Reason::Status(facts.status.to_owned()));
    }
    (!facts.subnet_visible).then_some(Reason::SubnetNotVisible)
}

fn refused_by_tags(facts: &Facts<'_>, node: &Node<'_>) -> Option<Reason> {
    match facts.no_manage_tag {
        Some("true") => Some(Reason::NoManageTag),
        Some(_) => None,
        None if facts.tagged_ours(node) || node.manage_untagged => None,
        None => Some(Reason::Untagged),
    }
}

fn serves_the_host(facts: &Facts<'_>, node: &Node<'_>) -> Option<Reason> {
    let used = facts.used_by_host.filter(|_| !facts.tagged_ours(node));
    used.map(Reason::UsedByHost)
}

fn differ(theirs: Option<&str>, ours: Option<&str>) -> Option<(String, String)> {
    let (theirs, ours) = (theirs?, ours?);
    (theirs != ours).then(|| (theirs.to_owned(), ours.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Node<'_> = Node {
        instance: "i-1",
        vpc: Some("vpc-1"),
        zone: Some("zone-a"),
        manage_untagged: true,
    };

    fn of(change: impl FnOnce(&mut Facts<'_>)) -> Ownership {
        at(&NODE, change)
    }

    fn at(node: &Node<'_>, change: impl FnOnce(&mut Facts<'_>)) -> Ownership {
        let eni = EniId::from("eni-1");
        let mut facts = Facts {
            eni: &eni,
            primary: false,
            interface_type: "interface",
            has_ipv4: true,
            managed_by_aws: false,
            instance_tag: None,
            no_manage_tag: None,
            vpc: Some("vpc-1"),
            zone: Some("zone-a"),
            status: "in-use",
            subnet_visible: true,
            used_by_host: None,
        };
        change(&mut facts);
        ownership(&facts, node)
    }

    #[test]
    fn an_ordinary_eni_of_the_node_is_managed() {
        assert_eq!(of(|_| ()), Ownership::Managed);
        assert_eq!(of(|facts| facts.status = "available"), Ownership::Managed);
    }

    #[test]
    fn an_untagged_eni_is_managed_if_the_setting_says_so() {
        let strict = Node {
            manage_untagged: false,
            ..NODE
        };
        assert_eq!(at(&strict, |_| ()), Ownership::Unmanaged(Reason::Untagged));
        let ours = at(&strict, |facts| facts.instance_tag = Some("i-1"));
        assert_eq!(ours, Ownership::Managed);
        let other = at(&strict, |facts| facts.instance_tag = Some("i-2"));
        assert_eq!(other, Ownership::Unmanaged(Reason::Untagged));
    }

    #[test]
    fn the_tag_no_manage_is_obeyed() {
        let tagged = of(|facts| facts.no_manage_tag = Some("true"));
        assert_eq!(tagged, Ownership::Unmanaged(Reason::NoManageTag));
        let other = of(|facts| facts.no_manage_tag = Some("false"));
        assert_eq!(other, Ownership::Managed);
    }

    #[test]
    fn an_eni_that_the_node_did_not_create_and_uses_itself_is_left_alone() {
        let own: IpAddr = [10, 0, 3, 7].into();
        let found = of(|facts| facts.used_by_host = Some(own));
        let Ownership::Unmanaged(reason) = found else {
            panic!("managed, although the node uses it");
        };
        assert_eq!(reason, Reason::UsedByHost(own));
        assert!(reason.to_string().contains("10.0.3.7"), "{reason}");
    }

    /// DHCP clients configure every interface that appears.
    #[test]
    fn an_eni_that_the_node_created_is_managed_although_a_dhcp_client_configured_it() {
        let found = of(|facts| {
            facts.instance_tag = Some("i-1");
            facts.used_by_host = Some([10, 0, 3, 7].into());
        });
        assert_eq!(found, Ownership::Managed);
    }

    #[test]
    fn enis_that_pods_cannot_use_are_left_alone_whatever_their_tags_say() {
        type Change = fn(&mut Facts<'_>);
        let cases: [(Change, &str); 7] = [
            (
                |facts| facts.interface_type = "efa",
                "its type is efa, not interface",
            ),
            (|facts| facts.has_ipv4 = false, "it has no IPv4 address"),
            (
                |facts| facts.managed_by_aws = true,
                "an AWS service manages it",
            ),
            (
                |facts| facts.vpc = Some("vpc-2"),
                "it is in vpc-2, and the node is in vpc-1",
            ),
            (
                |facts| facts.zone = Some("zone-b"),
                "it is in zone zone-b, and the node is in zone-a",
            ),
            (
                |facts| facts.status = "associated",
                "its status is associated",
            ),
            (
                |facts| facts.subnet_visible = false,
                "EC2 does not show its subnet to this account",
            ),
        ];
        for (change, text) in cases {
            let found = of(|facts| {
                facts.instance_tag = Some("i-1");
                change(facts);
            });
            let Ownership::Unmanaged(reason) = found else {
                panic!("managed, although {text}");
            };
            assert_eq!(reason.to_string(), text);
        }
    }

    #[test]
    fn the_primary_eni_is_managed_whatever_else_is_true() {
        let found = of(|facts| {
            facts.primary = true;
            facts.no_manage_tag = Some("true");
            facts.managed_by_aws = true;
        });
        assert_eq!(found, Ownership::Managed);
    }

    /// An ENIConfig may have named a subnet of another zone.
    #[test]
    fn an_unattached_eni_that_the_node_created_in_another_zone_is_its_own() {
        let made = |facts: &mut Facts<'_>| {
            facts.instance_tag = Some("i-1");
            facts.zone = Some("zone-b");
        };
        let loose = of(|facts| {
            made(facts);
            facts.status = "available";
        });
        assert_eq!(loose, Ownership::Managed);
        assert!(
            !of(made).is_managed(),
            "attached, it is on another instance"
        );
    }

    #[test]
    fn a_vpc_or_zone_that_is_not_known_is_not_compared() {
        let unknown = Node {
            vpc: None,
            zone: None,
            ..NODE
        };
        let found = at(&unknown, |facts| facts.vpc = Some("vpc-2"));
        assert_eq!(found, Ownership::Managed);
    }
}
