//! Owns the parsing of addresses in messages. A wrong length is an error and never a panic.

use std::net::IpAddr;

use nettypes::Mac;

/// Bytes of a message that are not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} has {got} bytes instead of {want}")]
pub struct AddressError {
    /// The name of the field in the contract.
    pub field: &'static str,
    /// Bytes received.
    pub got: usize,
    /// The length of such an address in bytes.
    pub want: &'static str,
}

/// Parses an IP address: four bytes or sixteen, in network order. `field` is for the error.
///
/// # Errors
/// Any other length.
pub fn ip(field: &'static str, bytes: &[u8]) -> Result<IpAddr, AddressError> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let sixteen = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| sixteen())
        .map_err(|_| AddressError::new(field, bytes, "4 or 16"))
}

/// The bytes that [`ip`] parses.
#[must_use]
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().into(),
        IpAddr::V6(six) => six.octets().into(),
    }
}

/// Parses a link-layer address: six bytes. `field` is for the error.
///
/// # Errors
/// Any other length.
pub fn mac(field: &'static str, bytes: &[u8]) -> Result<Mac, AddressError> {
    let six = bytes.try_into();
    six.map(Mac)
        .map_err(|_| AddressError::new(field, bytes, "6"))
}

impl AddressError {
    const fn new(field: &'static str, bytes: &[u8], want: &'static str) -> Self {
        Self {
            field,
            got: bytes.len(),
            want,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_network_order() {
        assert_eq!(
            ip("address", &[10, 0, 3, 7]),
            Ok(IpAddr::from([10, 0, 3, 7]))
        );
        let six: IpAddr = "2600:1f14::7".parse().unwrap();
        assert_eq!(ip("address", &octets(six)), Ok(six));
        assert_eq!(octets(six)[..4], [0x26, 0, 0x1f, 0x14]);
    }

    #[test]
    fn wrong_lengths_name_field_and_figures() {
        for bytes in [&[][..], &[1, 2, 3], &[0; 15]] {
            let error = ip("address", bytes).unwrap_err();
            assert_eq!((error.got, error.want), (bytes.len(), "4 or 16"));
        }
        assert_eq!(
            mac("pod.mac", &[1; 5]).unwrap_err().to_string(),
            "pod.mac has 5 bytes instead of 6"
        );
    }
}
