//! ADD: checks the namespace, passes its descriptors to the daemon, and converts the daemon's answer into the requested
//! protocol version.

use proto::asked;
use proto::names::PodIdentity;
use proto::v1::{AddReply, AddRequest};
use serde_json::Value;

use crate::error::Failure;
use crate::input::conf::Conf;
use crate::input::env::{Attachment, Verb};
use crate::input::runtime_config;
use crate::netns::{allow_ipv6, open_for};
use crate::result::Granted;
use crate::rpc::client::Daemon;

pub fn run(attachment: &Attachment, pod: PodIdentity, conf: &Conf) -> Result<Value, Failure> {
    // Everything is checked before the daemon is called.
    let link = conf.link()?;
    let wanted = runtime_config::asked(conf)?;
    let prev = conf.prev_result()?;
    let sandbox = attachment.netns.as_deref().unwrap_or_default();
    let ipv6 = conf.ipv6()?;
    let descriptors = open_for(attachment)?;
    if ipv6 {
        allow_ipv6()?;
    }
    let request = AddRequest {
        sandbox: Some(attachment.key(&conf.name).into()),
        pod: Some(pod.into()),
        deadline_ms: 0,
        veth_prefix: link.veth_prefix.map(Into::into).unwrap_or_default(),
        mtu: link.mtu.unwrap_or(0),
        port_mappings: wanted.ports.into_iter().map(Into::into).collect(),
        bandwidth: asked::message(wanted.bandwidth),
    };
    let daemon = Daemon {
        socket: &conf.socket,
        within: conf.deadline(Verb::Add),
        descriptors: Some(&descriptors),
    };
    let reply: AddReply = daemon.call("Add", |deadline_ms| AddRequest {
        deadline_ms,
        ..request.clone()
    })?;
    let granted = Granted::try_from(reply)?;
    Ok(granted.to_json(conf.version, sandbox, prev)?)
}
