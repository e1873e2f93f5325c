//! Identifiers: a newtype for each kind that crosses the planner's edge.

use std::{fmt, net::IpAddr};

macro_rules! string_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(s: &str) -> Self {
                Self(s.to_owned())
            }
        }
    };
}

string_name!(/// An elastic network interface: `eni-…`.
    EniId);
string_name!(/// EC2's id of an attachment of an ENI to an instance: `eni-attach-…`.
    Attachment);
string_name!(/// A subnet: `subnet-…`.
    SubnetId);

/// The primary key of a CNI attachment (CNI specification, "Section 2: Execution Protocol").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sandbox {
    pub network: String,
    pub container_id: String,
    pub ifname: String,
}

/// The pod that an ADD is for. It is only shown to people; no decision depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// One ADD that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One command that is being carried out. Its [`crate::Answer`] carries the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Op(pub u64);

/// An address and its ENI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub address: IpAddr,
    pub eni: EniId,
}
