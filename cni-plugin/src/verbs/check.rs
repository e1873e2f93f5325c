//! CHECK: asks the daemon whether its record and the kernel still agree with the result of ADD.

use proto::address::octets;
use proto::v1::{CheckReply, CheckRequest};

use crate::error::Failure;
use crate::input::conf::{Conf, ConfError};
use crate::input::env::{Attachment, Verb};
use crate::netns::open_for;
use crate::result::address_in;
use crate::rpc::client::Daemon;

pub fn run(attachment: &Attachment, conf: &Conf) -> Result<(), Failure> {
    let prev = conf.prev_result()?.ok_or(ConfError::Absent {
        verb: Verb::Check.name(),
        key: "prevResult",
    })?;
    let address = address_in(prev, attachment.ifname.as_str())?;
    let descriptors = open_for(attachment)?;
    let request = CheckRequest {
        sandbox: Some(attachment.key(&conf.name).into()),
        address: octets(address),
    };
    let daemon = Daemon {
        socket: &conf.socket,
        within: conf.deadline(Verb::Check),
        descriptors: Some(&descriptors),
    };
    let CheckReply {} = daemon.call("Check", |_| request.clone())?;
    Ok(())
}
