//! DEL: asks the daemon to take everything back. Its own record decides, so nothing else that may be missing or broken
//! by now (the namespace, `prevResult`, `CNI_ARGS`, settings of the link) stands in the way.

use std::path::Path;

use nix::sys::signal::{SigSet, Signal};
use proto::names::SandboxKey;
use proto::tombstone;
use proto::v1::{DelReply, DelRequest};

use crate::client::{ClientError, Daemon};
use crate::conf::Conf;
use crate::env::{Attachment, Verb};
use crate::error::{Failure, code};
use crate::netns::{NetnsPathError, PodNetns};

pub fn run(attachment: &Attachment, conf: &Conf) -> Result<(), Failure> {
    refuse_own_namespace(attachment)?;
    // A DEL once begun is worth finishing: the runtime may drop it for good. Blocked and not ignored, as that needs no
    // handler; the signal is gone with the process.
    let mut terminate = SigSet::empty();
    terminate.add(Signal::SIGTERM);
    // It cannot fail with a valid set, and if it did, DEL would still be right.
    let _unchanged = terminate.thread_block();

    let key = attachment.key(&conf.name);
    let request = DelRequest {
        sandbox: Some(key.clone().into()),
    };
    // Without descriptors: the daemon removes the host's end, and the kernel the other with it.
    let daemon = Daemon {
        socket: &conf.socket,
        within: conf.deadline(Verb::Del),
        descriptors: None,
    };
    match daemon.call("Del", |_| request.clone()) {
        Ok(DelReply {}) => Ok(()),
        Err(error) if error.is_absence() => leave_word(conf, &key, error),
        Err(error) => Err(error.into()),
    }
}

/// With the daemon away the runtime would ask again and again, or drop the DEL for good (containerd 2). A tombstone is
/// as good as an answer: the daemon honours it at its start, and the pod's link ends with the namespace meanwhile.
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

/// The host's own namespace in a DEL is a caller's mistake that ADD would have refused. Any other trouble with the path
/// means that the namespace is gone: a bind mount that was taken away leaves a regular file behind.
fn refuse_own_namespace(attachment: &Attachment) -> Result<(), NetnsPathError> {
    let Some(path) = &attachment.netns else {
        return Ok(());
    };
    match PodNetns::open(Path::new(path), attachment.netns_override) {
        Err(error @ NetnsPathError::Own { .. }) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}
