//! The number of EC2 calls of a node: for each new ENI, and in an idle hour. In virtual time, with the daemon's own
//! pool, planner and executor.

use std::io;

use sim::fleet;

use crate::{Bench, figure::Figure};

/// See the module.
///
/// # Errors
/// Never; the signature is the same for all parts.
pub fn measure(bench: &mut Bench) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    for row in runtime.block_on(fleet::run(1, 1)) {
        let calls = u32::try_from(row.total().answered).map_or(f64::NAN, f64::from);
        let budget = match row.scenario {
            "all grow one ENI" => Some(("EC2 calls for one more ENI", 3.0)),
            "one hour idle" => Some(("EC2 calls in an idle hour", 0.0)),
            _ => None,
        };
        if let Some((name, budget)) = budget {
            bench
                .report
                .add(Figure::plain(name, calls, "").within(budget));
        }
    }
    Ok(())
}
