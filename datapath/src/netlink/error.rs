//! What can go wrong on a netlink socket, with the request's name and the kernel's own words.

use netlink_packet_core::DecodeError;
use nix::errno::Errno;

/// Failure of one request, or of the socket that carried it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused the request.
    #[error("{op}: {errno}{}", said(message.as_deref()))]
    Kernel {
        /// Name of the request, such as `route add`.
        op: &'static str,
        /// The kernel's verdict.
        errno: Errno,
        /// The kernel's explanation (extended acknowledgement), when it gave one.
        message: Option<String>,
    },
    /// The socket failed. After `ENOBUFS` answers were lost, and nothing is known about the requests in flight.
    #[error("{op}: netlink socket failed")]
    Socket {
        /// What was being done.
        op: &'static str,
        /// The kernel's answer.
        #[source]
        errno: Errno,
    },
    /// No answer within the receive timeout. The kernel answers at once, so the answer was lost.
    #[error("{op}: no answer from the kernel")]
    Timeout {
        /// What was being waited for.
        op: &'static str,
    },
    /// Each of several dumps was disturbed by concurrent changes.
    #[error("{op}: interrupted {attempts} times by concurrent changes")]
    Interrupted {
        /// The dump.
        op: &'static str,
        /// How often it was tried.
        attempts: u32,
    },
    /// An answer that does not parse.
    #[error("{op}: malformed answer")]
    Decode {
        /// The request that was answered.
        op: &'static str,
        /// Where it went wrong.
        #[source]
        source: DecodeError,
    },
    /// An answer cut short: of a length that cannot be, or longer than the buffer.
    #[error("{op}: truncated answer")]
    Truncated {
        /// The request that was answered.
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
    /// A socket and the calling thread, or two sockets, that ought to be in one namespace and are not.
    #[error("{op}: socket belongs to another network namespace")]
    ForeignNamespace {
        /// What was being done.
        op: &'static str,
    },
    /// A namespace could not be opened or entered.
    #[error("{op}: no access to the network namespace")]
    Namespace {
        /// What was being done.
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

    /// Whether the object in question is not there: `ENODEV`, `ESRCH`, `ENOENT` or `EADDRNOTAVAIL`, depending on the
    /// object. Success for whoever is deleting.
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

    /// The kernel's verdict, when there is one.
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
