//! STATUS: whether an ADD would be expected to succeed now. The runtime treats a failure as "node not ready" and blocks
//! every other call until the answer, so this verb has the shortest deadline.

use proto::presence;
use proto::refusal::Reason;
use proto::v1::{StatusReply, StatusRequest};

use crate::error::{Failure, code};
use crate::input::conf::Conf;
use crate::input::env::Verb;
use crate::rpc::client::{ClientError, Daemon};

/// `ipamd handback` has begun, and the AWS VPC CNI does not serve yet.
#[derive(Debug, thiserror::Error)]
#[error("this node is being given back to the AWS VPC CNI")]
struct HandedBack;

const HANDED_BACK: &str = "let aws-node run on this node; pods that run keep their network, and new ones start when it serves";

pub fn run(conf: &Conf) -> Result<(), Failure> {
    // Settings that would make every ADD fail.
    conf.link()?;
    let daemon = Daemon {
        socket: &conf.socket,
        within: conf.deadline(Verb::Status),
        descriptors: None,
    };
    match daemon.call("Status", |_| StatusRequest {}) {
        Ok(StatusReply {}) => Ok(()),
        Err(error) if is_away(&error) && presence::handed_back(&conf.socket).exists() => {
            Err(Failure::new(code::NOT_AVAILABLE, &HandedBack, HANDED_BACK))
        }
        // A daemon that restarts is back before an ADD gives up.
        Err(error) if is_away(&error) && presence::is_recent(&conf.socket) => Ok(()),
        // The specification has one code for all reasons.
        Err(error) => Err(Failure::from(error).with_code(code::NOT_AVAILABLE)),
    }
}

/// Whether the daemon is not there, or is about to go or to come. A daemon that closes the connection is there, and
/// refuses this caller.
fn is_away(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { refusal } => {
            matches!(refusal.reason, Reason::Starting | Reason::Stopping)
        }
        ClientError::Connect { .. } | ClientError::Late { .. } => true,
        ClientError::Broken { .. } => false,
    }
}
