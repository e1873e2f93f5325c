//! Looks now and then whether packets in transit carry mark bits of ENIs although no pod sent them.
//!
//! Another program then uses the same bits, and its packets follow our rules. Only counts and tells.

use std::{sync::Arc, time::Duration};

use datapath::{marks::Marks, netlink::Error, nft::Nft};
use proto::error_chain::chain;

use crate::telemetry::metrics::Metrics;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(60);

/// The packets so far; `None` if nothing is counted.
///
/// # Errors
/// If the kernel cannot be queried.
pub fn counted() -> Result<Option<u64>, Error> {
    Nft::open()?.transit()
}

/// Looks for ever. Tells when packets begin and cease to come, and has the metric count them.
pub async fn watch(marks: Marks, metrics: Arc<Metrics>) {
    let (mut known, mut told) = (None, false);
    loop {
        let now = tokio::task::spawn_blocking(move || look(known.is_none(), marks)).await;
        match now {
            Ok(Ok(now)) => {
                let more = now.saturating_sub(known.unwrap_or(0));
                metrics.foreign_marked(more);
                tell(more, &mut told);
                known = Some(now);
            }
            Ok(Err(error)) => {
                // Kernels without counters have no other fault.
                tracing::warn!(
                    error = chain(&error),
                    "packets with foreign marks cannot be counted"
                );
                return;
            }
            // It panicked, or the runtime ends.
            Err(_) => {}
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Begins to count at the first look, and again if another program has removed the counter.
fn look(first: bool, marks: Marks) -> Result<u64, Error> {
    let mut nft = Nft::open()?;
    match nft.transit()? {
        Some(packets) if !first => Ok(packets),
        _ => nft.count_transit(marks).map(|()| 0),
    }
}

fn tell(more: u64, told: &mut bool) {
    if more > 0 && !*told {
        tracing::warn!(
            packets = more,
            "packets in transit carry mark bits of ENIs although no pod sent them, and may leave by the wrong interface: have \
             the program that marks them use other bits, or set HAWSER_ENI_MARK_MASK"
        );
    } else if more == 0 && *told {
        tracing::info!("no more packets in transit carry mark bits of ENIs");
    }
    *told = more > 0;
}
