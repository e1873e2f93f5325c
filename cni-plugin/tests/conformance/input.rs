//! Rows about input: environment, stdin, namespace paths. None of the refused calls reaches the daemon.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::daemon::{Daemon, Dir};
use crate::runtime::{Call, Pod, conf};

/// The versions of the specification that the plugin serves.
pub const SERVED: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[test]
fn row_01_version_with_any_stdin() {
    for stdin in ["", "garbage", "{}", r#"{"cniVersion": "9.9.9"}"#] {
        let call = Call::bare().env("CNI_COMMAND", "VERSION").stdin(stdin);
        let expected = json!({"cniVersion": "1.1.0", "supportedVersions": SERVED});
        assert_eq!(call.run().result(), expected);
    }
    let asked = Call::bare()
        .env("CNI_COMMAND", "VERSION")
        .stdin(r#"{"cniVersion": "0.4.0"}"#);
    assert_eq!(asked.run().result()["cniVersion"], "0.4.0");
}

#[test]
fn row_02_no_command_prints_about() {
    let outcome = Call::bare().run();
    assert_eq!(outcome.exit, Some(0));
    assert_eq!(outcome.stdout, "");
    assert!(outcome.stderr.contains("1.1.0"), "{outcome:?}");
}

#[test]
fn row_03_unknown_command() {
    let daemon = Daemon::start();
    let message = Call::new("FOO", &daemon.socket()).run().error(4);
    assert!(message.contains("FOO"), "{message}");
    assert!(daemon.untouched());
}

#[test]
fn row_04_missing_variables_are_named_together() {
    let daemon = Daemon::start();
    for command in ["ADD", "CHECK"] {
        let call = Call::new(command, &daemon.socket())
            .without("CNI_CONTAINERID")
            .without("CNI_IFNAME")
            .without("CNI_PATH");
        let message = call.run().error(4);
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"] {
            assert!(message.contains(name), "{message}");
        }
        let call = Call::new(command, &daemon.socket());
        let message = call.run().error(4);
        assert!(message.contains("CNI_NETNS"), "{message}");
        assert!(!message.contains("CNI_PATH"), "{message}");
    }
    assert!(daemon.untouched());
}

#[test]
fn row_05_del_without_namespace() {
    let daemon = Daemon::start();
    Call::new("DEL", &daemon.socket()).run().silent();
    Call::new("DEL", &daemon.socket()).netns("").run().silent();
    assert_eq!(daemon.seen(|seen| seen.del.len()), 2);
}

#[test]
fn row_06_gc_and_status_need_command_and_path_only() {
    let daemon = Daemon::start();
    Call::new("STATUS", &daemon.socket()).run().silent();
    let keys = json!({"cni.dev/valid-attachments": []});
    Call::new("GC", &daemon.socket())
        .conf(&conf("1.1.0", &daemon.socket(), &keys))
        .run()
        .silent();
    assert_eq!(daemon.seen(|seen| (seen.status, seen.gc.len())), (1, 1));
}

#[test]
fn row_07_stdin_that_is_not_json() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    for stdin in ["", "x", "{", "[]", "{} trailing"] {
        for command in ["ADD", "DEL", "CHECK", "STATUS", "GC"] {
            let call = Call::new(command, &daemon.socket()).netns(pod.path());
            call.stdin(stdin).run().error(6);
        }
    }
    assert!(daemon.untouched());
}

#[test]
fn row_08_bad_network_names() {
    let daemon = Daemon::start();
    for name in [
        json!(""),
        json!("-a"),
        json!("a b"),
        json!("a/b"),
        json!(null),
    ] {
        let keys = json!({"name": name});
        let call = Call::new("DEL", &daemon.socket());
        call.conf(&conf("1.0.0", &daemon.socket(), &keys))
            .run()
            .error(7);
    }
    Call::new("DEL", &daemon.socket())
        .stdin(r#"{"cniVersion": "1.0.0"}"#)
        .run()
        .error(7);
    assert!(daemon.untouched());
}

#[test]
fn row_09_bad_container_ids() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    let long = "f".repeat(300);
    for id in ["", "a/b", "a b", "..", "a/../b", ".a", &long] {
        for command in ["ADD", "DEL"] {
            let call = Call::new(command, &daemon.socket()).netns(pod.path());
            call.env("CNI_CONTAINERID", id).run().error(4);
        }
    }
    assert!(daemon.untouched());
}

#[test]
fn row_10_bad_interface_names() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    for name in [
        "1234567890123456",
        ".",
        "..",
        "a/b",
        "a:b",
        "a b",
        "a\tb",
        "eth%d",
    ] {
        for command in ["ADD", "DEL"] {
            let call = Call::new(command, &daemon.socket()).netns(pod.path());
            call.env("CNI_IFNAME", name).run().error(4);
        }
    }
    assert!(daemon.untouched());
}

#[test]
fn row_11_unknown_protocol_versions() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    for version in ["9.9.9", "0.1.0", "0.2.0", "1.0", ""] {
        let call = Call::new("ADD", &daemon.socket()).netns(pod.path());
        let conf = conf(version, &daemon.socket(), &json!({}));
        let outcome = call.conf(&conf).run();
        let message = outcome.error(1);
        for served in SERVED {
            assert!(message.contains(served), "{message}");
        }
    }
    Call::new("ADD", &daemon.socket())
        .netns(pod.path())
        .stdin(r#"{"name": "a"}"#)
        .run()
        .error(1);
    assert!(daemon.untouched());
}

#[test]
fn case_07_del_works_with_any_version() {
    for version in [
        json!("9.9.9"),
        json!("0.1.0"),
        json!("0.2.0"),
        json!("1.0"),
        json!(""),
        json!(1.0),
        Value::Null,
    ] {
        let daemon = Daemon::start();
        let conf = conf("1.0.0", &daemon.socket(), &json!({ "cniVersion": version }));
        Call::new("DEL", &daemon.socket())
            .conf(&conf)
            .run()
            .silent();
        assert!(!daemon.untouched(), "{version}");
    }
}

#[test]
fn case_04_names_that_kubernetes_would_refuse_are_served() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=t-1;K8S_POD_NAME=create-PodSandbox-for-run-1";
    let call = Call::new("ADD", &daemon.socket()).netns(pod.path());
    call.env("CNI_ARGS", args).run().result();
    assert!(!daemon.untouched());
}

#[test]
fn row_12_verbs_that_a_version_does_not_have() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    for (command, version) in [
        ("CHECK", "0.3.1"),
        ("GC", "0.4.0"),
        ("GC", "1.0.0"),
        ("STATUS", "1.0.0"),
    ] {
        let conf = conf(version, &daemon.socket(), &json!({}));
        let call = Call::new(command, &daemon.socket()).netns(pod.path());
        call.conf(&conf).run().error(1);
    }
    assert!(daemon.untouched());
}

#[test]
fn row_13_own_namespace_needs_the_override() {
    let daemon = Daemon::start();
    let own = format!("/proc/{}/ns/net", std::process::id());
    for command in ["ADD", "DEL"] {
        let call = Call::new(command, &daemon.socket()).netns(&own);
        let message = call.run().error(8);
        assert!(message.contains("own network namespace"), "{message}");
    }
    assert!(daemon.untouched());
    let call = Call::new("ADD", &daemon.socket()).netns(&own);
    call.env("CNI_NETNS_OVERRIDE", "1").run().result();
    let call = Call::new("DEL", &daemon.socket()).netns(&own);
    call.env("CNI_NETNS_OVERRIDE", "true").run().silent();
}

#[test]
fn row_14_absent_namespace() {
    let daemon = Daemon::start();
    let gone = "/run/netns/hawser-conformance-gone";
    let message = Call::new("ADD", &daemon.socket())
        .netns(gone)
        .run()
        .error(8);
    assert!(message.contains(gone), "{message}");
    assert!(daemon.untouched());
    Call::new("DEL", &daemon.socket())
        .netns(gone)
        .run()
        .silent();
    assert_eq!(daemon.seen(|seen| seen.del.len()), 1);
}

#[test]
fn row_15_paths_that_are_no_network_namespace() {
    let daemon = Daemon::start();
    let dir = Dir::new();
    let file = dir.join("file");
    std::fs::write(&file, "").unwrap();
    let link = dir.join("link");
    std::os::unix::fs::symlink("/proc/1/ns/net", &link).unwrap();
    let add = |path: PathBuf| Call::new("ADD", &daemon.socket()).netns(path);
    add(file.clone()).run().error(8);
    add(link).run().error(8);
    add("/proc/1/ns/mnt".into()).run().error(8);
    add("/dev/zero".into()).run().error(8);
    add("relative".into()).run().error(8);
    // Kinds of namespaces that are mounted as files, which is how runtimes pass them.
    let mount = format!(
        "mount --bind /proc/self/ns/uts {}; exec \"$0\"",
        file.display()
    );
    let message = add(file.clone()).prelude(mount).run().error(8);
    assert!(message.contains("not a network namespace"), "{message}");
    assert!(daemon.untouched());
    // A removed bind mount leaves a regular file: for DEL, the namespace is gone.
    Call::new("DEL", &daemon.socket())
        .netns(file)
        .run()
        .silent();
}

#[test]
fn row_15_mounted_namespace_behind_a_linked_directory_is_accepted() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    let dir = Dir::new();
    std::fs::create_dir(dir.join("run")).unwrap();
    std::os::unix::fs::symlink(dir.join("run"), dir.join("var-run")).unwrap();
    let file = dir.join("run/cni-1");
    std::fs::write(&file, "").unwrap();
    let mount = format!(
        "mount --bind {} {}; exec \"$0\"",
        pod.path(),
        file.display()
    );
    let through_link = dir.join("var-run/cni-1");
    Call::new("ADD", &daemon.socket())
        .netns(&through_link)
        .prelude(mount)
        .run()
        .result();
    let handed = daemon.seen(|seen| seen.preambles[0]).unwrap();
    assert_eq!(handed.ino, pod.inode());
}

#[test]
fn row_35_cni_args() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    let add = |args: &str| {
        Call::new("ADD", &daemon.socket())
            .netns(pod.path())
            .env("CNI_ARGS", args)
    };
    for bad in [
        "K",
        "FOO=1",
        "IgnoreUnknown=1;;",
        "K8S_POD_NAME=a;K8S_POD_NAME=b",
    ] {
        add(bad).run().error(4);
    }
    add(&"K=V;".repeat(30_000)).run().error(4);
    assert!(daemon.untouched());
    add("K8S_POD_UID=u-1;FOO=1;IgnoreUnknown=true;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0")
        .run()
        .result();
    let sent = daemon.seen(|seen| seen.add[0].pod.clone()).unwrap();
    assert_eq!(
        (
            sent.namespace.as_str(),
            sent.name.as_str(),
            sent.uid.as_str()
        ),
        ("default", "web-0", "u-1")
    );
    // ADD refused these inputs, so they must not prevent the DEL that follows.
    let del = Call::new("DEL", &daemon.socket());
    del.env("CNI_ARGS", "K").run().silent();
}

#[test]
fn row_36_hostile_stdin_is_bounded() {
    let daemon = Daemon::start();
    let head = r#"{"cniVersion": "1.0.0", "name": "a""#;
    let deep = format!(
        r#"{head}, "x": {}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let large = format!(r#"{head}, "x": "{}"}}"#, "y".repeat(10 << 20));
    let duplicate = format!(r#"{head}, "name": "b"}}"#);
    let escaped = format!(r#"{head}, "x": "a\u0000b"}}"#);
    let mut utf8 = format!(r#"{head}, "x": ""#).into_bytes();
    utf8.extend_from_slice(b"\xff\xfe\"}");
    let nul = [head.as_bytes(), b"\0}"].concat();
    for stdin in [
        deep.into_bytes(),
        large.into_bytes(),
        duplicate.into_bytes(),
        escaped.into_bytes(),
        utf8,
        nul,
    ] {
        Call::new("DEL", &daemon.socket())
            .stdin(stdin)
            .run()
            .error(6);
    }
    assert!(daemon.untouched());
}

#[test]
fn row_39_and_40_keys_of_others_are_ignored() {
    let daemon = Daemon::start();
    let keys = json!({
        "disableCheck": true, "disableGC": true, "loadOnlyInlinedPlugins": true,
        "runtimeConfig": {"unknown": {"a": [1]}}, "capabilities": {"unknown": true},
        "pluginLogLevel": "DEBUG",
    });
    let conf = conf("1.0.0", &daemon.socket(), &keys);
    Call::new("DEL", &daemon.socket())
        .conf(&conf)
        .run()
        .silent();
}

#[test]
fn link_settings_are_checked_by_add_and_never_stop_a_del() {
    let daemon = Daemon::start();
    let pod = Pod::new();
    for keys in [
        json!({"vethPrefix": "toolong"}),
        json!({"vethPrefix": "eth"}),
        json!({"mtu": "575"}),
        json!({"mtu": 9002}),
        json!({"mtu": "big"}),
    ] {
        let conf = conf("1.1.0", &daemon.socket(), &keys);
        let add = Call::new("ADD", &daemon.socket()).netns(pod.path());
        add.conf(&conf).run().error(7);
        Call::new("STATUS", &daemon.socket())
            .conf(&conf)
            .run()
            .error(7);
        Call::new("DEL", &daemon.socket())
            .conf(&conf)
            .run()
            .silent();
    }
    let keys = json!({"vethPrefix": "cali", "mtu": "1500"});
    let add = Call::new("ADD", &daemon.socket()).netns(pod.path());
    add.conf(&conf("1.1.0", &daemon.socket(), &keys))
        .run()
        .result();
    let sent = daemon.seen(|seen| seen.add[0].clone());
    assert_eq!((sent.veth_prefix.as_str(), sent.mtu), ("cali", 1500));
}
