//! Hardware addresses.

use std::fmt;

/// A MAC address. Its text form has lower-case hexadecimal digits and colons, as `ip link` and CNI results have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Makes six random bytes a valid address: unicast, and locally administered, so that it cannot be a vendor's.
    #[must_use]
    pub const fn local(mut random: [u8; 6]) -> Self {
        random[0] = (random[0] | 0x02) & !0x01;
        Self(random)
    }

    /// `None` for 00:00:00:00:00:00, which links without a hardware address report.
    #[must_use]
    pub fn nonzero(self) -> Option<Self> {
        (self.0 != [0; 6]).then_some(self)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_is_displayed_with_two_digits() {
        let mac = Mac([0x02, 0, 0x0a, 0xff, 0x10, 0x01]);
        assert_eq!(mac.to_string(), "02:00:0a:ff:10:01");
    }

    #[test]
    fn any_six_bytes_become_a_local_unicast_address() {
        for first in 0..=u8::MAX {
            let Mac(mac) = Mac::local([first, 1, 2, 3, 4, 5]);
            assert_eq!(mac[0] & 0b11, 0b10);
            assert_eq!(
                (mac[0] & !0b11, &mac[1..]),
                (first & !0b11, &[1, 2, 3, 4, 5][..])
            );
        }
    }

    #[test]
    fn the_zero_address_is_none() {
        assert_eq!(Mac::default().nonzero(), None);
        assert_eq!(
            Mac([0, 0, 0, 0, 0, 1]).nonzero(),
            Some(Mac([0, 0, 0, 0, 0, 1]))
        );
    }
}
