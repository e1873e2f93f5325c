//! Anything that a connection may receive: the preamble, HTTP/2 frames, messages, and the details of a refusal.

use std::{
    io::Write,
    os::{fd::AsFd, unix},
    time::Duration,
};

use prost::Message;
use proto::{
    asked, handover,
    names::{self, NameError, PodIdentity, SandboxKey, VethPrefix},
    refusal::Refusal,
    v1::{self, node_server::Node},
    wire::PREFACE,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::watch,
};
use tonic::{Code, Request, Response, Status};

use crate::rpc::listener::{
    self,
    admission::{ConnectionSlots, Limits},
};

/// The first byte of `input` selects what the rest is.
pub fn rpc(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 4 {
        0 => preamble(bytes),
        1 => messages(bytes),
        2 => details(bytes),
        _ => frames(bytes, kind & 4 != 0),
    }
}

fn preamble(bytes: &[u8]) {
    let (mut plugin, daemon) = unix::net::UnixStream::pair().expect("a pair of sockets");
    // Within the socket's buffer, otherwise this would wait for a reader.
    let bytes = bytes.get(..1024).unwrap_or(bytes);
    plugin.write_all(bytes).expect("there is room");
    drop(plugin);
    let first = handover::receive(daemon.as_fd());
    assert_eq!(first.is_ok(), bytes.first() == Some(&b'b'), "{first:?}");
}

fn messages(bytes: &[u8]) {
    if let Ok(add) = v1::AddRequest::decode(bytes) {
        drop(read_add(add));
    }
    let sandboxes = [
        v1::DelRequest::decode(bytes).map(|r| r.sandbox),
        v1::CheckRequest::decode(bytes).map(|r| r.sandbox),
    ];
    for sandbox in sandboxes.into_iter().flatten() {
        drop(SandboxKey::try_from(sandbox.unwrap_or_default()));
    }
    drop(v1::GcRequest::decode(bytes));
    drop(v1::Snapshot::decode(bytes));
}

fn read_add(add: v1::AddRequest) -> Result<(), NameError> {
    let key = SandboxKey::try_from(add.sandbox.unwrap_or_default())?;
    // Accepted names become a key on disk and a name in the kernel.
    assert!(!key.to_string().contains('\0'));
    let pod = PodIdentity::from(add.pod.unwrap_or_default());
    assert!(
        [pod.namespace, pod.name, pod.uid]
            .into_iter()
            .flatten()
            .all(|text| {
                text.as_str().len() <= 253 && !text.as_str().contains(char::is_control)
            })
    );
    let _prefix: Option<VethPrefix> = names::optional(&add.veth_prefix)?;
    if let Ok(ports) = asked::host_ports(&add.port_mappings) {
        assert!(ports.iter().all(|port| port.port > 0 && port.pod_port > 0));
    }
    drop(asked::bandwidth(add.bandwidth));
    Ok(())
}

fn details(bytes: &[u8]) {
    let status = Status::with_details(Code::Unavailable, "told", bytes.to_vec().into());
    let refusal = Refusal::from_status(&status);
    let text = format!("{} {}", refusal.cause, refusal.remedy);
    assert!(!text.contains('\n') && !text.contains("not found"));
    drop(Status::from(refusal));
}

/// `at_once`: everything is sent before the daemon reads, like the plugin does.
fn frames(bytes: &[u8], at_once: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (mut plugin, daemon) = UnixStream::pair().expect("a pair of sockets");
        let slots = ConnectionSlots::new(Limits::within(1024));
        // The daemon's complete end, except the verbs. It is never stopped.
        let (_say, stop) = watch::channel(());
        // The fuzzer should not have to discover the start of every connection.
        let words = [PREFACE, bytes].concat();
        let mut encode_answer = 0;
        if at_once {
            plugin.writable().await.expect("an empty buffer");
            encode_answer = plugin.try_write(&words).expect("an empty buffer");
            daemon.readable().await.expect("words to be read");
        }
        let served = listener::serve_connection(daemon, None, slots.take().await, Nobody, stop);
        let talk = async {
            let mut answers = Vec::new();
            plugin.write_all(&words[encode_answer..]).await?;
            plugin.shutdown().await?;
            plugin.read_to_end(&mut answers).await
        };
        // It closes on invalid input, and at the end of the stream: it must not wait.
        let both = async { tokio::join!(served, talk) };
        let ((), _talked) = tokio::time::timeout(Duration::from_secs(4), both)
            .await
            .expect("the connection comes to an end, and not because it is idle");
    });
}

/// A node that reads requests and does nothing.
#[derive(Clone)]
struct Nobody;

fn nobody<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("nobody is here"))
}

#[tonic::async_trait]
impl Node for Nobody {
    type InspectStream = tokio_stream::Empty<Result<v1::Snapshot, Status>>;

    async fn add(
        &self,
        request: Request<v1::AddRequest>,
    ) -> Result<Response<v1::AddReply>, Status> {
        drop(read_add(request.into_inner()));
        nobody()
    }

    async fn del(&self, _: Request<v1::DelRequest>) -> Result<Response<v1::DelReply>, Status> {
        nobody()
    }

    async fn check(
        &self,
        _: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckReply>, Status> {
        nobody()
    }

    async fn gc(&self, _: Request<v1::GcRequest>) -> Result<Response<v1::GcReply>, Status> {
        nobody()
    }

    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        nobody()
    }

    async fn inspect(
        &self,
        _: Request<v1::InspectRequest>,
    ) -> Result<Response<Self::InspectStream>, Status> {
        nobody()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_rpc_corpus_causes_no_panic() {
        crate::runtime::corpus::replay("rpc", super::rpc);
    }
}
