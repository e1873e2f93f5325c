//! What a pod asks of its network besides an address.

use crate::{Bandwidth, HostPort};

/// What a pod asks of its network besides an address. By default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Each at most once.
    pub ports: Vec<HostPort>,
    /// The limits of its traffic.
    pub bandwidth: Bandwidth,
}
