//! The ids of EC2 objects, and their generator, which has a seed, so that a seed reproduces a whole run.

use std::fmt;

use nettypes::Mac;

use crate::random::Rng;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub String);

        impl $name {
            pub(crate) fn draw(rng: &mut Rng) -> Self {
                Self(format!(concat!($prefix, "0{:016x}"), rng.next()))
            }
        }

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

        impl From<String> for $name {
            fn from(s: String) -> Self {
                Self(s)
            }
        }
    };
}

id!(/// A network interface: `eni-…`.
    EniId, "eni-");
id!(/// The bond between an interface and an instance: `eni-attach-…`.
    AttachmentId, "eni-attach-");
id!(/// A subnet: `subnet-…`.
    SubnetId, "subnet-");
id!(/// A VPC: `vpc-…`.
    VpcId, "vpc-");
id!(/// A security group: `sg-…`.
    GroupId, "sg-");
id!(/// A route table: `rtb-…`.
    RouteTableId, "rtb-");
id!(/// An instance: `i-…`.
    InstanceId, "i-");

/// An address like EC2's: locally administered and unicast.
pub(crate) fn draw_mac(rng: &mut Rng) -> Mac {
    let [a, b, c, d, e, ..] = rng.next().to_be_bytes();
    Mac([0x02, a, b, c, d, e])
}
