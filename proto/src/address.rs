//! Owns the reading of addresses from message bytes. A wrong length is an error here and a panic nowhere.

use std::fmt;
use std::net::Ipv4Addr;

/// Bytes of a message that are no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} has {got} bytes instead of {want}")]
pub struct AddressError {
    /// Name of the field as the contract spells it.
    pub field: &'static str,
    /// Bytes received.
    pub got: usize,
    /// Bytes that such an address has.
    pub want: usize,
}

/// Reads an IPv4 address: four bytes in network order. `field` names the bytes in the error.
///
/// # Errors
/// Any other length.
pub fn ipv4(field: &'static str, bytes: &[u8]) -> Result<Ipv4Addr, AddressError> {
    fixed::<4>(field, bytes).map(Ipv4Addr::from)
}

/// Reads a link-layer address: six bytes. `field` names the bytes in the error.
///
/// # Errors
/// Any other length.
pub fn mac(field: &'static str, bytes: &[u8]) -> Result<Mac, AddressError> {
    fixed::<6>(field, bytes).map(Mac)
}

fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], AddressError> {
    bytes.try_into().map_err(|_| AddressError {
        field,
        got: bytes.len(),
        want: N,
    })
}

/// A link-layer address; displayed in lower-case hexadecimal with colons, as every CNI result has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

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
    fn ipv4_is_network_order() {
        assert_eq!(
            ipv4("address", &[10, 0, 3, 7]),
            Ok(Ipv4Addr::new(10, 0, 3, 7))
        );
    }

    #[test]
    fn wrong_lengths_name_field_and_figures() {
        for bytes in [&[][..], &[1, 2, 3], &[0; 16]] {
            let error = ipv4("address", bytes).unwrap_err();
            assert_eq!((error.got, error.want), (bytes.len(), 4));
        }
        assert_eq!(
            mac("pod.mac", &[1; 5]).unwrap_err().to_string(),
            "pod.mac has 5 bytes instead of 6"
        );
    }

    #[test]
    fn mac_displays_every_octet_with_two_digits() {
        let mac = mac("mac", &[0x02, 0, 0x0a, 0xff, 0x10, 0x01]).unwrap();
        assert_eq!(mac.to_string(), "02:00:0a:ff:10:01");
    }
}
