//! The daemon's watch of its Node, with a server that answers, changes the Node, discards its history, disconnects and
//! stops.

use std::{pin::Pin, time::Duration};

use super::*;
use tokio_stream::{Stream, StreamExt};

type Words = Pin<Box<dyn Stream<Item = bool> + Send>>;

fn server_at(address: &str) -> ApiServer {
    ApiServer::start(TcpListener::bind(address).unwrap(), "node-a").unwrap()
}

fn watched(address: SocketAddr, node: &str) -> Words {
    let url = format!("http://{address}").parse().unwrap();
    let client = ipamd::kube::client(kube::Config::new(url)).unwrap();
    let states = ipamd::kube::node_states(client, node, None);
    Box::pin(states.map(|state| state.schedulable))
}

/// Generous: the library waits up to some seconds before it tries again, and the machine may be loaded.
async fn next(words: &mut Words) -> bool {
    tokio::time::timeout(Duration::from_secs(40), words.next())
        .await
        .expect("an event in time")
        .expect("the stream has no end")
}

/// Continues the watch until the server has received what `met` expects; a change in the meantime is a failure.
async fn silent_until(words: &mut Words, server: &ApiServer, met: impl Fn((u32, u32)) -> bool) {
    let mut world = server.world.subscribe();
    let asked = world.wait_for(|world| met((world.lists, world.watches)));
    let limit = tokio::time::sleep(Duration::from_secs(40));
    tokio::select! {
        word = words.next() => panic!("an unexpected event: {word:?}"),
        met = asked => drop(met.expect("the server runs")),
        () = limit => panic!("the server received no request"),
    }
}

#[tokio::test]
async fn cordon_and_uncordon_are_reported() {
    let server = server_at("127.0.0.1:0");
    let mut words = watched(server.address, "node-a");
    server.cordon(true);
    assert!(!next(&mut words).await);
    server.cordon(false);
    assert!(next(&mut words).await);
    server.change(|node| {
        node["metadata"]["deletionTimestamp"] = serde_json::json!("2026-01-01T00:00:00Z")
    });
    assert!(!next(&mut words).await);
    assert_eq!(server.asked(), (1, 1), "one list and one watch are enough");
}

#[tokio::test]
async fn another_nodes_cordon_is_not_ours() {
    let server = server_at("127.0.0.1:0");
    server.cordon(true);
    let mut words = watched(server.address, "node-b");
    silent_until(&mut words, &server, |(lists, watches)| {
        (lists, watches) == (1, 1)
    })
    .await;
}

#[tokio::test]
async fn after_410_the_node_is_listed_again() {
    let server = server_at("127.0.0.1:0");
    let mut words = watched(server.address, "node-a");
    server.cordon(true);
    assert!(!next(&mut words).await);
    silent_until(&mut words, &server, |(_, watches)| watches == 1).await;
    server.expire();
    silent_until(&mut words, &server, |(lists, watches)| {
        (lists, watches) == (2, 2)
    })
    .await;
    server.cordon(false);
    assert!(next(&mut words).await);
}

#[tokio::test]
async fn changes_during_a_disconnect_are_reported() {
    let server = server_at("127.0.0.1:0");
    let mut words = watched(server.address, "node-a");
    silent_until(&mut words, &server, |(_, watches)| watches == 1).await;
    server.cut();
    server.cordon(true);
    assert!(!next(&mut words).await);
    let (lists, watches) = server.asked();
    assert!(
        lists == 1 && watches >= 2,
        "the watch continues where it stopped: {lists}, {watches}"
    );
}

#[tokio::test]
async fn fault_40_a_server_that_is_away_changes_nothing_until_it_is_back() {
    let server = server_at("127.0.0.1:0");
    let address = server.address;
    let mut words = watched(address, "node-a");
    server.cordon(true);
    assert!(!next(&mut words).await);
    drop(server);
    let away = tokio::time::timeout(Duration::from_secs(3), words.next()).await;
    assert!(away.is_err(), "no event without a server: {away:?}");
    let server = server_at(&address.to_string());
    // Uncordoned in the meantime: the versions continue from the previous server's.
    server.cordon(true);
    server.cordon(false);
    assert!(next(&mut words).await);
}

#[tokio::test]
async fn fault_40_a_server_that_starts_late_is_found() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let mut words = watched(address, "node-a");
    let early = tokio::time::timeout(Duration::from_secs(1), words.next()).await;
    assert!(early.is_err(), "{early:?}");
    let server = server_at(&address.to_string());
    server.cordon(true);
    assert!(!next(&mut words).await);
}
