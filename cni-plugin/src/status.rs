//! STATUS: whether an ADD sent now would be expected to succeed. The runtime takes a failure as "node not ready", and
//! waits for the answer with every other call held up, so this verb has the shortest deadline.

use proto::v1::{StatusReply, StatusRequest};

use crate::client::Daemon;
use crate::conf::Conf;
use crate::env::Verb;
use crate::error::{Failure, code};

pub fn run(conf: &Conf) -> Result<(), Failure> {
    // Settings that every ADD would trip over.
    conf.link()?;
    let daemon = Daemon {
        socket: &conf.socket,
        within: conf.deadline(Verb::Status),
        descriptors: None,
    };
    match daemon.call("Status", |_| StatusRequest {}) {
        Ok(StatusReply {}) => Ok(()),
        // Whatever the reason, the specification has one code for it.
        Err(error) => Err(Failure::from(error).with_code(code::NOT_AVAILABLE)),
    }
}
