//! Links with programs for their packets (`tc` with `clsact`): network policies and other filters in eBPF.

use std::collections::BTreeSet;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcMessage};

use super::super::{Error, Request, Socket};

/// The queueing discipline that only holds programs.
const CLSACT: &str = "clsact";

impl Socket {
    /// The indices of the links of the namespace that have one.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub fn links_with_programs(&mut self) -> Result<BTreeSet<u32>, Error> {
        let every = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let found = self.dump(&Request::dump("qdisc dump", every), of_clsact)?;
        Ok(found.into_iter().collect())
    }
}

fn of_clsact(message: &RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewQueueDiscipline(message) = message else {
        return None;
    };
    let kind =
        |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == CLSACT);
    let index = u32::try_from(message.header.index).ok()?;
    message.attributes.iter().any(kind).then_some(index)
}
