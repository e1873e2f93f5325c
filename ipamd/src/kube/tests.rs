//! The state after each event. A test in the lab's crate covers the connection to a server.

use kube::core::Status;
use serde_json::{Value, json};

use super::{
    node::{LEAVING, schedulable},
    *,
};

fn word() -> Word {
    Word::new(None)
}

fn accepts(state: Option<NodeState>) -> Option<bool> {
    state.map(|state| state.schedulable)
}

fn node(metadata: Value, spec: Value) -> OwnNode {
    // With a status, as servers send it: it must not matter.
    let status = json!({ "images": [{ "names": ["pause"], "sizeBytes": 1 }] });
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec, "status": status,
    }))
    .unwrap()
}

fn spec(spec: Value) -> bool {
    schedulable(&node(json!({ "name": "n" }), spec))
}

fn tainted(key: &str, effect: &str) -> bool {
    spec(
        json!({ "taints": [{ "key": "other", "effect": "NoSchedule" }, { "key": key, "effect": effect }] }),
    )
}

fn failed(code: u16) -> Result<Event<OwnNode>, watcher::Error> {
    let status = Status {
        code,
        ..Status::failure("told", "Reason")
    };
    Err(watcher::Error::WatchError(Box::new(status)))
}

#[test]
fn a_node_is_schedulable_unless_its_object_says_otherwise() {
    assert!(spec(json!({})));
    assert!(spec(json!({ "unschedulable": false, "taints": [] })));
    assert!(!spec(json!({ "unschedulable": true })));
}

#[test]
fn taints_of_a_node_that_is_to_go_count_and_others_do_not() {
    for key in LEAVING {
        assert!(!tainted(key, "NoSchedule"), "{key}");
        assert!(tainted(key, "PreferNoSchedule"), "{key}");
    }
    assert!(tainted("dedicated", "NoSchedule"));
    assert!(tainted("node.kubernetes.io/not-ready", "NoExecute"));
}

#[test]
fn a_node_under_deletion_takes_no_pods() {
    let dying = json!({ "name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z" });
    assert!(!schedulable(&node(dying, json!({}))));
}

#[test]
fn only_changes_are_told() {
    let mut word = word();
    let mut say = |unschedulable| {
        let spec = json!({ "unschedulable": unschedulable });
        accepts(word.take(Ok(Event::Apply(node(json!({ "name": "n" }), spec)))))
    };
    let told = [false, true, true, false, false].map(&mut say);
    assert_eq!(told, [None, Some(false), None, Some(true), None]);
}

#[test]
fn an_error_or_an_empty_list_changes_nothing() {
    let mut word = word();
    let cordoned = node(json!({ "name": "n" }), json!({ "unschedulable": true }));
    assert_eq!(
        accepts(word.take(Ok(Event::InitApply(cordoned)))),
        Some(false)
    );
    for event in [
        failed(500),
        failed(410),
        Ok(Event::Init),
        Ok(Event::InitDone),
    ] {
        assert_eq!(word.take(event), None);
    }
    let open = node(json!({ "name": "n" }), json!({}));
    assert_eq!(accepts(word.take(Ok(Event::InitApply(open)))), Some(true));
}

#[test]
fn a_deleted_node_is_not_warmed_and_a_new_one_is() {
    let mut word = word();
    let open = || node(json!({ "name": "n" }), json!({}));
    assert_eq!(accepts(word.take(Ok(Event::Delete(open())))), Some(false));
    assert_eq!(accepts(word.take(Ok(Event::Apply(open())))), Some(true));
}

#[test]
fn an_outage_is_logged_once_and_a_watch_gap_is_not_an_outage() {
    let mut word = word();
    word.take(failed(410));
    assert!(!word.away);
    word.take(failed(503));
    word.take(Ok(Event::Init));
    assert!(word.away);
    word.take(Ok(Event::InitDone));
    assert!(!word.away);
}

#[test]
fn an_answer_of_the_api_server_is_told_in_one_line() {
    let status = Status {
        code: 401,
        ..Status::failure("no such token", "Unauthorized")
    };
    let refused = watcher::Error::WatchStartFailed(kube::Error::Api(Box::new(status)));
    assert_eq!(told(&refused), "the API server answers 401: no such token");
}

#[test]
fn the_name_of_the_eni_config_outlives_the_api_server() {
    let mut word = Word::new(Some(EniConfigKeys::default()));
    let named = |name: Option<&str>| {
        let labels = name.map(|name| json!({ "k8s.amazonaws.com/eniConfig": name }));
        node(json!({ "name": "n", "labels": labels }), json!({}))
    };
    let name = |state: Option<NodeState>| state.and_then(|state| state.eni_config);
    assert_eq!(name(word.take(failed(503))), None, "not the default one");
    let first = word.take(Ok(Event::InitApply(named(Some("a")))));
    assert_eq!(name(first).as_deref(), Some("a"));
    for event in [failed(500), Ok(Event::Init), Ok(Event::InitDone)] {
        assert_eq!(word.take(event), None);
    }
    assert_eq!(word.state.eni_config.as_deref(), Some("a"));
    let gone = word.take(Ok(Event::Delete(named(None))));
    assert_eq!(
        name(gone).as_deref(),
        Some("a"),
        "the object is gone, not its meaning"
    );
    let unnamed = word.take(Ok(Event::Apply(named(None))));
    assert_eq!(name(unnamed).as_deref(), Some("default"));
}
