//! Fault 46: plugin and daemon of different releases. `fixtures/protocol-v1` contains the exact bytes that both sides
//! of the first release sent (written by `record_protocol`); they must keep working with later releases.

use std::{
    fs,
    io::{self, Write},
    net::IpAddr,
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use datapath::{netlink::Socket, netns::Netns};
use lab::{
    Lab,
    node::{
        Node, count, occupy,
        plugin::{Invocation, Outcome as Answer},
    },
    wire::http2::{self, Said},
};
use prost::Message;
use proto::{handover, refusal::Refusal, v1};
use serde_json::json;
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    fault_46_requests_of_the_first_release_are_served,
    fault_46_replies_of_the_first_release_are_understood,
    fault_46_requests_of_a_later_release_are_served,
    fault_46_replies_of_a_later_release_are_understood,
    fault_46_no_verb_takes_another_release_for_success,
);

fn ipv4(bytes: &[u8]) -> io::Result<IpAddr> {
    let bytes = <[u8; 4]>::try_from(bytes).map_err(io::Error::other)?;
    Ok(bytes.into())
}

const LIMIT: Duration = Duration::from_secs(30);

fn fixture(name: &str) -> io::Result<Vec<u8>> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fixtures/protocol-v1", name]
        .iter()
        .collect();
    fs::read(&path).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

fn recorded<M: Message + Default>(name: &str) -> io::Result<M> {
    let said = Said::of(&fixture(name)?);
    let message = said
        .message()
        .ok_or_else(|| io::Error::other("no message"))?;
    M::decode(message).map_err(io::Error::other)
}

/// Sends recorded bytes to a daemon, with a sandbox's descriptors if there is one.
fn replay(node: &Node, bytes: &[u8], sandbox: Option<&Netns>) -> io::Result<Said> {
    let mut stream = UnixStream::connect(node.socket())?;
    stream.set_read_timeout(Some(LIMIT))?;
    match sandbox {
        None => handover::send(stream.as_fd(), None)?,
        Some(netns) => {
            let socket = netns.run(open_netlink)??;
            handover::send(stream.as_fd(), Some((netns.as_fd(), socket.as_fd())))?;
        }
    }
    stream.write_all(bytes)?;
    http2::read_answer(&mut stream).map(|answer| Said::of(&answer))
}

fn open_netlink() -> io::Result<Socket> {
    Socket::open().map_err(io::Error::other)
}

fn replied<M: Message + Default>(said: &Said) -> io::Result<M> {
    let message = said
        .message()
        .ok_or_else(|| io::Error::other(format!("no message in {said:?}")))?;
    M::decode(message).map_err(io::Error::other)
}

fn fault_46_requests_of_the_first_release_are_served() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let (netns, _path) = node.sandbox("recorded")?;
    let add = |netns| replay(&node, &fixture("add.request")?, Some(netns));
    let added: v1::AddReply = replied(&add(&netns)?)?;
    assert_eq!(
        (added.address.len(), added.gateway.len()),
        (4, 4),
        "{added:?}"
    );
    assert!(added.host.is_some() && added.pod.is_some() && !added.eni.is_empty());
    assert_eq!(count(&node, "assigned")?, 1);

    // It contains the address of the recording: the daemon compares, and reports the difference.
    let mut check: v1::CheckRequest = recorded("check.request")?;
    let said = replay(&node, &fixture("check.request")?, Some(&netns))?;
    let same = check.address == added.address;
    assert_eq!(said.message().is_some(), same, "{said:?}");
    check.address.clone_from(&added.address);
    let body = http2::data(&http2::message(&check.encode_to_vec()), true);
    let bytes = [http2::client_begins(), http2::call("Check"), body].concat();
    replied::<v1::CheckReply>(&replay(&node, &bytes, Some(&netns))?)?;

    let kept: v1::GcReply = replied(&replay(&node, &fixture("gc.request")?, None)?)?;
    assert_eq!((kept.released, count(&node, "assigned")?), (0, 1));
    replied::<v1::StatusReply>(&replay(&node, &fixture("status.request")?, None)?)?;
    let seen: v1::Snapshot = replied(&replay(&node, &fixture("inspect.request")?, None)?)?;
    assert!(!seen.enis.is_empty());
    replied::<v1::DelReply>(&replay(&node, &fixture("del.request")?, Some(&netns))?)?;
    assert_eq!(count(&node, "assigned")?, 0);

    let (occupied, _path) = node.sandbox("occupied")?;
    occupied.run(|| occupy("eth0"))??;
    let refused = replay(&node, &fixture("add-refused.request")?, Some(&occupied))?;
    assert!(refused.ended && refused.body.is_empty(), "{refused:?}");
    Ok(())
}

/// Answers the next caller with these bytes, whatever it requests; returns the request.
fn answer_with(listener: &UnixListener, reply: &[u8]) -> io::Result<Said> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(LIMIT))?;
    drop(handover::receive(stream.as_fd())?);
    let request = http2::read_answer(&mut stream)?;
    stream.write_all(reply)?;
    // The caller closes when it has read enough.
    http2::read_answer(&mut stream)?;
    Ok(Said::of(&request))
}

/// The current plugin with a daemon that sends `reply`.
fn told(
    lab: &Lab,
    node: &Node,
    invocation: &Invocation,
    reply: &[u8],
) -> io::Result<(Answer, Said)> {
    let path = lab.dir().join("other.sock");
    drop(fs::remove_file(&path));
    let listener = UnixListener::bind(&path)?;
    std::thread::scope(|scope| {
        let daemon = scope.spawn(move || answer_with(&listener, reply));
        let invocation = invocation.clone().conf("socket", json!(path));
        let answer = invocation.run(node.netns())?;
        let asked = daemon
            .join()
            .map_err(|_| io::Error::other("the daemon panicked"))??;
        Ok((answer, asked))
    })
}

/// The verbs with a fixture, and how the plugin is called for them.
fn invocations(node: &Node, netns: &Path) -> Vec<(&'static str, Invocation)> {
    let verb = |verb| node.invocation(verb, "recorded", Some(netns));
    let version = |verb: &str| {
        let invocation = node.invocation(verb, "", None);
        invocation.conf("cniVersion", json!("1.1.0"))
    };
    let valid = json!([{ "containerID": "recorded", "ifname": "eth0" }]);
    let previous = json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.0.0.9/32" }] });
    vec![
        ("add", verb("ADD")),
        ("check", verb("CHECK").conf("prevResult", previous)),
        ("gc", version("GC").conf("cni.dev/valid-attachments", valid)),
        ("status", version("STATUS")),
        ("del", verb("DEL")),
    ]
}

fn fault_46_replies_of_the_first_release_are_understood() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.bare_node("t3.small", &[])?;
    let (_netns, path) = node.sandbox("recorded")?;
    for (name, invocation) in invocations(&node, &path) {
        let reply = fixture(&format!("{name}.reply"))?;
        let (answer, asked) = told(&lab, &node, &invocation, &reply)?;
        assert!(answer.succeeded(), "{name}: {answer:?}");
        assert!(
            asked.ended && asked.message().is_some(),
            "{name}: {asked:?}"
        );
        if name == "add" {
            let told: v1::AddReply = recorded("add.reply")?;
            assert_eq!(answer.address(), ipv4(&told.address)?, "{answer:?}");
        }
    }
    let refused = node.invocation("ADD", "recorded", Some(&path));
    let (answer, _) = told(&lab, &node, &refused, &fixture("add-refused.reply")?)?;
    assert_eq!(answer.error_code(), Some(102), "{answer:?}");
    assert!(answer.error_text().contains("eth0"), "{answer:?}");
    Ok(())
}

/// A message of a later release: all fields of today's, and one more.
#[derive(Clone, PartialEq, Message)]
struct Later {
    #[prost(string, tag = "900")]
    words: String,
    #[prost(message, optional, tag = "901")]
    more: Option<v1::Pod>,
    #[prost(uint64, repeated, tag = "902")]
    numbers: Vec<u64>,
}

/// Concatenated protobuf messages are merged.
fn later(today: &impl Message) -> Vec<u8> {
    let more = Later {
        words: "from the future".into(),
        more: Some(v1::Pod {
            namespace: "later".into(),
            ..v1::Pod::default()
        }),
        numbers: vec![1, 2, 3],
    };
    [today.encode_to_vec(), more.encode_to_vec()].concat()
}

fn request(verb: &str, message: &[u8]) -> Vec<u8> {
    let body = http2::data(&http2::message(message), true);
    [http2::client_begins(), http2::call(verb), body].concat()
}

fn fault_46_requests_of_a_later_release_are_served() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let (netns, _path) = node.sandbox("recorded")?;
    let add: v1::AddRequest = recorded("add.request")?;
    let sandbox = add.sandbox.clone();
    let said = replay(&node, &request("Add", &later(&add)), Some(&netns))?;
    let added: v1::AddReply = replied(&said)?;
    let check = v1::CheckRequest {
        sandbox: sandbox.clone(),
        address: added.address,
    };
    let said = replay(&node, &request("Check", &later(&check)), Some(&netns))?;
    replied::<v1::CheckReply>(&said)?;
    let del = v1::DelRequest { sandbox };
    replied::<v1::DelReply>(&replay(&node, &request("Del", &later(&del)), None)?)?;
    assert_eq!(count(&node, "assigned")?, 0);
    let status = later(&v1::StatusRequest {});
    replied::<v1::StatusReply>(&replay(&node, &request("Status", &status), None)?)?;

    // A verb that this release does not have is refused, and the next call works.
    let said = replay(&node, &request("Migrate", &status), None)?;
    assert!(said.ended && said.body.is_empty(), "{said:?}");
    node.add_pod("after")?;
    Ok(())
}

fn reply(message: &[u8]) -> Vec<u8> {
    let begins = [(":status", "200"), ("content-type", "application/grpc")];
    [
        http2::server_begins(),
        http2::headers(&begins, false),
        http2::data(&http2::message(message), false),
        http2::trailers(0),
    ]
    .concat()
}

/// A refusal without details, as gRPC itself creates it.
fn refused(code: tonic::Code) -> Vec<u8> {
    let list = [
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", &(code as i32).to_string()),
    ];
    [http2::server_begins(), http2::headers(&list, true)].concat()
}

fn fault_46_replies_of_a_later_release_are_understood() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.bare_node("t3.small", &[])?;
    let (_netns, path) = node.sandbox("recorded")?;
    let add = node.invocation("ADD", "recorded", Some(&path));
    let today: v1::AddReply = recorded("add.reply")?;
    let (answer, _) = told(&lab, &node, &add, &reply(&later(&today)))?;
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!(answer.address(), ipv4(&today.address)?);

    // A reason whose number this release does not know: its text arrives, and its code follows from the status.
    let refusal = v1::Refusal {
        reason: 4711,
        cause: "the moon is in the wrong phase".into(),
        remedy: "wait for the moon".into(),
        retry_after_ms: 0,
    };
    let refusal =
        tonic::Status::with_details(tonic::Code::Unavailable, "m", later(&refusal).into());
    let read = Refusal::from_status(&refusal);
    assert_eq!(
        (read.cni_code(), read.remedy.as_str()),
        (11, "wait for the moon")
    );
    let (answer, _) = told(&lab, &node, &add, &refused(tonic::Code::Unavailable))?;
    assert_eq!(answer.error_code(), Some(11), "{answer:?}");
    Ok(())
}

/// The AWS VPC CNI's plugin reports a DEL as successful if the daemon has another version.
fn fault_46_no_verb_takes_another_release_for_success() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.bare_node("t3.small", &[])?;
    let (_netns, path) = node.sandbox("recorded")?;
    let bytes = refused(tonic::Code::Unimplemented);
    for (name, invocation) in invocations(&node, &path) {
        let (answer, _) = told(&lab, &node, &invocation, &bytes)?;
        assert!(!answer.succeeded(), "{name}: {answer:?}");
    }
    Ok(())
}
