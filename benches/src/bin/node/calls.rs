//! The number of EC2 calls of a node: for each new ENI, and in an idle hour. In virtual time, with the daemon's own
//! pool, planner and executor.

use std::io;

use planner::EniClass;
use sim::fleet;

use crate::{Bench, figure::Figure};

/// See the module.
///
/// # Errors
/// Never; the signature is the same for all parts.
pub fn measure(bench: &mut Bench) -> io::Result<()> {
    for (class, of_class, idle) in [
        (EniClass::by_tags(None), "", 1.0),
        (EniClass::like_primary(), " without subnet discovery", 0.0),
    ] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        for row in runtime.block_on(fleet::run(1, 1, &class)) {
            let calls = u32::try_from(row.total().answered).map_or(f64::NAN, f64::from);
            let (name, budget) = match row.scenario {
                "all grow one ENI" => ("EC2 calls for one more ENI", 3.0),
                "one hour idle" => ("EC2 calls in an idle hour", idle),
                _ => continue,
            };
            let figure = Figure::plain(format!("{name}{of_class}"), calls, "");
            bench.report.add(figure.within(budget));
        }
    }
    Ok(())
}
