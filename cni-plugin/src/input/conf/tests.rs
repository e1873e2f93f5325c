//! The keys of the configuration, rule by rule.

use super::*;

const GOOD: &str = r#""cniVersion": "1.1.0", "name": "aws-cni", "type": "hawser""#;

fn read(text: &str, verb: Verb) -> Result<Conf, ConfError> {
    Conf::read(text.as_bytes(), verb)
}

fn with(keys: &str) -> Conf {
    read(&format!("{{{GOOD}{keys}}}"), Verb::Add).unwrap()
}

fn code_of(text: &str, verb: Verb) -> u32 {
    Failure::from(read(text, verb).unwrap_err()).code
}

#[test]
fn defaults_apply_where_keys_are_absent() {
    let conf = with("");
    assert_eq!(conf.version, Version::V1_1_0);
    assert_eq!(conf.name.as_str(), "aws-cni");
    assert_eq!(conf.socket, PathBuf::from("/run/hawser/ipamd.sock"));
    assert_eq!(conf.deadline(Verb::Add), Duration::from_secs(60));
    assert_eq!(conf.deadline(Verb::Del), Duration::from_secs(30));
    assert_eq!(conf.deadline(Verb::Status), Duration::from_secs(1));
    assert_eq!(
        conf.link().unwrap(),
        LinkConf {
            veth_prefix: None,
            mtu: None
        }
    );
    assert_eq!(conf.prev_result().unwrap(), None);
}

#[test]
fn invalid_json_has_code_6() {
    for text in ["", "x", "[]", "null", "\"a\"", r#"{"name": 7}"#] {
        assert_eq!(code_of(text, Verb::Add), 6, "{text:?}");
    }
    assert_eq!(code_of(r#"{"name": "a", "cniVersion": 1}"#, Verb::Add), 6);
}

#[test]
fn a_source_that_breaks_is_an_io_error() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
    }
    let error = Conf::read(Broken, Verb::Add).unwrap_err();
    assert_eq!(error.code(), 5, "{error}");
}

#[test]
fn ten_mebibytes_are_refused_unread() {
    let text = format!(r#"{{{GOOD}, "x": "{}"}}"#, "y".repeat(10 << 20));
    assert!(matches!(read(&text, Verb::Add), Err(ConfError::TooLarge)));
}

#[test]
fn a_bad_or_absent_name_has_code_7() {
    for name in [
        "",
        r#", "name": """#,
        r#", "name": "-a""#,
        r#", "name": "a b""#,
        r#", "name": "../a""#,
    ] {
        let text = format!(r#"{{"cniVersion": "1.0.0"{name}}}"#);
        assert_eq!(code_of(&text, Verb::Add), 7, "{text}");
    }
}

#[test]
fn an_absent_or_unknown_version_has_code_1_and_the_list() {
    for version in [
        "",
        r#", "cniVersion": "9.9.9""#,
        r#", "cniVersion": "0.2.0""#,
    ] {
        let text = format!(r#"{{"name": "a"{version}}}"#);
        let failure = Failure::from(read(&text, Verb::Add).unwrap_err());
        assert_eq!(failure.code, 1);
        assert!(
            failure.msg.contains("0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"),
            "{}",
            failure.msg
        );
        assert!(
            failure.details.contains("cniVersion"),
            "{}",
            failure.details
        );
    }
}

#[test]
fn del_works_with_any_version() {
    for version in ["", r#", "cniVersion": "9.9.9""#, r#", "cniVersion": 1"#] {
        let text = format!(r#"{{"name": "a"{version}}}"#);
        assert_eq!(read(&text, Verb::Del).unwrap().version, Version::LATEST);
    }
}

#[test]
fn verbs_exist_from_their_version_on() {
    for (verb, version, good) in [
        (Verb::Check, "0.3.1", false),
        (Verb::Check, "0.4.0", true),
        (Verb::Gc, "1.0.0", false),
        (Verb::Gc, "1.1.0", true),
        (Verb::Status, "1.0.0", false),
        (Verb::Status, "1.1.0", true),
        (Verb::Add, "0.3.0", true),
        (Verb::Del, "0.3.0", true),
    ] {
        let text = format!(r#"{{"cniVersion": "{version}", "name": "a"}}"#);
        match read(&text, verb) {
            Ok(_) => assert!(good, "{verb:?} {version}"),
            Err(error) => {
                assert!(!good, "{verb:?} {version}");
                assert_eq!(Failure::from(error).code, 1);
            }
        }
    }
}

#[test]
fn mtu_is_a_number_or_a_string() {
    for (key, want) in [
        ("9001", Some(9001)),
        ("\"1500\"", Some(1500)),
        ("576", Some(576)),
        ("null", None),
        ("\"\"", None),
    ] {
        let conf = with(&format!(r#", "mtu": {key}"#));
        assert_eq!(conf.link().unwrap().mtu, want, "{key}");
    }
    for key in [
        "575",
        "9002",
        "\"+1500\"",
        "\"1500 \"",
        "\"x\"",
        "1500.5",
        "-1",
        "true",
        "[]",
        "99999999999999999999",
    ] {
        let conf = with(&format!(r#", "mtu": {key}"#));
        let failure = Failure::from(conf.link().unwrap_err());
        assert_eq!(failure.code, 7, "{key}");
    }
}

#[test]
fn veth_prefix_leaves_room_and_avoids_other_names() {
    let link = with(r#", "vethPrefix": "cali""#).link().unwrap();
    assert_eq!(link.veth_prefix.unwrap().as_str(), "cali");
    assert_eq!(
        with(r#", "vethPrefix": """#).link().unwrap().veth_prefix,
        None
    );
    for prefix in ["toolg", "eth", "lo", "vlan", "a/b"] {
        let conf = with(&format!(r#", "vethPrefix": "{prefix}""#));
        assert_eq!(Failure::from(conf.link().unwrap_err()).code, 7, "{prefix}");
    }
}

#[test]
fn deadlines_only_become_shorter() {
    let conf = with(r#", "deadlineSeconds": 0.25"#);
    assert_eq!(conf.deadline(Verb::Add), Duration::from_millis(250));
    let conf = with(r#", "deadlineSeconds": 1e9"#);
    assert_eq!(conf.deadline(Verb::Add), Duration::from_secs(60));
    for bad in ["0", "-1", "\"5\"", "1e300"] {
        let text = format!(r#"{{{GOOD}, "deadlineSeconds": {bad}}}"#);
        assert_eq!(code_of(&text, Verb::Add), 7, "{bad}");
    }
}

#[test]
fn the_socket_is_an_absolute_path() {
    assert_eq!(
        with(r#", "socket": "/tmp/x.sock""#).socket,
        PathBuf::from("/tmp/x.sock")
    );
    for bad in ["x.sock", "", "@abstract"] {
        let text = format!(r#"{{{GOOD}, "socket": "{bad}"}}"#);
        assert_eq!(code_of(&text, Verb::Add), 7, "{bad}");
    }
}

#[test]
fn keys_of_others_are_ignored() {
    let conf = with(
        r#", "disableCheck": true, "disableGC": true, "loadOnlyInlinedPlugins": true,
           "capabilities": {"x": true}, "runtimeConfig": {"unknown": [1]}, "ipam": {}"#,
    );
    assert_eq!(conf.name.as_str(), "aws-cni");
}

#[test]
fn prev_result_is_an_object_or_absent() {
    assert!(
        with(r#", "prevResult": null"#)
            .prev_result()
            .unwrap()
            .is_none()
    );
    assert!(
        with(r#", "prevResult": {}"#)
            .prev_result()
            .unwrap()
            .is_some()
    );
    let error = with(r#", "prevResult": []"#).prev_result().unwrap_err();
    assert_eq!(Failure::from(error).code, 6);
}

#[test]
fn asked_version_is_read_from_anything() {
    assert_eq!(
        asked_version(&br#"{"cniVersion": "0.4.0"}"#[..]),
        Some(Version::V0_4_0)
    );
    for text in [
        "",
        "x",
        r#"{"cniVersion": "9.9.9"}"#,
        r#"{"cniVersion": 1}"#,
    ] {
        assert_eq!(asked_version(text.as_bytes()), None);
    }
}
