//! `ipamd inspect`: shows who uses the node's addresses, and what the pool does next.
//!
//! Asks the daemon. If no daemon answers, reads the daemon's state file and does not change it. `draw` formats the output.
//!
//! May use `rpc`, `state` and `config`. Must not know the planner.

mod draw;

use std::{path::PathBuf, process::ExitCode};

use clap::ValueEnum;
use proto::error_chain::chain;
use stdout::{errln, out};

use super::USAGE;
use crate::{
    config::{Config, Environment, Mistakes},
    rpc::{
        client::{Client, ClientError},
        view::View,
    },
    runtime::clock,
    state::store::{StoreError, read_only::peek},
    tools::saved_view,
};

const MANUAL: &str = "\
WHAT IS SHOWN
  The pool in one line, the planner's next decision and its reason, pending EC2 calls, what prevents EC2 \
calls, waiting pods with the error that each would get now, and each ENI with its addresses. Free addresses are \
counted. Each other address has a line with its pod, its age in that state and the reason.

STATES OF AN ADDRESS
  free         can be assigned to a pod
  reserved     its pod is being wired
  assigned     in use by a pod
  cooling      released by its pod; not used again yet, because others may still send to it
  quarantined  EC2 does not confirm it; neither assigned nor returned until EC2's state is known
  releasing    being returned to EC2

WITHOUT A DAEMON
  If no daemon answers, the state file is shown. It contains only which sandbox has which address. The \
command works on a copy in memory and takes no lock.";

/// Show the pool, the pods that wait, and what happens next
#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub(super) struct Inspect {
    /// Update the output after every change, until interrupted
    #[arg(long, conflicts_with = "state")]
    watch: bool,
    /// Read this state file instead of asking the daemon
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// The daemon's socket [default: the one in HAWSER_RUN_DIR]
    #[arg(long, value_name = "PATH", conflicts_with = "state")]
    socket: Option<PathBuf>,
    /// The output format [default: text]
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Form::Text, hide_default_value = true)]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Human-readable text
    Text,
    /// A JSON object; with --watch, one per line
    Json,
}

#[derive(Debug, thiserror::Error)]
enum InspectError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{daemon}, and its state file cannot be read")]
    Neither { daemon: String, source: StoreError },
    #[error(transparent)]
    State(#[from] StoreError),
    #[error("the runtime does not start")]
    Runtime(#[source] std::io::Error),
    #[error("the answer could not be written")]
    Write(#[from] std::io::Error),
    #[error("the daemon has ended")]
    Ended,
}

impl Inspect {
    pub(super) fn run(self) -> ExitCode {
        let config = match Config::read(&Environment) {
            Ok(config) => config,
            Err(Mistakes(lines)) => {
                errln!("ipamd: invalid settings:\n{}", lines.join("\n"));
                return ExitCode::from(USAGE);
            }
        };
        let done = match &self.state {
            Some(file) => saved_view(file.clone()).and_then(|view| self.show(&view)),
            None => super::block_on(self.ask(&config))
                .map_err(InspectError::Runtime)
                .and_then(|done| done),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(InspectError::Write(error)) => stdout::ended("ipamd", Err(error)),
            Err(error) => super::print_error(&chain(&error)),
        }
    }

    async fn ask(&self, config: &Config) -> Result<(), InspectError> {
        let socket = self.socket.clone().unwrap_or_else(|| config.paths.socket());
        let mut client = match Client::connect(&socket).await {
            Ok(client) => client,
            // With --socket or --watch, the daemon is required.
            Err(error) if self.watch || self.socket.is_some() => return Err(error.into()),
            Err(error) => return self.without_daemon(config, &error),
        };
        if !self.watch {
            return self.show(&View::from(client.inspect().await?));
        }
        let mut snapshots = client.watch().await?;
        while let Some(snapshot) = snapshots.next().await? {
            self.show(&View::from(snapshot))?;
        }
        Err(InspectError::Ended)
    }

    fn without_daemon(&self, config: &Config, error: &ClientError) -> Result<(), InspectError> {
        let daemon = chain(error);
        let view = saved_view(config.paths.state()).map_err(|error| match error {
            InspectError::State(source) => InspectError::Neither {
                daemon: daemon.clone(),
                source,
            },
            other => other,
        })?;
        errln!("ipamd: {daemon}; this is its state file");
        self.show(&view)
    }

    fn show(&self, view: &View) -> Result<(), InspectError> {
        let text = match (self.output, self.watch) {
            (Form::Json, true) => format!("{}\n", json(view)),
            (Form::Json, false) => format!("{:#}\n", json(view)),
            // Moves to the top and then erases the rest: without a blank screen in between, there is no flicker.
            (Form::Text, true) => format!("\x1b[H\x1b[J{}", draw::draw(view)),
            (Form::Text, false) => draw::draw(view),
        };
        Ok(out!("{text}")?)
    }
}

fn json(view: &View) -> serde_json::Value {
    serde_json::to_value(view).expect("plain data serialises")
}

/// Ages are in this boot's clock: a file of another boot has no addresses in cooldown.
fn saved_view(file: PathBuf) -> Result<View, InspectError> {
    let (contents, _boot) = peek(&file)?;
    Ok(saved_view::view(&contents, clock::now()))
}
