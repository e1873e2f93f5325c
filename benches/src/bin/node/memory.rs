//! Whether the daemon's memory grows with use: resident memory after 50,000 and after 100,000 ADDs and DELs.

use std::{io, thread};

use lab::{
    Lab,
    node::{Node, count},
    wait::eventually,
};
use vpc_sim::SimConfig;

use crate::{
    Bench,
    caller::Caller,
    density::{A_LOOK, resident},
    figure::Figure,
    sample::now,
};

/// Measured twice: what still grows after the first half does so forever.
const HALF: usize = 50_000;
/// The maximum resident memory afterwards, in MiB.
const MEMORY: f64 = 24.0;
/// The number of simultaneous callers, and the sandboxes that each uses in turn: a link is removed after DEL, and the
/// next ADD in its namespace would wait for it.
const CALLERS: usize = 4;
const SANDBOXES: usize = 40;

/// See the module.
///
/// # Errors
/// If the lab or a call fails.
pub fn measure(bench: &mut Bench) -> io::Result<()> {
    let lab = Lab::start(SimConfig::default())?;
    // Half a second of cooldown: otherwise 100,000 cycles need more addresses than the instance has.
    let node = lab.node(
        "m5.24xlarge",
        &[
            ("WARM_IP_TARGET", "0"),
            ("MINIMUM_IP_TARGET", "735"),
            ("IP_COOLDOWN_PERIOD", "1"),
        ],
    )?;
    let warm = || count(&node, "free").is_ok_and(|free| free >= 700);
    if !eventually(std::time::Duration::from_secs(120), warm) {
        return Err(io::Error::other(format!(
            "the pool does not fill:\n{}",
            node.log()
        )));
    }
    // The daemon gives back the code that only its start used. Otherwise the first half would be without what it needs again.
    thread::sleep(A_LOOK);
    churn(&node, "w", HALF)?;
    let before = resident_at_rest(&node)?;
    let begun = now();
    churn(&node, "c", HALF)?;
    let rate = f64::from(u32::try_from(HALF).unwrap_or(u32::MAX)) / begun.elapsed().as_secs_f64();
    let after = resident_at_rest(&node)?;
    let report = &mut bench.report;
    report.add(Figure::plain("ADD and DEL in turn, calls only", rate, "/s"));
    let name = "ipamd resident after 100,000 ADDs and DELs";
    report.add(Figure::plain(name, after, "MiB").within(MEMORY));
    let name = "ipamd resident after 100,000 ADDs and DELs, beside 50,000";
    report.add(Figure::plain(name, after, "MiB").over(before).within(1.01));
    Ok(())
}

/// When the daemon has given back what was freed.
fn resident_at_rest(node: &Node) -> io::Result<f64> {
    thread::sleep(A_LOOK);
    resident(node)
}

fn churn(node: &Node, name: &str, cycles: usize) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut tasks = Vec::new();
    for caller in 0..CALLERS {
        let sandboxes = (0..SANDBOXES)
            .map(|_| Caller::new(&node.socket()))
            .collect::<io::Result<Vec<_>>>()?;
        let name = format!("{name}{caller}");
        tasks.push(async move {
            for (n, sandbox) in (0..cycles / CALLERS).zip(sandboxes.iter().cycle()) {
                sandbox
                    .cycle(&format!("{name}n{n}"))
                    .await
                    .map_err(|e| e.to_string())?;
            }
            Ok::<_, String>(())
        });
    }
    runtime.block_on(async {
        let running: Vec<_> = tasks.into_iter().map(|task| runtime.spawn(task)).collect();
        for task in running {
            task.await
                .map_err(io::Error::other)?
                .map_err(io::Error::other)?;
        }
        Ok(())
    })
}
