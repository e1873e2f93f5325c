//! Why the node's network cannot be configured.

use ipnet::Ipv4Net;

use crate::netlink::{Error, Mac};
use nettypes::EniIndex;

/// Why the node's network cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// IPv4 forwarding is off, and the daemon may not enable it.
    #[error("net.ipv4.ip_forward is 0 and /proc/sys cannot be written: set it on the node")]
    ForwardingOff {
        /// Why it cannot be written: `EROFS` in a container without privileges.
        #[source]
        source: std::io::Error,
    },
    /// An IPv6 setting has the wrong value, and the daemon may not change it.
    #[error("{path} is not {value} and cannot be written: set it on the node")]
    Setting {
        /// The file.
        path: String,
        /// The required value.
        value: &'static str,
        /// Why it cannot be written: `EROFS` in a container without privileges.
        #[source]
        source: std::io::Error,
    },
    /// An IPv6 setting does not exist: the kernel has no IPv6, or was started with `ipv6.disable=1`.
    #[error("cannot read {path}: does the node have IPv6?")]
    NoIpv6 {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A setting could not be read.
    #[error("cannot read {path}")]
    Sysctl {
        /// The file.
        path: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// No link has this MAC address, or none appeared in time.
    #[error("no network interface with MAC {mac}")]
    LinkMissing {
        /// The address.
        mac: Mac,
    },
    /// An index that the ENI field of packet marks has no room for.
    #[error("ENI index {index} does not fit into the mark bits {mask:#x}")]
    Index {
        /// The index.
        index: EniIndex,
        /// The field.
        mask: u32,
    },
    /// A subnet that is too small for a gateway.
    #[error("subnet {subnet} has no gateway address")]
    Subnet {
        /// The subnet.
        subnet: Ipv4Net,
    },
    /// The kernel refused a request, or a socket failed.
    #[error("{what}")]
    Netlink {
        /// The operation.
        what: &'static str,
        /// The cause.
        #[source]
        source: Error,
    },
}

/// Adds the name of an operation to a netlink error.
pub(super) trait During<T> {
    fn during(self, what: &'static str) -> Result<T, HostError>;
}

impl<T> During<T> for Result<T, Error> {
    fn during(self, what: &'static str) -> Result<T, HostError> {
        self.map_err(|source| HostError::Netlink { what, source })
    }
}
