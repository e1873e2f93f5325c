//! Rows about output: results by version, codes by cause, and the requests of each verb to the daemon.

use std::process::Stdio;
use std::time::Duration;

use proto::refusal::{Reason, Refusal};
use serde_json::{Value, json};

use crate::daemon::{Daemon, Dir, nobody};
use crate::input::SERVED;
use crate::runtime::{Call, Pod, conf};

fn add(daemon: &Daemon, pod: &Pod, version: &str) -> Value {
    let conf = conf(version, &daemon.socket(), &json!({}));
    let call = Call::new("ADD", &daemon.socket()).netns(pod.path());
    call.conf(&conf).run().result()
}

fn refusal(reason: Reason) -> Refusal {
    Refusal::new(reason, "this is why", "do that", None)
}

#[test]
fn row_16_refusals_keep_their_code_and_text() {
    let pod = Pod::new();
    let daemon = Daemon::start();
    for (reason, code) in [
        (Reason::InterfaceExists, 102),
        (Reason::PodLimit, 11),
        (Reason::SubnetExhausted, 11),
        (Reason::NetnsInvalid, 8),
        (Reason::InvalidRequest, 7),
        (Reason::SandboxDeleted, 3),
        (Reason::Unspecified, 999),
    ] {
        daemon.refuse(Some(refusal(reason)));
        let outcome = Call::new("ADD", &daemon.socket()).netns(pod.path()).run();
        assert_eq!(outcome.error(code), "this is why");
        assert!(outcome.stdout.contains("do that"), "{outcome:?}");
    }
    // Returned at once, without hidden retries.
    assert_eq!(daemon.seen(|seen| seen.add.len()), 7);
}

#[test]
fn row_17_family_in_results_before_1_0_0_only() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    for version in ["0.3.0", "0.3.1", "0.4.0"] {
        assert_eq!(add(&daemon, &pod, version)["ips"][0]["version"], "4");
    }
    for version in ["1.0.0", "1.1.0"] {
        assert!(
            add(&daemon, &pod, version)["ips"][0]
                .get("version")
                .is_none()
        );
    }
}

#[test]
fn row_18_mtu_in_results_from_1_1_0_only() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let text = add(&daemon, &pod, version).to_string();
        assert!(!text.contains("mtu"), "{text}");
    }
    let result = add(&daemon, &pod, "1.1.0");
    assert_eq!(result["interfaces"][1]["mtu"], 9001);
}

#[test]
fn row_19_result_names_both_ends() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let result = add(&daemon, &pod, version);
        assert_eq!(result["cniVersion"], version);
        let interfaces = result["interfaces"].as_array().unwrap();
        assert_eq!(interfaces[0]["sandbox"], "");
        assert_eq!(interfaces[0]["mac"], "02:00:00:00:00:01");
        assert_eq!(interfaces[1]["name"], "eth0");
        assert_eq!(interfaces[1]["sandbox"], pod.path());
        let index = result["ips"][0]["interface"].as_u64().unwrap();
        assert_eq!(index, 1);
        assert_eq!(interfaces.len(), 2);
        assert_eq!(result["ips"][0]["address"], "10.0.3.7/32");
    }
}

#[test]
fn row_20_chained_add_passes_earlier_entries_through() {
    for version in SERVED {
        let daemon = Daemon::start();
        let pod = Pod::new();
        let mut prev = json!({
            "cniVersion": version,
            "interfaces": [{"name": "dummy0", "extra": true}],
            "ips": [{"address": "fd00::1/128", "interface": 0}],
            "dns": {"search": ["a"]},
        });
        // Until 1.0.0, each address says its family.
        let says_family = version < "1.0.0";
        if says_family {
            prev["ips"][0]["version"] = json!("6");
        }
        let conf = conf(version, &daemon.socket(), &json!({"prevResult": prev}));
        let call = Call::new("ADD", &daemon.socket()).netns(pod.path());
        let result = call.conf(&conf).run().result();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["interfaces"][0], prev["interfaces"][0], "{version}");
        assert_eq!(result["ips"][0], prev["ips"][0], "{version}");
        assert_eq!(result["ips"][1]["interface"], 2, "{version}");
        let family = says_family.then_some("4");
        assert_eq!(result["ips"][1]["version"].as_str(), family, "{version}");
        assert_eq!(result["dns"], prev["dns"], "{version}");
    }
}

#[test]
fn row_21_a_repeated_add_carries_the_same_key_and_namespace() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    let first = add(&daemon, &pod, "1.1.0");
    assert_eq!(add(&daemon, &pod, "1.1.0"), first);
    daemon.seen(|seen| {
        assert_eq!(seen.add[0].sandbox, seen.add[1].sandbox);
        let handed = seen.preambles.iter().map(|p| p.unwrap().ino);
        assert!(handed.eq([pod.inode(), pod.inode()]));
        assert!((4_000..5_000).contains(&seen.add[0].deadline_ms));
    });
}

#[test]
fn row_22_adds_of_different_sandboxes_run_side_by_side() {
    let daemon = Daemon::start();
    std::thread::scope(|scope| {
        for index in 0..16 {
            let socket = daemon.socket();
            scope.spawn(move || {
                let pod = Pod::new();
                let call = Call::new("ADD", &socket).netns(pod.path());
                call.env("CNI_CONTAINERID", format!("c{index}"))
                    .run()
                    .result();
            });
        }
    });
    assert_eq!(daemon.seen(|seen| seen.add.len()), 16);
}

#[test]
fn row_24_del_of_anything_and_again() {
    let daemon = Daemon::start();
    for _ in 0..3 {
        Call::new("DEL", &daemon.socket()).run().silent();
    }
    daemon.seen(|seen| {
        assert_eq!(seen.del.len(), 3);
        assert_eq!(seen.preambles, [None; 3]);
        let sandbox = seen.del[0].sandbox.clone().unwrap();
        assert_eq!(sandbox.network, "aws-cni");
        assert_eq!(sandbox.container_id, "c0ffee");
        assert_eq!(sandbox.ifname, "eth0");
    });
}

#[test]
fn row_25_del_does_not_look_at_prev_result() {
    let daemon = Daemon::start();
    for prev in [
        json!(null),
        json!({}),
        json!([]),
        json!({"ips": [{"address": "1.2.3.4/32"}]}),
    ] {
        let conf = conf("1.0.0", &daemon.socket(), &json!({"prevResult": prev}));
        Call::new("DEL", &daemon.socket())
            .conf(&conf)
            .run()
            .silent();
    }
}

#[test]
fn row_26_daemon_down_is_code_11_within_the_deadline() {
    let dir = Dir::new();
    let pod = Pod::new();
    let keys = json!({"deadlineSeconds": 0.3});
    let conf = conf("1.0.0", &nobody(&dir), &keys);
    let call = Call::new("ADD", &nobody(&dir)).netns(pod.path());
    let outcome = call.conf(&conf).run();
    let message = outcome.error(11);
    assert!(message.contains("ipamd cannot be reached"), "{message}");
    let all = format!("{}{}", outcome.stdout, outcome.stderr).to_lowercase();
    assert!(!all.contains("not found"), "{all}");
    assert!(!all.contains("no such file"), "{all}");
}

#[test]
fn row_26_del_without_a_daemon_leaves_a_tombstone_and_succeeds() {
    let dir = Dir::new();
    let pod = Pod::new();
    let conf = conf("1.0.0", &nobody(&dir), &json!({"deadlineSeconds": 0.3}));
    for _ in 0..2 {
        let call = Call::new("DEL", &nobody(&dir)).netns(pod.path());
        call.conf(&conf).run().silent();
    }
    let directory = proto::tombstone::directory(&nobody(&dir));
    let found = proto::tombstone::all(&directory).unwrap();
    assert_eq!((found.standing.len(), found.unreadable.len()), (1, 0));
    assert_eq!(found.standing[0].1.ifname.as_str(), "eth0");
}

#[test]
fn row_26_del_that_cannot_leave_a_tombstone_either_is_code_11() {
    let dir = Dir::new();
    // A file exists in place of the socket's directory.
    let blocked = dir.join("file");
    std::fs::write(&blocked, "").unwrap();
    let socket = blocked.join("ipamd.sock");
    let conf = conf("1.0.0", &socket, &json!({"deadlineSeconds": 0.3}));
    let message = Call::new("DEL", &socket).conf(&conf).run().error(11);
    assert!(!message.to_lowercase().contains("not found"), "{message}");
}

#[test]
fn row_26_mute_daemon_is_code_11_within_the_deadline() {
    let daemon = Daemon::mute();
    let pod = Pod::new();
    let conf = conf("1.0.0", &daemon.socket(), &json!({"deadlineSeconds": 0.3}));
    let call = Call::new("ADD", &daemon.socket()).netns(pod.path());
    let message = call.conf(&conf).run().error(11);
    assert!(message.contains("did not answer within 300ms"), "{message}");
}

#[test]
fn row_26_a_daemon_that_starts_in_the_meantime_is_found() {
    let dir = Dir::new();
    let late = nobody(&dir);
    let running = Daemon::start();
    let pod = Pod::new();
    let call = Call::new("ADD", &late).netns(pod.path());
    let add = std::thread::spawn(move || call.run().result());
    // The daemon is available from the rename on. The call succeeds whether or not the plugin has tried before.
    std::fs::rename(running.socket(), &late).unwrap();
    assert_eq!(add.join().unwrap()["ips"][0]["address"], "10.0.3.7/32");
}

#[test]
fn row_26_a_starting_daemon_is_tried_again_when_it_says() {
    let daemon = Daemon::refusing(Refusal::new(
        Reason::Starting,
        "the record is being read",
        "",
        Some(Duration::from_millis(1)),
    ));
    let call = Call::new("DEL", &daemon.socket());
    let del = std::thread::spawn(move || call.run());
    while daemon.seen(|seen| seen.del.is_empty()) {
        std::thread::yield_now();
    }
    daemon.refuse(None);
    del.join().unwrap().silent();
}

#[test]
fn row_27_check_hands_descriptors_and_the_address() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let prev = add(&daemon, &pod, version);
        let conf = conf(version, &daemon.socket(), &json!({"prevResult": prev}));
        let call = Call::new("CHECK", &daemon.socket()).netns(pod.path());
        let call = call.conf(&conf);
        call.run().silent();
        daemon.refuse(Some(refusal(Reason::Drift)));
        call.run().error(101);
        daemon.refuse(Some(refusal(Reason::UnknownSandbox)));
        call.run().error(100);
        daemon.refuse(None);
    }
    daemon.seen(|seen| {
        assert_eq!(seen.check.len(), 9);
        assert!(
            seen.check
                .iter()
                .all(|check| check.address == [10, 0, 3, 7])
        );
        assert!(seen.preambles.iter().all(|p| p.unwrap().ino == pod.inode()));
    });
}

#[test]
fn row_28_check_without_prev_result() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    let call = Call::new("CHECK", &daemon.socket()).netns(pod.path());
    let message = call.run().error(7);
    assert!(message.contains("prevResult"), "{message}");
    for prev in [json!(null), json!({}), json!({"ips": []})] {
        let conf = conf("1.1.0", &daemon.socket(), &json!({"prevResult": prev}));
        call.clone().conf(&conf).run().error(7);
    }
    assert!(daemon.untouched());
}

#[test]
fn row_29_status() {
    let daemon = Daemon::start();
    let call = Call::new("STATUS", &daemon.socket());
    call.run().silent();
    for reason in [
        Reason::PoolEmpty,
        Reason::SubnetExhausted,
        Reason::Ec2Denied,
    ] {
        daemon.refuse(Some(refusal(reason)));
        assert_eq!(call.run().error(50), "this is why");
    }
    let dir = Dir::new();
    let conf = conf("1.1.0", &nobody(&dir), &json!({"deadlineSeconds": 0.2}));
    call.conf(&conf).run().error(50);
}

#[test]
fn row_30_gc_sends_the_valid_attachments_of_its_network() {
    let daemon = Daemon::start();
    let gc = |keys: &Value| {
        let conf = conf("1.1.0", &daemon.socket(), keys);
        Call::new("GC", &daemon.socket()).conf(&conf).run()
    };
    gc(&json!({"cni.dev/valid-attachments": []})).silent();
    let entry = json!({"containerID": "a", "ifname": "eth0"});
    gc(&json!({"cni.dev/attachments": [entry]})).silent();
    daemon.seen(|seen| {
        assert_eq!(seen.gc[0].network, "aws-cni");
        assert!(seen.gc[0].valid.is_empty());
        assert_eq!(seen.gc[1].valid.len(), 1);
        assert_eq!(seen.gc[1].valid[0].container_id, "a");
    });
}

#[test]
fn row_31_gc_frees_nothing_without_an_explicit_list() {
    let daemon = Daemon::start();
    let gc = |keys: &Value| {
        let conf = conf("1.1.0", &daemon.socket(), keys);
        Call::new("GC", &daemon.socket()).conf(&conf).run()
    };
    gc(&json!({})).error(7);
    gc(&json!({"cni.dev/valid-attachments": null})).silent();
    gc(&json!({"cni.dev/valid-attachments": null, "cni.dev/attachments": null})).silent();
    gc(&json!({"cni.dev/valid-attachments": [{"containerID": "a"}]})).error(7);
    gc(&json!({"cni.dev/valid-attachments": "a"})).error(6);
    assert!(daemon.untouched());
}

#[test]
fn row_33_errors_echo_the_version_and_own_stdout() {
    let daemon = Daemon::refusing(refusal(Reason::PoolEmpty));
    let pod = Pod::new();
    for version in ["0.3.0", "0.4.0", "1.1.0"] {
        let conf = conf(version, &daemon.socket(), &json!({}));
        let call = Call::new("ADD", &daemon.socket()).netns(pod.path());
        let outcome = call.conf(&conf).run();
        outcome.error(11);
        let error: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(error["cniVersion"], version);
        assert_eq!(error["details"], "do that (POOL_EMPTY)");
    }
}

#[test]
fn row_37_closed_stdout_is_a_failed_call_and_no_signal() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let call = Call::new("ADD", &daemon.socket()).netns(pod.path());
    let outcome = call.run_with(Stdio::from(writer));
    assert_eq!(outcome.exit, Some(1), "{outcome:?}");
}
