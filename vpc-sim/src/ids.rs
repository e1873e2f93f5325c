//! The names of EC2 things, and where they come from: a seeded generator, so that a seed repeats a whole run.

use std::fmt;

use nettypes::Mac;

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
id!(/// An instance: `i-…`.
    InstanceId, "i-");

/// An address as EC2 gives them: locally administered and unicast.
pub(crate) fn draw_mac(rng: &mut Rng) -> Mac {
    let [a, b, c, d, e, ..] = rng.next().to_be_bytes();
    Mac([0x02, a, b, c, d, e])
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators"): small, seedable, and the same
/// on every platform. Each purpose gets its own, so that drawing a latency never changes an address.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    #[must_use]
    pub const fn new(seed: u64, purpose: u64) -> Self {
        Self(seed ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, or 0 when there is none. The bias is that of one remainder: no test can see it.
    pub fn below(&mut self, bound: u128) -> u128 {
        let wide = (u128::from(self.next()) << 64) | u128::from(self.next());
        wide.checked_rem(bound).unwrap_or(0)
    }

    /// A number in 0..=1.
    pub fn unit(&mut self) -> f64 {
        let high = u32::try_from(self.next() >> 32).expect("32 bits were shifted out");
        f64::from(high) / f64::from(u32::MAX)
    }
}
