//! Results, version by version.

use super::*;

fn granted() -> Granted {
    Granted {
        address: [10, 0, 3, 7].into(),
        gateway: [169, 254, 1, 1].into(),
        host: Interface {
            name: "eni0123456789a".to_owned(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 9001,
        },
        pod: Interface {
            name: "eth0".to_owned(),
            mac: Mac([2, 0, 0, 0, 0, 2]),
            mtu: 9001,
        },
        secondary: false,
    }
}

fn json_of(version: Version, prev: Option<&Value>) -> Value {
    let prev = prev.and_then(Value::as_object);
    granted().to_json(version, "/run/netns/a", prev).unwrap()
}

#[test]
fn before_1_0_0_an_address_has_its_family_and_nothing_has_an_mtu() {
    for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
        assert_eq!(
            json_of(version, None),
            json!({
                "cniVersion": version.as_str(),
                "interfaces": [
                    {"name": "eni0123456789a", "mac": "02:00:00:00:00:01", "sandbox": ""},
                    {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"},
                ],
                "ips": [{
                    "version": "4", "interface": 1,
                    "address": "10.0.3.7/32", "gateway": "169.254.1.1",
                }],
                "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
            })
        );
    }
}

#[test]
fn from_1_0_0_on_the_family_is_gone() {
    let result = json_of(Version::V1_0_0, None);
    assert_eq!(
        result["ips"],
        json!([{"interface": 1, "address": "10.0.3.7/32", "gateway": "169.254.1.1"}])
    );
    assert!(result["interfaces"][1].get("mtu").is_none());
}

#[test]
fn from_1_1_0_on_interfaces_have_an_mtu() {
    let result = json_of(Version::V1_1_0, None);
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(result["interfaces"][0]["mtu"], 9001);
    assert_eq!(result["interfaces"][1]["mtu"], 9001);
}

#[test]
fn earlier_results_are_passed_through_and_indices_move() {
    let prev = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "dummy0", "vendor": true}],
        "ips": [{"address": "fd00::1/128", "interface": 0}],
        "dns": {"nameservers": ["10.0.0.2"]},
        "unknown": 7,
    });
    let result = json_of(Version::V1_0_0, Some(&prev));
    assert_eq!(
        result["interfaces"][0],
        json!({"name": "dummy0", "vendor": true})
    );
    assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
    assert_eq!(result["ips"][0], prev["ips"][0]);
    assert_eq!(result["ips"][1]["interface"], 2);
    assert_eq!(result["dns"], prev["dns"]);
    assert_eq!(result["unknown"], 7);
}

#[test]
fn an_earlier_result_of_another_shape_is_refused() {
    let prev = json!({"interfaces": {}});
    let error = granted()
        .to_json(Version::V1_0_0, "/n", prev.as_object())
        .unwrap_err();
    assert_eq!(Failure::from(error).code, 6);
    let null = json!({"interfaces": null, "ips": null});
    assert_eq!(
        json_of(Version::V1_0_0, Some(&null))["ips"][0]["interface"],
        1
    );
}

/// A plugin that reads the result, such as Multus, must not take this interface for the pod's way out.
#[test]
fn a_further_attachment_has_its_gateway_and_no_default_route() {
    let granted = Granted {
        secondary: true,
        ..granted()
    };
    let result = granted.to_json(Version::V1_0_0, "/run/netns/a", None);
    let result = result.unwrap();
    assert_eq!(result["ips"][0]["gateway"], "169.254.1.1");
    assert_eq!(result.get("routes"), None);
}

#[test]
fn check_reads_the_address_of_its_own_interface() {
    let mut result = json_of(Version::V1_0_0, None);
    let other = json!({"address": "10.9.9.9/32", "interface": 0});
    result["ips"].as_array_mut().unwrap().insert(0, other);
    let prev = result.as_object().unwrap();
    assert_eq!(
        address_in(prev, "eth0").unwrap(),
        IpAddr::from([10, 0, 3, 7])
    );
    assert!(address_in(prev, "eth1").is_err());
}

#[test]
fn check_takes_an_address_without_interface_and_no_broken_one() {
    let read = |prev: &Value| address_in(prev.as_object().unwrap(), "eth0").ok();
    let unnamed = json!({"ips": [{"address": "10.0.0.9/24"}]});
    assert_eq!(read(&unnamed), Some(IpAddr::from([10, 0, 0, 9])));
    let six = json!({"ips": [{"address": "fd00::1/128"}]});
    assert_eq!(read(&six), "fd00::1".parse().ok());
    for broken in [
        json!({}),
        json!({"ips": 7}),
        json!({"ips": [7, null, {"address": 1}, {"address": "10.0.0.1"}]}),
        json!({"ips": [{"address": "10.0.0.1/32", "interface": 4_294_967_296_u64}]}),
        json!({"ips": [{"address": "10.0.0.1/32", "interface": -1}], "interfaces": [{}]}),
        json!({"ips": [{"address": "fd00::g/128"}]}),
    ] {
        assert_eq!(read(&broken), None, "{broken}");
    }
}

#[test]
fn replies_with_holes_are_refused() {
    let link = || {
        Some(Link {
            name: "a".to_owned(),
            mac: vec![1; 6],
            mtu: 0,
        })
    };
    let reply = AddReply {
        address: vec![10, 0, 0, 1],
        gateway: vec![169, 254, 1, 1],
        host: link(),
        pod: link(),
        eni: String::new(),
        secondary: false,
    };
    assert!(Granted::try_from(reply.clone()).is_ok());
    let no_pod = AddReply {
        pod: None,
        ..reply.clone()
    };
    assert_eq!(
        Failure::from(Granted::try_from(no_pod).unwrap_err()).code,
        999
    );
    let short = AddReply {
        address: vec![10],
        ..reply
    };
    assert!(Granted::try_from(short).is_err());
}
