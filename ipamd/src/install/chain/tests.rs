//! The list with and without neighbours, damaged in each way, and the AWS VPC CNI's.

use proto::names::FORMER_NETWORK;

use super::*;

fn wanted() -> Wanted {
    let plugin = json!({
        "type": "hawser",
        "socket": "/run/hawser/ipamd.sock",
        "vethPrefix": "eni",
        "mtu": 9001,
    });
    let Value::Object(plugin) = plugin else {
        unreachable!("an object is written above")
    };
    Wanted {
        plugin,
        capabilities: vec![PORT_MAPPINGS, BANDWIDTH],
        companions: Vec::new(),
        unwanted: Vec::new(),
    }
}

fn merged(found: &Value, wanted: &Wanted) -> (Option<Value>, Option<Damage>) {
    let outcome = merge(Some(&found.to_string()), wanted);
    let text = outcome.text.as_deref();
    (
        text.map(|text| serde_json::from_str(text).unwrap()),
        outcome.damage,
    )
}

fn fresh() -> Value {
    let outcome = merge(None, &wanted());
    assert_eq!(outcome.damage, Some(Damage::Absent));
    serde_json::from_str(&outcome.text.unwrap()).unwrap()
}

/// A list with other plugins, whose versions are reduced.
fn chained() -> Value {
    let mut list = fresh();
    list["cniVersions"] = json!(["0.4.0", "1.0.0"]);
    list
}

#[test]
fn a_new_list_has_the_network_that_runtimes_and_meshes_look_for() {
    let list = fresh();
    assert_eq!(list["name"], "aws-cni");
    assert_eq!(list["cniVersion"], "1.0.0");
    assert_eq!(list["cniVersions"], json!(["0.4.0", "1.0.0", "1.1.0"]));
    assert_eq!(list["plugins"].as_array().unwrap().len(), 1);
    assert_eq!(
        list["plugins"][0]["capabilities"],
        json!({ "portMappings": true, "bandwidth": true })
    );
    assert_eq!(merged(&list, &wanted()), (None, None), "it is complete");
}

#[test]
fn case_09_entries_and_keys_of_others_stay() {
    let mut list = fresh();
    list["disableCheck"] = true.into();
    list["plugins"][0]["log_level"] = "debug".into();
    let plugins = list["plugins"].as_array_mut().unwrap();
    plugins.insert(0, json!({ "type": "before", "order": [3, 1] }));
    plugins.push(json!({ "type": "istio-cni", "kubernetes": { "cni_bin_dir": "/opt/cni/bin" } }));
    assert_eq!(
        merged(&list, &wanted()),
        (None, None),
        "nothing of ours differs"
    );

    let mut other = wanted();
    other.plugin["mtu"] = 1500.into();
    let (written, damage) = merged(&list, &other);
    assert_eq!(damage, None);
    list["plugins"][1]["mtu"] = 1500.into();
    assert_eq!(written, Some(list), "our key alone has changed");
}

#[test]
fn a_key_of_ours_that_is_no_longer_wanted_goes() {
    let mut six = wanted();
    six.plugin.insert("ipv6".to_owned(), true.into());
    let list = merge(None, &six).text.unwrap();
    let (written, _) = merged(&serde_json::from_str(&list).unwrap(), &wanted());
    assert_eq!(written.unwrap()["plugins"][0].get("ipv6"), None);
}

#[test]
fn a_list_without_us_gets_us_in_front_and_keeps_the_rest() {
    let list =
        json!({ "cniVersion": "0.3.1", "name": "aws-cni", "plugins": [{ "type": "istio-cni" }] });
    let (written, damage) = merged(&list, &wanted());
    assert_eq!(damage, Some(Damage::WithoutUs));
    let written = written.unwrap();
    assert_eq!(written["plugins"][0]["type"], "hawser");
    assert_eq!(written["plugins"][1]["type"], "istio-cni");
    assert_eq!(written["cniVersion"], "0.3.1");
}

/// The runtime passes one version to all plugins of a list, and a standard plugin may not know the last one.
#[test]
fn version_1_1_is_not_offered_with_a_standard_plugin_of_ours() {
    let (all, reduced) = (
        json!(["0.4.0", "1.0.0", "1.1.0"]),
        json!(["0.4.0", "1.0.0"]),
    );
    let mut with = wanted();
    with.companions = vec![tuning()];
    let list = merged(&fresh(), &with).0.unwrap();
    assert_eq!(list["cniVersions"], reduced);
    assert_eq!(merged(&list, &with), (None, None));
    let mut without = wanted();
    without.unwanted = vec![tuning()];
    assert_eq!(merged(&list, &without).0.unwrap()["cniVersions"], all);
    let mut theirs = list;
    theirs["cniVersions"] = json!(["1.0.0", "1.1.0"]);
    assert_eq!(merged(&theirs, &with), (None, None), "another's choice");
}

#[test]
fn a_list_with_us_twice_keeps_the_first() {
    let mut list = fresh();
    let ours = list["plugins"][0].clone();
    let plugins = list["plugins"].as_array_mut().unwrap();
    plugins.push(json!({ "type": "portmap" }));
    plugins.push(ours);
    let (written, damage) = merged(&list, &wanted());
    assert_eq!(damage, Some(Damage::Twice));
    let kinds = written.unwrap()["plugins"].clone();
    assert_eq!(
        (&kinds[0]["type"], &kinds[1]["type"]),
        (&json!("hawser"), &json!("portmap"))
    );
    assert_eq!(kinds.as_array().unwrap().len(), 2);
}

#[test]
fn what_is_no_list_is_written_anew() {
    for (text, damage) in [
        ("", Damage::Absent),
        ("{", Damage::NotJson),
        ("[]", Damage::NotAList),
        ("{\"name\": \"aws-cni\"}", Damage::NotAList),
        ("{\"plugins\": {}}", Damage::NotAList),
    ] {
        let outcome = merge(Some(text), &wanted());
        assert_eq!(outcome.damage, Some(damage), "{text}");
        let list: Value = serde_json::from_str(&outcome.text.unwrap()).unwrap();
        assert_eq!(list, fresh());
    }
}

#[test]
fn the_former_network_is_renamed() {
    let mut list = fresh();
    list["name"] = FORMER_NETWORK.into();
    list["plugins"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "type": "mesh" }));
    let (written, damage) = merged(&list, &wanted());
    list["name"] = NETWORK.into();
    assert_eq!((written, damage), (Some(list), None));
}

#[test]
fn companions_come_and_go_and_those_of_others_stay() {
    let mut with = wanted();
    with.companions = vec![tuning()];
    let list: Value = serde_json::from_str(&merge(None, &with).text.unwrap()).unwrap();
    let kinds = [0, 1].map(|at| list["plugins"][at]["type"].clone());
    assert_eq!(kinds, ["hawser", "tuning"]);

    let mut without = wanted();
    without.unwanted = vec![tuning()];
    let (written, _) = merged(&list, &without);
    assert_eq!(written.unwrap()["plugins"].as_array().unwrap().len(), 1);

    let mut theirs = chained();
    let own = json!({ "type": "tuning", "sysctl": { "net.core.somaxconn": "500" } });
    theirs["plugins"].as_array_mut().unwrap().push(own);
    assert_eq!(merged(&theirs, &without), (None, None));
    assert_eq!(merged(&theirs, &with), (None, None));
}

/// The capabilities of Hawser's entry in a list that also has this one.
fn declared_beside(entry: Value) -> Value {
    let mut list = chained();
    list["plugins"].as_array_mut().unwrap().push(entry);
    let written = merged(&list, &wanted()).0.unwrap_or(list);
    assert_eq!(merged(&written, &wanted()), (None, None), "it is settled");
    written["plugins"][0]["capabilities"].clone()
}

/// Never both: a port would be translated twice.
#[test]
fn what_a_chained_plugin_does_is_not_declared() {
    let bandwidth_alone = json!({ "bandwidth": true });
    assert_eq!(declared_beside(portmap()), bandwidth_alone);
    let theirs = json!({
        "type": "portmap", "backend": "nftables", "capabilities": { "portMappings": true }
    });
    assert_eq!(declared_beside(theirs), bandwidth_alone);
    assert_eq!(
        declared_beside(bandwidth()),
        json!({ "portMappings": true })
    );
    // The runtime passes nothing to an entry that declares nothing.
    let both = json!({ "portMappings": true, "bandwidth": true });
    assert_eq!(declared_beside(json!({ "type": "portmap" })), both);
    assert_eq!(declared_beside(json!({ "type": "istio-cni" })), both);
}

#[test]
fn capabilities_return_with_the_end_of_a_chained_plugin_and_those_of_others_stay() {
    let mut list = chained();
    let plugins = list["plugins"].as_array_mut().unwrap();
    plugins[0]["capabilities"] = json!({ "io.kubernetes.cri.pod-annotations": true });
    plugins.push(portmap());
    plugins.push(bandwidth());
    let other = json!({ "io.kubernetes.cri.pod-annotations": true });
    let written = merged(&list, &wanted()).0.unwrap_or(list);
    assert_eq!(written["plugins"][0]["capabilities"], other);

    let mut gone = wanted();
    gone.unwanted = vec![portmap(), bandwidth()];
    let alone = merged(&written, &gone).0.unwrap();
    assert_eq!(alone["plugins"].as_array().unwrap().len(), 1);
    assert_eq!(
        alone["plugins"][0]["capabilities"],
        json!({
            "io.kubernetes.cri.pod-annotations": true, "portMappings": true, "bandwidth": true
        })
    );

    let mut unlimited = gone;
    unlimited.capabilities = vec![PORT_MAPPINGS];
    let less = merged(&alone, &unlimited).0.unwrap();
    assert_eq!(less["plugins"][0]["capabilities"].get("bandwidth"), None);
}

#[test]
fn the_list_of_the_aws_vpc_cni_becomes_ours_and_keeps_its_other_plugins() {
    let list = json!({
        "cniVersion": "0.4.0",
        "name": "aws-cni",
        "disableCheck": true,
        "plugins": [
            { "name": "aws-cni", "type": "aws-cni", "vethPrefix": "eni", "mtu": "9001" },
            { "name": "egress-cni", "type": "egress-cni", "enabled": "false" },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
            { "type": "istio-cni" },
        ],
    });
    assert!(is_of_aws_node(&list.to_string()));
    let (written, damage) = merged(&list, &wanted());
    assert_eq!(damage, Some(Damage::OfAwsNode));
    let written = written.unwrap();
    let kinds: Vec<_> = written["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["type"].clone())
        .collect();
    assert_eq!(kinds, ["hawser", "portmap", "istio-cni"]);
    // Its rules for running pods are removed only by itself.
    assert_eq!(
        written["plugins"][0]["capabilities"],
        json!({ "bandwidth": true })
    );
    assert_eq!(written["cniVersion"], "1.0.0");
    assert_eq!(written.get("disableCheck"), None, "CHECK works");
    assert!(!is_of_aws_node(&written.to_string()));
}

#[test]
fn what_others_have_added_since_goes_back_with_the_list() {
    let theirs =
        json!({ "cniVersion": "0.4.0", "name": "aws-cni", "disableCheck": true, "plugins": [
            { "name": "aws-cni", "type": "aws-cni" },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
        ]})
        .to_string();
    let ours = |more: Value| {
        let plugins = [
            json!({ "type": "hawser" }),
            json!({ "type": "portmap", "snat": true }),
        ];
        let plugins: Vec<_> = plugins.into_iter().chain([more]).collect();
        json!({ "name": "aws-cni", "plugins": plugins }).to_string()
    };
    let returned = hand_back(&ours(json!({ "type": "linkerd-cni" })), &theirs);
    let value: Value = serde_json::from_str(&returned).unwrap();
    let kinds = value["plugins"].as_array().unwrap().iter();
    let kinds: Vec<_> = kinds.map(|p| p["type"].clone()).collect();
    assert_eq!(kinds, ["aws-cni", "portmap", "linkerd-cni"]);
    assert_eq!(value["disableCheck"], true);
    // Not a byte is changed without a reason.
    for plain in [ours(json!({ "type": "hawser" })), String::new()] {
        assert_eq!(hand_back(&plain, &theirs), theirs);
    }
}

/// As their installers write them.
#[test]
fn entries_of_meshes_and_policy_engines_are_kept_as_they_are() {
    let others = [
        json!({
            "name": "istio-cni", "type": "istio-cni", "log_level": "info", "ambient_enabled": true,
            "cni_agent_run_dir": "/var/run/istio-cni",
            "kubernetes": {
                "kubeconfig": "/etc/cni/net.d/ZZZ-istio-cni-kubeconfig", "cni_bin_dir": "/opt/cni/bin",
                "exclude_namespaces": ["istio-system", "kube-system"],
            },
        }),
        json!({
            "name": "linkerd-cni", "type": "linkerd-cni", "log_level": "info",
            "policy": { "type": "k8s", "k8s_auth_token": "__SERVICEACCOUNT_TOKEN__" },
            "kubernetes": { "kubeconfig": "/etc/cni/net.d/ZZZ-linkerd-cni-kubeconfig" },
            "linkerd": {
                "incoming-proxy-port": 4143, "outgoing-proxy-port": 4140, "proxy-uid": 2102, "proxy-gid": -1,
                "ports-to-redirect": [], "inbound-ports-to-ignore": ["4191", "4190"], "simulate": false,
            },
        }),
        json!({
            "name": "cilium", "type": "cilium-cni", "enable-debug": false, "chaining-mode": "aws-cni",
            "log-file": "/var/run/cilium/cilium-cni.log",
        }),
        json!({
            "type": "calico", "log_level": "info", "datastore_type": "kubernetes", "mtu": 0,
            "policy": { "type": "k8s" }, "policy_setup_timeout_seconds": 0,
            "kubernetes": { "kubeconfig": "/etc/cni/net.d/calico-kubeconfig" },
        }),
        json!({ "type": "sbr" }),
        json!({ "type": "firewall", "backend": "iptables", "ingressPolicy": "same-bridge" }),
        json!({ "type": "tuning", "sysctl": { "net.core.somaxconn": "500" }, "mtu": 1400 }),
    ];
    let of_aws_node = json!({ "name": "aws-cni", "type": "aws-cni", "vethPrefix": "eni" });
    let former = json!({ "type": "hawser", "socket": "/somewhere/else" });
    for (main, damage) in [(of_aws_node, Some(Damage::OfAwsNode)), (former, None)] {
        let mut plugins = others.to_vec();
        plugins.insert(1, main);
        let list = json!({ "cniVersion": "0.4.0", "name": "aws-cni", "plugins": plugins });
        let (written, found) = merged(&list, &wanted());
        assert_eq!(found, damage);
        let written = written.unwrap();
        let plugins = written["plugins"].as_array().unwrap().iter();
        let (ours, kept): (Vec<_>, Vec<_>) = plugins.cloned().partition(|p| p["type"] == "hawser");
        assert_eq!((ours.len(), &kept[..]), (1, &others[..]));
        assert_eq!(written["plugins"][1]["type"], "hawser", "in its place");
    }
}
