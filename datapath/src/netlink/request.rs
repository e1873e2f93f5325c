//! A request as a value: name, message, flags. The verb modules build requests, and a socket sends them.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
};
use netlink_packet_route::RouteNetlinkMessage;

/// A request to the kernel. It has no effect until a [`Socket`](super::Socket) sends it.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) op: &'static str,
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) flags: u16,
}

impl Request {
    /// A request that changes or reads one object, with an acknowledgement.
    pub(crate) fn ack(op: &'static str, message: RouteNetlinkMessage, extra: u16) -> Self {
        Self {
            op,
            message,
            flags: NLM_F_REQUEST | NLM_F_ACK | extra,
        }
    }

    /// Fails with `EEXIST` if the object exists.
    pub(crate) fn create(op: &'static str, message: RouteNetlinkMessage) -> Self {
        Self::ack(op, message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Creates the object or replaces the one with the same key.
    pub(crate) fn replace(op: &'static str, message: RouteNetlinkMessage) -> Self {
        Self::ack(op, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    pub(crate) fn dump(op: &'static str, message: RouteNetlinkMessage) -> Self {
        Self {
            op,
            message,
            flags: NLM_F_REQUEST | NLM_F_DUMP,
        }
    }

    /// Name of the request, as it appears in errors.
    #[must_use]
    pub fn op(&self) -> &'static str {
        self.op
    }
}
