//! A call that arrives in one piece and in exactly the form that the plugin sends ([`proto::wire`]): it is answered in
//! one piece, without an HTTP/2 library.
//!
//! Every pod's start makes such a call. With HTTP/2's state machine, a library's server and its tasks, it took a tenth
//! of the daemon's work for a pod. A call that differs in one byte (another client, a longer request, an incomplete
//! one) is passed to [`super::connection`] with the bytes that were read. Knows only the names of the verbs.

use std::{io, sync::LazyLock};

use http::HeaderMap;
use prost::Message;
use proto::{
    v1::node_server::Node,
    wire::{self, FRAME_MAX, HEAD, PREFIX, STREAM, flag, frame},
};
use tokio::net::UnixStream;
use tonic::{Request, Response, Status};

use super::ConnectionContext;

/// The maximum size of a call in one piece: an ADD with the longest names of a pod needs a quarter of it.
const LONGEST: usize = 4096;

/// The verb of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Add,
    Del,
    Check,
    Status,
}

/// How each of them starts.
static PREFIXES: LazyLock<[(Verb, Vec<u8>); 4]> = LazyLock::new(|| {
    [
        (Verb::Add, "Add"),
        (Verb::Del, "Del"),
        (Verb::Check, "Check"),
        (Verb::Status, "Status"),
    ]
    .map(|(verb, name)| (verb, wire::opening(name)))
});

/// The received start of a connection.
#[derive(Debug)]
pub struct FirstBytes(Vec<u8>);

/// A recognised call.
#[derive(Clone, Copy, Debug)]
pub struct PluginCall<'a> {
    verb: Verb,
    message: &'a [u8],
}

impl FirstBytes {
    /// Reads the available bytes and does not wait: the plugin sends its whole call together with the preamble.
    ///
    /// # Errors
    /// If the connection failed, or is closed.
    pub fn read(stream: &UnixStream) -> io::Result<Self> {
        let mut bytes = [0; LONGEST];
        let length = match stream.try_read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            read => read.unwrap_or(0),
        };
        Ok(Self(bytes[..length].to_vec()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// For further reading.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The call, if the bytes are exactly one complete call.
    pub fn call(&self) -> Option<PluginCall<'_>> {
        let mut known = PREFIXES.iter();
        let (verb, rest) =
            known.find_map(|(verb, words)| Some((*verb, self.0.strip_prefix(&words[..])?)))?;
        let payload = rest.get(HEAD..)?;
        let (prefix, message) = payload.split_first_chunk::<PREFIX>()?;
        let mut whole = Vec::with_capacity(rest.len());
        wire::put(&mut whole, frame::DATA, flag::END_STREAM, STREAM, payload);
        let is_whole = whole == rest && *prefix == wire::prefix(message);
        is_whole.then_some(PluginCall { verb, message })
    }
}

impl PluginCall<'_> {
    /// Answers the call: returns everything that is sent until the end of the connection.
    pub async fn answer(self, node: &impl Node, context: ConnectionContext) -> Vec<u8> {
        let message = self.message;
        let answer = match self.verb {
            Verb::Add => unary(message, context, |asked| node.add(asked)).await,
            Verb::Del => unary(message, context, |asked| node.del(asked)).await,
            Verb::Check => unary(message, context, |asked| node.check(asked)).await,
            Verb::Status => unary(message, context, |asked| node.status(asked)).await,
        };
        encode_answer(&answer)
    }
}

async fn unary<Q: Message + Default, A: Message>(
    message: &[u8],
    context: ConnectionContext,
    verb: impl AsyncFnOnce(Request<Q>) -> Result<Response<A>, Status>,
) -> Result<Vec<u8>, Status> {
    let asked = Q::decode(message).map_err(|error| Status::internal(error.to_string()))?;
    let mut request = Request::new(asked);
    request.extensions_mut().insert(context);
    Ok(verb(request).await?.into_inner().encode_to_vec())
}

/// Ends when the caller closes the connection. Further bytes from the caller are ignored.
pub async fn closed(stream: &UnixStream) {
    let mut more = [0; 256];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut more) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

/// The server's preface, the answer, and the notice that no further call is accepted.
fn encode_answer(answer: &Result<Vec<u8>, Status>) -> Vec<u8> {
    /// `:status` 200 of the static table; `content-type` is its 31st entry.
    const HEADERS: &[u8] = b"\x88\x0f\x10\x10application/grpc";
    const OK: &[u8] = b"\x00\x0bgrpc-status\x010";
    let mut out = Vec::with_capacity(512);
    wire::put(&mut out, frame::SETTINGS, 0, 0, &[]);
    wire::put(&mut out, frame::SETTINGS, flag::ACK, 0, &[]);
    match answer {
        Ok(message) => {
            put_block(&mut out, 0, HEADERS);
            let body = [&wire::prefix(message)[..], message].concat();
            for part in body.chunks(FRAME_MAX) {
                wire::put(&mut out, frame::DATA, 0, STREAM, part);
            }
            put_block(&mut out, flag::END_STREAM, OK);
        }
        Err(status) => {
            let block = [HEADERS, &fields(status)].concat();
            put_block(&mut out, flag::END_STREAM, &block);
        }
    }
    // The last stream that was served, without an error.
    let goaway = [STREAM.to_be_bytes(), [0; 4]].concat();
    wire::put(&mut out, frame::GOAWAY, 0, 0, &goaway);
    out
}

/// A header block in as many frames as necessary.
fn put_block(out: &mut Vec<u8>, flags: u8, block: &[u8]) {
    let parts = block.chunks(FRAME_MAX);
    let last = parts.len() - 1;
    for (n, part) in parts.enumerate() {
        let (kind, flags) = match n {
            0 => (frame::HEADERS, flags),
            _ => (frame::CONTINUATION, 0),
        };
        let end = if n == last { flag::END_HEADERS } else { 0 };
        wire::put(out, kind, flags | end, STREAM, part);
    }
}

/// gRPC's own fields of a refusal, without compression.
fn fields(status: &Status) -> Vec<u8> {
    let mut named = HeaderMap::new();
    if status.add_header(&mut named).is_err() {
        // Its message cannot be encoded as a header.
        named.insert("grpc-status", http::HeaderValue::from_static("13"));
    }
    let mut block = Vec::new();
    for (name, value) in &named {
        block.push(0);
        for text in [name.as_str().as_bytes(), value.as_bytes()] {
            put_integer(&mut block, text.len());
            block.extend(text);
        }
    }
    block
}

/// A string's length (RFC 7541, 5.1), with seven bits in the first byte.
fn put_integer(block: &mut Vec<u8>, value: usize) {
    const MOST: usize = 0x7f;
    let byte = |value: usize| u8::try_from(value & 0xff).unwrap_or(u8::MAX);
    let Some(mut rest) = value.checked_sub(MOST) else {
        block.push(byte(value));
        return;
    };
    block.push(byte(MOST));
    while rest > MOST {
        block.push(byte(rest & MOST | 0x80));
        rest >>= 7;
    }
    block.push(byte(rest));
}

#[cfg(test)]
mod tests;
