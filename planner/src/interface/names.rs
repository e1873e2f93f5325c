//! Identifiers: a newtype for each kind that crosses the planner's edge.

use std::fmt;

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
    AttachmentId);
string_name!(/// A subnet: `subnet-…`.
    SubnetId);
string_name!(/// A security group: `sg-…`.
    SecurityGroupId);

/// The primary key of a CNI attachment (CNI specification, "Section 2: Execution Protocol").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sandbox {
    pub network: String,
    pub container_id: String,
    pub ifname: String,
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            network,
            container_id,
            ifname,
        } = self;
        write!(f, "{network}/{container_id}/{ifname}")
    }
}

/// The pod that an ADD is for, as far as the runtime says. It is only shown to people; no decision depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub uid: Option<String>,
}

impl Pod {
    /// `namespace/name`. `None` if the runtime gave no name.
    #[must_use]
    pub fn full_name(&self) -> Option<String> {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        let name = self.name.as_ref()?;
        Some(format!("{namespace}/{name}"))
    }
}

/// One ADD that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One command that is being carried out. Its [`crate::Answer`] carries the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Op(pub u64);
