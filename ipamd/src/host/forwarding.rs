//! Looks now and then whether a filter of another program drops what the node forwards for pods.
//!
//! Only looks and tells. An ADD goes on: the filter may be about to change, and the pod may need no one beyond its node.

use std::{sync::Arc, time::Duration};

use datapath::{
    filter::{self, Blocked, Packet},
    marks::Marks,
    netlink::{Error, Family, Socket},
};
use proto::error_chain::chain;

use crate::telemetry::metrics::Metrics;

/// Before the first look: pods may have waited for the daemon's start, and a look takes the kernel's lock for links.
const FIRST: Duration = Duration::from_secs(2);
/// Between two looks. A look reads every rule of the node.
const PERIOD: Duration = Duration::from_secs(60);

/// The chains that drop packets, each with the way of the packets.
///
/// # Errors
/// If a ruleset or the links cannot be read.
pub fn blocked(
    family: Family,
    veth_prefix: &str,
    marks: Marks,
) -> Result<Vec<(&'static str, Blocked)>, Error> {
    let mut socket = Socket::open()?;
    let routes = socket.routes(family, None)?;
    let way_out = routes.iter().find(|route| route.dst.prefix_len() == 0);
    let links = socket.links()?;
    let uplink = way_out.and_then(|route| {
        let link = links.iter().find(|link| Some(link.index) == route.oif)?;
        Some(link.name.clone())
    });
    // Any pod's link: filters tell them by what their names begin with.
    let pod = format!("{veth_prefix}00000000000");
    let uplink = uplink.as_deref().unwrap_or("eth0");
    let ways = [
        ("from pods to other nodes", &*pod, uplink),
        ("from other nodes to pods", uplink, &*pod),
        ("between pods of this node", &*pod, &*pod),
    ];
    let mut found = Vec::new();
    for (way, iif, oif) in ways {
        let packet = Packet {
            family,
            iif,
            oif,
            marks,
        };
        found.extend(
            filter::blocked(&packet)?
                .into_iter()
                .map(|chain| (way, chain)),
        );
    }
    Ok(found)
}

/// Looks for ever. Tells each change once, and has the metric say how many chains there are.
pub async fn watch(family: Family, veth_prefix: String, marks: Marks, metrics: Arc<Metrics>) {
    let mut told = Vec::new();
    tokio::time::sleep(FIRST).await;
    loop {
        let prefix = veth_prefix.clone();
        // It reads the kernel, which takes milliseconds where there are thousands of rules.
        let found = tokio::task::spawn_blocking(move || blocked(family, &prefix, marks)).await;
        match found {
            Ok(Ok(found)) => {
                metrics.forwarding_blocked(found.len());
                tell(&found, &told);
                told = found;
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    error = chain(&error),
                    "could not read the filters of other programs"
                );
            }
            // It panicked, or the runtime ends.
            Err(_) => {}
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn tell(found: &[(&'static str, Blocked)], told: &[(&'static str, Blocked)]) {
    for (way, chain) in found.iter().filter(|blocked| !told.contains(blocked)) {
        tracing::error!(%chain, way, "a filter of another program drops pods' packets");
    }
    if found.is_empty() && !told.is_empty() {
        tracing::info!("no filter of another program drops pods' packets any more");
    }
}
