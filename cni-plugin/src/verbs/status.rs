//! STATUS: whether an ADD would be expected to succeed now. The runtime treats a failure as "node not ready" and blocks
//! every other call until the answer, so this verb has the shortest deadline.

use proto::v1::{StatusReply, StatusRequest};

use crate::error::{Failure, code};
use crate::input::conf::Conf;
use crate::input::env::Verb;
use crate::rpc::client::Daemon;

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
        // The specification has one code for all reasons.
        Err(error) => Err(Failure::from(error).with_code(code::NOT_AVAILABLE)),
    }
}
