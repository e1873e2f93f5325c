//! Answers of the daemon as bytes: whole, cut short, and with other bytes around them.

use proto::v1::{AddReply, AddRequest, GcReply, GcRequest};
use proto::wire::PREFACE;

use super::*;

/// The peer: what it sends, a few bytes at a time, and what it received.
struct Script {
    sends: Vec<u8>,
    at: usize,
    step: usize,
    got: Vec<u8>,
}

impl Script {
    fn new(sends: Vec<u8>) -> Self {
        Self {
            sends,
            at: 0,
            step: 7,
            got: Vec::new(),
        }
    }
}

impl Read for &mut Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = &self.sends[self.at..];
        let length = left.len().min(self.step).min(buffer.len());
        buffer[..length].copy_from_slice(&left[..length]);
        self.at += length;
        Ok(length)
    }
}

impl Write for &mut Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.got.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn framed(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(id.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn head() -> Vec<u8> {
    framed(frame::HEADERS, flag::END_HEADERS, 1, &[0x88])
}

fn message(reply: &impl Message) -> Vec<u8> {
    let mut body = vec![0];
    body.extend(u32::try_from(reply.encoded_len()).unwrap().to_be_bytes());
    body.extend(reply.encode_to_vec());
    body
}

fn trailers(status: &str) -> Vec<u8> {
    let mut block = b"\x00\x0bgrpc-status".to_vec();
    block.push(u8::try_from(status.len()).unwrap());
    block.extend(status.as_bytes());
    framed(
        frame::HEADERS,
        flag::END_HEADERS | flag::END_STREAM,
        1,
        &block,
    )
}

fn reply() -> AddReply {
    AddReply {
        address: vec![10, 0, 0, 7],
        eni: "eni-1".to_owned(),
        ..AddReply::default()
    }
}

/// Everything that a server may send around an answer.
fn answer() -> Vec<u8> {
    let message = message(&reply());
    let (first, second) = message.split_at(4);
    let padded = [&[3][..], second, &[0; 3]].concat();
    [
        framed(frame::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1]),
        framed(frame::SETTINGS, flag::ACK, 0, &[]),
        framed(frame::PING, 0, 0, b"are you?"),
        framed(0x77, 0xff, 0, b"of a later standard"),
        framed(frame::WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]),
        framed(frame::HEADERS, 0, 1, &[]),
        framed(frame::CONTINUATION, flag::END_HEADERS, 1, &[0x88]),
        framed(frame::DATA, 0, 1, first),
        framed(frame::DATA, flag::PADDED, 1, &padded),
        framed(frame::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]),
        trailers("0"),
    ]
    .concat()
}

fn add() -> Call {
    Call::new("Add", &AddRequest::default())
}

fn finish(sends: Vec<u8>) -> Result<AddReply, CallError> {
    add().finish(&mut Script::new(sends))
}

#[test]
fn an_answer_is_read_with_any_other_frames() {
    for step in [1, 7, 4096] {
        let mut script = Script {
            step,
            ..Script::new(answer())
        };
        let mut call = add();
        assert!(call.opening().starts_with(PREFACE));
        assert_eq!(call.finish::<AddReply>(&mut script).unwrap(), reply());
        if step > script.sends.len() {
            assert!(script.got.is_empty(), "no answer is expected any more");
            continue;
        }
        let pong = framed(frame::PING, flag::ACK, 0, b"are you?");
        let acknowledged = framed(frame::SETTINGS, flag::ACK, 0, &[]);
        for expected in [pong, acknowledged] {
            let mut windows = script.got.windows(expected.len());
            assert!(windows.any(|bytes| bytes == expected), "{expected:?}");
        }
    }
}

#[test]
fn an_answer_that_is_cut_short_anywhere_is_a_failed_connection() {
    let whole = answer();
    for length in 0..whole.len() {
        let error = finish(whole[..length].to_vec()).unwrap_err();
        assert!(matches!(error, CallError::Io(_)), "{length}: {error}");
    }
}

#[test]
fn no_answer_with_one_wrong_byte_ends_in_anything_but_an_answer_or_an_error() {
    let whole = answer();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut wrong = whole.clone();
            wrong[at] ^= 1 << bit;
            // Both results are correct: some bits have no meaning.
            drop(finish(wrong));
        }
    }
}

#[test]
fn a_refusal_is_read_from_headers_or_trailers() {
    let at_once = {
        let block = b"\x88\x00\x0bgrpc-status\x018\x00\x0cgrpc-message\x07no room";
        framed(
            frame::HEADERS,
            flag::END_HEADERS | flag::END_STREAM,
            1,
            block,
        )
    };
    for sends in [at_once, [head(), trailers("8")].concat()] {
        match finish(sends).unwrap_err() {
            CallError::Status(status) => assert_eq!(status.code(), Code::ResourceExhausted),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_broken_rule_is_reported() {
    let ended = framed(frame::DATA, flag::END_STREAM, 1, &message(&reply()));
    let compressed = {
        let mut message = message(&reply());
        message[0] = 1;
        framed(frame::DATA, 0, 1, &message)
    };
    let longer = {
        let mut message = message(&reply());
        message.push(0);
        framed(frame::DATA, 0, 1, &message)
    };
    let unavailable = framed(
        frame::HEADERS,
        flag::END_HEADERS | flag::END_STREAM,
        1,
        b"\x08\x03503",
    );
    for (sends, why) in [
        (vec![0x00, 0x40, 0x01, 0, 0, 0, 0, 0, 1], "too long"),
        (framed(frame::RST_STREAM, 0, 1, &[0, 0, 0, 8]), "reset"),
        (framed(frame::GOAWAY, 0, 0, &[0; 8]), "no more calls"),
        (
            framed(frame::PUSH_PROMISE, 0, 1, &[0; 4]),
            "an unknown stream",
        ),
        (framed(frame::DATA, 0, 3, &[]), "an unknown stream"),
        (
            [framed(frame::HEADERS, 0, 1, &[]), head()].concat(),
            "interrupted",
        ),
        (framed(frame::CONTINUATION, 0, 1, &[]), "interrupted"),
        (framed(frame::DATA, flag::PADDED, 1, &[9, 0]), "padding"),
        ([head(), ended].concat(), "has no status"),
        ([head(), trailers("0")].concat(), "no message"),
        ([head(), compressed, trailers("0")].concat(), "compressed"),
        ([head(), longer, trailers("0")].concat(), "a wrong length"),
        (unavailable, "not 200"),
    ] {
        let error = finish(sends).unwrap_err().to_string();
        assert!(error.contains(why), "{error} lacks {why}");
    }
}

#[test]
fn an_answer_without_end_is_bounded() {
    let part = framed(frame::DATA, 0, 1, &[0; FRAME_MAX]);
    let error = finish([head(), part.repeat(5)].concat()).unwrap_err();
    assert!(error.to_string().contains("too long"));
    let part = framed(frame::CONTINUATION, 0, 1, &[0; FRAME_MAX]);
    let first = framed(frame::HEADERS, 0, 1, &[]);
    let error = finish([first, part.repeat(5)].concat()).unwrap_err();
    assert!(error.to_string().contains("too long"));
}

/// The GC request of a full node is larger than the initial window.
#[test]
fn a_large_request_waits_for_room() {
    let request = GcRequest {
        network: "n".repeat(200_000),
        ..GcRequest::default()
    };
    let mut call = Call::new("Gc", &request);
    let mut sent = call.opening();
    let room = |bytes: u32| {
        let bytes = bytes.to_be_bytes();
        [
            framed(frame::WINDOW_UPDATE, 0, 0, &bytes),
            framed(frame::WINDOW_UPDATE, 0, 1, &bytes),
        ]
        .concat()
    };
    // A smaller window than before: bytes that were already sent count against it.
    let smaller = framed(frame::SETTINGS, 0, 0, &[0, 4, 0, 0, 0x80, 0]);
    let answer = framed(frame::DATA, 0, 1, &message(&GcReply { released: 3 }));
    let mut script = Script::new(
        [
            smaller,
            room(100_000),
            room(100_000),
            room(100_000),
            head(),
            answer,
            trailers("0"),
        ]
        .concat(),
    );
    let reply: GcReply = call.finish(&mut script).unwrap();
    assert_eq!(reply.released, 3);
    let unasked = data_in(&sent[PREFACE.len()..]).1.len();
    assert_eq!(i64::try_from(unasked).unwrap(), WINDOW);
    sent.extend(script.got);
    let (ended, body) = data_in(&sent[PREFACE.len()..]);
    assert!(ended);
    assert_eq!(body[PREFIX..], request.encode_to_vec());
}

/// The data in these frames, and whether they end the stream.
fn data_in(mut frames: &[u8]) -> (bool, Vec<u8>) {
    let (mut ended, mut data) = (false, Vec::new());
    while let Some((head, rest)) = frames.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at(length);
        if head[3] == frame::DATA {
            data.extend(payload);
            ended = head[4] & flag::END_STREAM != 0;
        }
        frames = rest;
    }
    (ended, data)
}
