//! What is recognised and what is not, and whether a library's client understands the answer.

use std::{future::Future, sync::Mutex};

use hyper_util::rt::TokioIo;
use proto::v1::{self, AddReply, AddRequest, node_client::NodeClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, transport::Endpoint};

use super::*;

fn said_by_the_plugin(method: &str, message: &[u8]) -> Vec<u8> {
    let mut words = wire::opening(method);
    let body = [&wire::prefix(message)[..], message].concat();
    wire::put(&mut words, frame::DATA, flag::END_STREAM, STREAM, &body);
    words
}

fn known(bytes: &[u8]) -> Option<(Verb, Vec<u8>)> {
    let opening = FirstBytes(bytes.to_vec());
    opening
        .call()
        .map(|call| (call.verb, call.message.to_vec()))
}

#[test]
fn calls_in_the_plugins_form_are_recognised() {
    for (verb, method) in [
        (Verb::Add, "Add"),
        (Verb::Del, "Del"),
        (Verb::Check, "Check"),
        (Verb::Status, "Status"),
    ] {
        for message in [&b""[..], b"asked", &[7; 3000]] {
            let found = known(&said_by_the_plugin(method, message));
            assert_eq!(found, Some((verb, message.to_vec())), "{method}");
        }
    }
    for method in ["Gc", "Inspect", "Addition"] {
        assert_eq!(known(&said_by_the_plugin(method, b"asked")), None);
    }
}

#[test]
fn a_call_that_differs_in_one_byte_is_not_recognised() {
    let message = b"asked";
    let words = said_by_the_plugin("Add", message);
    for end in 0..words.len() {
        assert_eq!(known(&words[..end]), None, "cut at {end}");
    }
    for more in [&[0][..], &words] {
        assert_eq!(known(&[&words, more].concat()), None);
    }
    for at in 0..words.len() - message.len() {
        for bit in 0..8 {
            let mut other = words.clone();
            other[at] ^= 1 << bit;
            assert_eq!(known(&other), None, "bit {bit} of byte {at}");
        }
    }
}

/// Otherwise the fuzzer would not try variations of these calls.
#[test]
fn the_fuzz_corpus_has_calls_in_this_form() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/rpc");
    for (name, verb) in [
        ("plain-add", Verb::Add),
        ("plain-del", Verb::Del),
        ("plain-status", Verb::Status),
    ] {
        let bytes = std::fs::read(format!("{corpus}/{name}")).unwrap();
        let found = known(&[wire::PREFACE, &bytes[1..]].concat());
        assert_eq!(found.map(|(verb, _)| verb), Some(verb), "{name}");
    }
}

/// How a library's client interprets an answer to its own ADD.
async fn heard(answer: Result<AddReply, Status>) -> Result<AddReply, Status> {
    let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
    let ours = Mutex::new(Some(ours));
    let connect = tower::service_fn(move |_: http::Uri| {
        let ours = ours.lock().unwrap().take().map(TokioIo::new);
        async move { ours.ok_or(io::Error::other("only one connection")) }
    });
    let answering = async move {
        // The client's whole request, in any form.
        let mut bytes = [0; 4096];
        let mut read = 0;
        while !bytes[..read].windows(2).any(|two| two == b"me") {
            read += theirs.read(&mut bytes[read..]).await.unwrap();
        }
        let answer = answer.map(|reply| reply.encode_to_vec());
        theirs.write_all(&encode_answer(&answer)).await.unwrap();
        theirs
    };
    let asking = async {
        let channel = Endpoint::from_static("http://ipamd.invalid")
            .http2_max_header_list_size(1 << 20)
            .connect_with_connector(connect)
            .await
            .unwrap();
        let request = AddRequest {
            sandbox: Some(v1::Sandbox {
                network: "me".to_owned(),
                ..v1::Sandbox::default()
            }),
            ..AddRequest::default()
        };
        NodeClient::new(channel).add(request).await
    };
    let (heard, _theirs) = in_time(async { tokio::join!(asking, answering) }).await;
    heard.map(Response::into_inner)
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, work).await.expect("in time")
}

#[tokio::test]
async fn a_librarys_client_reads_the_answer() {
    let small = AddReply {
        eni: "eni-1".to_owned(),
        ..AddReply::default()
    };
    let large = AddReply {
        eni: "e".repeat(3 * FRAME_MAX),
        ..AddReply::default()
    };
    for reply in [AddReply::default(), small, large] {
        assert_eq!(heard(Ok(reply.clone())).await.unwrap(), reply);
    }
}

#[tokio::test]
async fn a_librarys_client_reads_a_refusal() {
    // Details with lengths around the limit of a one-byte length, and a message with more than one frame.
    for (words, details) in [
        ("no address is free", 0),
        ("über 100 %\n", 94),
        ("", 96),
        (&*"é".repeat(2000), 12_000),
    ] {
        let details = vec![9_u8; details];
        let status = Status::with_details(Code::Unavailable, words, details.clone().into());
        let heard = heard(Err(status)).await.unwrap_err();
        assert_eq!((heard.code(), heard.message()), (Code::Unavailable, words));
        assert_eq!(heard.details(), details);
    }
}

#[test]
fn lengths_are_written_as_the_standard_says() {
    // RFC 7541, C.1.2, with seven bits instead of five: 1337 − 127 = 1210.
    for (value, written) in [
        (10, &[10][..]),
        (126, &[126]),
        (127, &[127, 0]),
        (128, &[127, 1]),
        (254, &[127, 127]),
        (255, &[127, 0x80, 1]),
        (1337, &[127, 0xba, 9]),
    ] {
        let mut block = Vec::new();
        put_integer(&mut block, value);
        assert_eq!(block, written, "{value}");
    }
}
