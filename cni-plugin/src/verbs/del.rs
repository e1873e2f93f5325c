//! DEL: asks the daemon to remove everything. The daemon's own record decides, so missing or broken input (the
//! namespace, `prevResult`, `CNI_ARGS`, settings of the link) does not prevent it.

use std::path::Path;

use nix::sys::signal::{SigSet, Signal};
use proto::names::SandboxKey;
use proto::tombstone;
use proto::v1::{DelReply, DelRequest};

use crate::error::{Failure, code};
use crate::input::conf::Conf;
use crate::input::env::{Attachment, Verb};
use crate::netns::{NetnsPathError, PodNetns};
use crate::rpc::client::{ClientError, Daemon};

/// The interface of a pod's first attachment, as every runtime names it.
const FIRST: &str = "eth0";

pub fn run(attachment: &Attachment, conf: &Conf) -> Result<(), Failure> {
    let netns = refuse_own_namespace(attachment)?;
    // Of the first attachment, nothing outlives its interface. Without descriptors, the daemon removes the host's end, and the
    // kernel then removes the other one.
    let further = netns.filter(|_| attachment.ifname.as_str() != FIRST);
    let descriptors = further.and_then(|netns| netns.into_descriptors().ok());
    // A DEL that was started should be completed, because the runtime may not repeat it. The signal is blocked and not
    // ignored, which needs no handler; it is discarded when the process ends.
    let mut terminate = SigSet::empty();
    terminate.add(Signal::SIGTERM);
    // This cannot fail with a valid set, and if it did, DEL would still be correct.
    let _unchanged = terminate.thread_block();

    let key = attachment.key(&conf.name);
    let request = DelRequest {
        sandbox: Some(key.clone().into()),
    };
    let daemon = Daemon {
        socket: &conf.socket,
        within: conf.deadline(Verb::Del),
        descriptors: descriptors.as_ref(),
    };
    match daemon.call("Del", |_| request.clone()) {
        Ok(DelReply {}) => Ok(()),
        Err(error) if error.is_absence() => leave_word(conf, &key, error),
        Err(error) => Err(error.into()),
    }
}

/// If the daemon is not running, the runtime would repeat the DEL again and again, or drop it (containerd 2). A
/// tombstone replaces the call: the daemon processes it at its next start, and the pod's link is deleted with the
/// namespace.
fn leave_word(conf: &Conf, key: &SandboxKey, error: ClientError) -> Result<(), Failure> {
    match tombstone::leave(&tombstone::directory(&conf.socket), key) {
        Ok(()) => Ok(()),
        Err(source) => Err(unheard(&error, &source)),
    }
}

pub(crate) fn unheard(error: &ClientError, source: &std::io::Error) -> Failure {
    let and = format!("the plugin could not write a tombstone either: {source}");
    Failure::new(code::TRY_AGAIN, error, &and)
}

/// The host's own namespace in a DEL is a mistake of the caller that ADD would have refused. Any other problem with the
/// path means that the namespace is gone: a removed bind mount leaves a regular file behind.
fn refuse_own_namespace(attachment: &Attachment) -> Result<Option<PodNetns>, NetnsPathError> {
    let Some(path) = &attachment.netns else {
        return Ok(None);
    };
    match PodNetns::open(Path::new(path), attachment.netns_override) {
        Err(error @ NetnsPathError::Own { .. }) => Err(error),
        opened => Ok(opened.ok()),
    }
}
