//! `make fleet`: prints the cost of a fleet's start, growth and idle hour for one account. The only argument is another
//! seed.

use std::{io, process::ExitCode};

use planner::EniClass;
use sim::fleet::{report, run};
use stdout::{errln, out, outln};

fn main() -> ExitCode {
    let seed = match std::env::args().nth(1).map(|text| text.parse()) {
        None => 1,
        Some(Ok(seed)) => seed,
        Some(Err(error)) => {
            errln!("fleet: the seed: {error}");
            return ExitCode::from(2);
        }
    };
    stdout::ended("fleet", print(seed))
}

fn print(seed: u64) -> io::Result<ExitCode> {
    let mut met = true;
    for class in [EniClass::by_tags(None), EniClass::like_primary()] {
        outln!("New ENIs as of {}:\n{}", class.name, report::heading())?;
        for nodes in [1000, 5000] {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime without I/O needs nothing of the system");
            for row in runtime.block_on(run(nodes, seed, &class)) {
                out!("{row}")?;
                met &= row.passes();
            }
        }
    }
    Ok(if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
