//! The grammar of the environment, variable by variable.

use super::*;

fn vars(
    pairs: &'static [(&'static str, &'static str)],
) -> Variables<impl Fn(&str) -> Option<OsString>> {
    Variables(move |name: &str| {
        let found = pairs.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| OsString::from(value))
    })
}

#[test]
fn every_verb_has_one_row() {
    let all = [
        Verb::Add,
        Verb::Del,
        Verb::Check,
        Verb::Status,
        Verb::Gc,
        Verb::Version,
    ];
    assert_eq!(VERBS.len(), all.len());
    for verb in all {
        assert_eq!(VERBS.iter().filter(|row| row.verb == verb).count(), 1);
    }
}

#[test]
fn verbs_are_spelt_exactly() {
    assert_eq!(vars(&[("CNI_COMMAND", "GC")]).verb(), Ok(Some(Verb::Gc)));
    assert_eq!(vars(&[("CNI_COMMAND", "")]).verb(), Ok(None));
    assert_eq!(vars(&[]).verb(), Ok(None));
    assert!(vars(&[("CNI_COMMAND", "add")]).verb().is_err());
    assert!(vars(&[("CNI_COMMAND", "ADD ")]).verb().is_err());
}

#[test]
fn all_missing_variables_are_named_at_once() {
    let error = vars(&[(IFNAME, "eth0"), (NETNS, "")])
        .require(Verb::Add)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "ADD needs CNI_CONTAINERID, CNI_NETNS, CNI_PATH, which the runtime did not set"
    );
}

#[test]
fn each_verb_needs_its_own_variables() {
    let path = vars(&[(PATH, "/opt/cni/bin")]);
    assert_eq!(path.require(Verb::Gc), Ok(()));
    assert_eq!(path.require(Verb::Status), Ok(()));
    assert!(path.require(Verb::Del).is_err());
    assert!(vars(&[]).require(Verb::Status).is_err());
    assert_eq!(vars(&[]).require(Verb::Version), Ok(()));
    let del = vars(&[(CONTAINER, "c"), (IFNAME, "eth0"), (PATH, "/")]);
    assert_eq!(del.require(Verb::Del), Ok(()));
    assert!(del.require(Verb::Check).is_err());
}

#[test]
fn attachment_is_parsed_into_its_types() {
    let attachment = vars(&[
        (CONTAINER, "c0ffee"),
        (IFNAME, "eth0"),
        (NETNS, "/var/run/netns/cni-1"),
    ])
    .attachment()
    .unwrap();
    assert_eq!(attachment.container_id.as_str(), "c0ffee");
    assert_eq!(attachment.ifname.as_str(), "eth0");
    assert_eq!(attachment.netns, Some("/var/run/netns/cni-1".to_owned()));
    assert!(!attachment.netns_override);
}

#[test]
fn netns_override_is_a_boolean() {
    for (value, expected) in [("1", true), ("TRUE", true), ("0", false), ("yes", false)] {
        let pairs = move |name: &str| match name {
            CONTAINER => Some("c".into()),
            IFNAME => Some("eth0".into()),
            OVERRIDE => Some(OsString::from(value)),
            _ => None,
        };
        let attachment = Variables(pairs).attachment().unwrap();
        assert_eq!(attachment.netns_override, expected, "{value}");
    }
}

#[test]
fn a_variable_that_is_not_utf8_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let broken = Variables(|_: &str| Some(OsString::from_vec(vec![0xff])));
    assert_eq!(
        broken.verb(),
        Err(EnvError::NotUtf8 {
            name: "CNI_COMMAND"
        })
    );
}

#[test]
fn args_of_kubernetes_come_in_any_order() {
    let pod = parse_args(
        "K8S_POD_UID=0b3f7a7e;IgnoreUnknown=1;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c;\
         K8S_POD_NAMESPACE=default;OTHER=x",
    )
    .unwrap();
    assert_eq!(pod.name.unwrap().as_str(), "web-0");
    assert_eq!(pod.namespace.unwrap().as_str(), "default");
    assert_eq!(pod.uid.unwrap().as_str(), "0b3f7a7e");
}

#[test]
fn empty_values_are_absent() {
    let pod = parse_args("K8S_POD_UID=;K8S_POD_NAME=web-0").unwrap();
    assert_eq!(pod.uid, None);
}

#[test]
fn informational_fields_are_not_validated() {
    let pod = parse_args(
        "IgnoreUnknown=1;K8S_POD_NAME=create-PodSandbox-for-run-1;K8S_POD_NAMESPACE=a\nb;K8S_POD_UID=../x y",
    )
    .unwrap();
    assert_eq!(pod.name.unwrap().as_str(), "create-PodSandbox-for-run-1");
    assert_eq!(pod.namespace.unwrap().as_str(), "a\\nb");
    assert_eq!(pod.uid.unwrap().as_str(), "../x y");
}

#[test]
fn unknown_keys_need_permission() {
    let error = parse_args("FOO=1;BAR=2").unwrap_err();
    assert!(error.to_string().ends_with("FOO, BAR"), "{error}");
    assert!(parse_args("FOO=1;IgnoreUnknown=0").is_err());
    for yes in ["1", "true", "True"] {
        assert!(parse_args(&format!("FOO=1;IgnoreUnknown={yes}")).is_ok());
    }
}

#[test]
fn malformed_args_are_refused() {
    for text in [
        "K",
        ";",
        "K8S_POD_NAME=a;",
        "=v",
        "K8S_POD_NAME=a=b",
        "K8S_POD_NAME=a;K8S_POD_NAME=b",
    ] {
        assert!(parse_args(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_mebibyte_of_args_is_refused_by_its_length() {
    let text = "K=V;".repeat(256 * 1024);
    assert_eq!(
        parse_args(&text),
        Err(EnvError::ArgsTooLong { len: 1024 * 1024 })
    );
}
