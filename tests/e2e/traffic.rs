//! What happens to packets: who reaches whom, through which ENI, and with which address.
//!
//! Owns no helper that another theme needs: those are in `support`. May use `lab`, `suite` and `support`. Must not know
//! the other themes.

mod bandwidth;
mod capture;
mod egress;
mod host_ports;
mod imds;
mod nodeport;
mod other_family;
mod reachability;
mod snat;
mod spoof;
mod subnets;

use crate::suite::suites;

suites!(
    bandwidth,
    capture,
    egress,
    host_ports,
    imds,
    nodeport,
    other_family,
    reachability,
    snat,
    spoof,
    subnets
);
