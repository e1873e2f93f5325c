//! The requests of callers. Each can represent only what EC2 would accept syntactically; the world checks the rest.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::model::{InterfaceType, Tags};
use crate::ids::{AttachmentId, EniId, GroupId, InstanceId, SubnetId};

/// The form in which addresses of one family are requested: EC2 accepts exactly one per call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pick<A, P> {
    #[default]
    Nothing,
    Count(u32),
    These(Vec<A>),
    PrefixCount(u32),
    Prefixes(Vec<P>),
}

pub type Pick4 = Pick<Ipv4Addr, Ipv4Net>;
pub type Pick6 = Pick<Ipv6Addr, Ipv6Net>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateNetworkInterface {
    pub subnet: SubnetId,
    /// Empty: the VPC's default group.
    pub groups: Vec<GroupId>,
    pub description: String,
    pub interface_type: InterfaceType,
    /// The primary address; chosen by EC2 if absent.
    pub primary: Option<Ipv4Addr>,
    /// In addition to the primary address.
    pub ipv4: Pick4,
    pub ipv6: Pick6,
    pub tags: Tags,
    pub client_token: Option<String>,
}

impl CreateNetworkInterface {
    /// Only one primary address in `subnet`.
    #[must_use]
    pub fn plain(subnet: SubnetId) -> Self {
        Self {
            subnet,
            groups: Vec::new(),
            description: String::new(),
            interface_type: InterfaceType::Interface,
            primary: None,
            ipv4: Pick::Nothing,
            ipv6: Pick::Nothing,
            tags: Tags::new(),
            client_token: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachNetworkInterface {
    pub eni: EniId,
    pub instance: InstanceId,
    pub card: u32,
    pub device: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachNetworkInterface {
    pub attachment: AttachmentId,
    /// Without waiting for the guest: immediate.
    pub force: bool,
}

/// The one attribute that a ModifyNetworkInterfaceAttribute changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    DeleteOnTermination {
        attachment: AttachmentId,
        value: bool,
    },
    Groups(Vec<GroupId>),
    SourceDestCheck(bool),
    Description(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignPrivateIpAddresses {
    pub eni: EniId,
    pub ipv4: Pick4,
    /// Moves explicit addresses from the interface that has them.
    pub allow_reassignment: bool,
}

/// The result of an Assign: only the new ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned<A, P> {
    pub addresses: Vec<A>,
    pub prefixes: Vec<P>,
}

/// Filters: all must match; within one, any value. Values may contain `*` and `?`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub name: String,
    pub values: Vec<String>,
}

/// The common part of a Describe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// All of them must exist, or the whole call fails.
    pub ids: Vec<String>,
    pub filters: Vec<Filter>,
    pub max_results: Option<u32>,
    pub next_token: Option<String>,
}

impl Query {
    /// By id.
    pub fn ids<T: ToString>(ids: impl IntoIterator<Item = T>) -> Self {
        Self {
            ids: ids.into_iter().map(|i| i.to_string()).collect(),
            ..Self::default()
        }
    }

    /// By one filter.
    #[must_use]
    pub fn filter(name: &str, value: &str) -> Self {
        let filter = Filter {
            name: name.to_owned(),
            values: vec![value.to_owned()],
        };
        Self {
            filters: vec![filter],
            ..Self::default()
        }
    }
}

/// One page of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next_token: Option<String>,
}
