//! Errors of a netlink socket, with the name of the request and the kernel's message.

use netlink_packet_core::DecodeError;
use nix::errno::Errno;

/// The failure of one request, or of its socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused the request.
    #[error("{op}: {errno}{}", said(message.as_deref()))]
    Kernel {
        /// The name of the request, such as `route add`.
        op: &'static str,
        /// The kernel's error.
        errno: Errno,
        /// The kernel's explanation (extended acknowledgement), if there is one.
        message: Option<String>,
    },
    /// The socket failed. After `ENOBUFS`, answers were lost, and the result of the requests in flight is unknown.
    #[error("{op}: netlink socket failed")]
    Socket {
        /// The operation.
        op: &'static str,
        /// The kernel's error.
        #[source]
        errno: Errno,
    },
    /// There was no answer within the receive timeout. The kernel answers immediately, so the answer was lost.
    #[error("{op}: no answer from the kernel")]
    Timeout {
        /// What the caller waited for.
        op: &'static str,
    },
    /// All of several dumps were disturbed by concurrent changes.
    #[error("{op}: interrupted {attempts} times by concurrent changes")]
    Interrupted {
        /// The dump.
        op: &'static str,
        /// The number of attempts.
        attempts: u32,
    },
    /// An answer that cannot be parsed.
    #[error("{op}: malformed answer")]
    Decode {
        /// The request of the answer.
        op: &'static str,
        /// The parse error.
        #[source]
        source: DecodeError,
    },
    /// A truncated answer: its length is impossible, or larger than the buffer.
    #[error("{op}: truncated answer")]
    Truncated {
        /// The request of the answer.
        op: &'static str,
    },
    /// A descriptor that is not an `AF_NETLINK`/`NETLINK_ROUTE` socket.
    #[error("not a route netlink socket (domain {domain}, protocol {protocol})")]
    NotRouteNetlink {
        /// `SO_DOMAIN`.
        domain: i32,
        /// `SO_PROTOCOL`.
        protocol: i32,
    },
    /// A socket and the calling thread, or two sockets, are not in the same namespace.
    #[error("{op}: socket belongs to another network namespace")]
    ForeignNamespace {
        /// The operation.
        op: &'static str,
    },
    /// A namespace could not be opened or entered.
    #[error("{op}: no access to the network namespace")]
    Namespace {
        /// The operation.
        op: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the kernel refused the request with `errno`.
    #[must_use]
    pub fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::Kernel { errno: e, .. } if *e == errno)
    }

    /// Whether the object does not exist: `ENODEV`, `ESRCH`, `ENOENT` or `EADDRNOTAVAIL`, depending on the object. For
    /// a deletion, this is a success.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        [
            Errno::ENODEV,
            Errno::ESRCH,
            Errno::ENOENT,
            Errno::EADDRNOTAVAIL,
        ]
        .iter()
        .any(|e| self.is(*e))
    }

    /// The kernel's error, if there is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } | Self::Socket { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

fn said(message: Option<&str>) -> String {
    message.map(|m| format!(" ({m})")).unwrap_or_default()
}
