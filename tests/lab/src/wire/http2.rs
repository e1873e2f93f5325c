//! Hand-made HTTP/2 and gRPC frames: to send what no correct client sends, and to parse recorded bytes. Knows the
//! framing, not the meaning of messages.

use std::io::{self, Read};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const HEADER: usize = 9;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The only stream of a plugin.
const STREAM: u32 = 1;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is far below 4 GiB");
    let mut out = length.to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// How a client starts.
#[must_use]
pub fn client_begins() -> Vec<u8> {
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// How a server starts, with an acknowledgement of the client's settings.
#[must_use]
pub fn server_begins() -> Vec<u8> {
    [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat()
}

/// A list of headers, each written out (HPACK without table or compression).
#[must_use]
pub fn headers(list: &[(&str, &str)], end: bool) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in list {
        block.push(0);
        for text in [name, value] {
            // Lengths from 127 on would need more than one byte.
            block.push(u8::try_from(text.len().min(126)).expect("at most 126"));
            block.extend(&text.as_bytes()[..text.len().min(126)]);
        }
    }
    let flags = END_HEADERS | if end { END_STREAM } else { 0 };
    frame(HEADERS, flags, STREAM, &block)
}

/// The headers of a call of `verb`.
#[must_use]
pub fn call(verb: &str) -> Vec<u8> {
    let path = format!("/hawser.v1.Node/{verb}");
    let list = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "ipamd"),
        (":path", &path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    headers(&list, false)
}

/// A part of the body.
#[must_use]
pub fn data(payload: &[u8], end: bool) -> Vec<u8> {
    frame(DATA, u8::from(end), STREAM, payload)
}

/// A message as gRPC sends it: uncompressed, with its length in front.
#[must_use]
pub fn message(bytes: &[u8]) -> Vec<u8> {
    message_of(
        u32::try_from(bytes.len()).expect("messages are small"),
        bytes,
    )
}

/// The same with any length field.
#[must_use]
pub fn message_of(length: u32, bytes: &[u8]) -> Vec<u8> {
    [&[0], &length.to_be_bytes()[..], bytes].concat()
}

/// The end of an answer.
#[must_use]
pub fn trailers(status: u32) -> Vec<u8> {
    headers(&[("grpc-status", &status.to_string())], true)
}

/// One frame of a stream of bytes.
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
    length: usize,
}

fn first(bytes: &[u8]) -> Option<Frame<'_>> {
    let head = bytes.get(..HEADER)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    Some(Frame {
        kind: head[3],
        flags: head[4],
        stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
        payload: bytes.get(HEADER..HEADER + length)?,
        length: HEADER + length,
    })
}

/// What one side has sent on the stream so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The body: gRPC messages with their lengths.
    pub body: Vec<u8>,
    pub ended: bool,
}

impl Said {
    /// Parses whole frames; a client's preface may come first.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
        let mut said = Self::default();
        while let Some(frame) = first(rest) {
            rest = &rest[frame.length..];
            if frame.stream != STREAM {
                continue;
            }
            if frame.kind == DATA {
                said.body.extend(frame.payload);
            }
            said.ended |= matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
        }
        said
    }

    /// The first message of the body.
    #[must_use]
    pub fn message(&self) -> Option<&[u8]> {
        let length = u32::from_be_bytes(self.body.get(1..5)?.try_into().ok()?);
        self.body.get(5..5 + usize::try_from(length).ok()?)
    }
}

/// Reads until the peer has ended the stream or the connection; returns everything received.
///
/// # Errors
/// The socket's error; the caller sets its read timeout.
pub fn read_answer(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = [0; 16 << 10];
    while !Said::of(&all).ended {
        match stream.read(&mut buffer)? {
            0 => break,
            n => all.extend(&buffer[..n]),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes = [
            client_begins(),
            call("Add"),
            data(&message(b"abc"), false),
            data(b"", true),
        ]
        .concat();
        let said = Said::of(&bytes);
        assert_eq!(said.message(), Some(&b"abc"[..]));
        assert!(said.ended);
        assert!(!Said::of(&bytes[..bytes.len() - 1]).ended);
    }
}
