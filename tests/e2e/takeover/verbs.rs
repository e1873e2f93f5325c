//! The runtime asks Hawser about pods that the AWS VPC CNI started, with the results that its plugin gave.

use lab::aws_node::Kind;
use lab::node::{Pod, count, host_link};
use serde_json::{Value, json};

use super::forth::Site;
use crate::suite::{Outcome, trials};

trials!(
    a_pod_without_a_recorded_network_is_known_by_its_container,
    a_pod_is_checked_and_deleted_with_every_shape_of_an_old_result,
    taken_over_pods_are_checked_deleted_and_collected_with_the_old_results,
    a_pod_whose_old_plugin_is_called_is_released_by_its_link,
);

/// As its plugin answers since 1.20: the table for a MAC address, and a link that never existed.
fn result(pod: &Pod, version: &str) -> Value {
    let (address, link) = (pod.address(), host_link(pod));
    let digits = link.trim_start_matches("eni").to_owned();
    let mut ip = json!({ "address": format!("{address}/32"), "interface": 1 });
    if !version.starts_with('1') {
        ip["version"] = "4".into();
    }
    json!({
        "cniVersion": version,
        "dns": {},
        "interfaces": [
            { "name": link },
            { "mac": "2", "name": "eth0", "sandbox": pod.path },
            { "mac": "0", "name": format!("dummy{digits}"), "sandbox": "1" },
            { "name": "veth0123abcd" },
            { "mac": "aa:bb:cc:dd:ee:ff", "name": "v6if0", "sandbox": pod.path },
        ],
        "ips": [ip],
    })
}

fn taken_over_pods_are_checked_deleted_and_collected_with_the_old_results() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [4, 3])?;
    site.take_over()?;
    let versions = ["0.4.0", "1.0.0", "1.1.0"];
    let mut pods = std::mem::take(&mut site.was.pods).into_iter();
    let node = &site.node;
    let ask = |verb: &str, pod: &Pod, version: &str| {
        let asked = node
            .invocation(verb, &pod.id, Some(&pod.path))
            .conf("cniVersion", version.into());
        asked
            .conf("prevResult", result(pod, version))
            .run(node.netns())
    };
    for (version, pod) in versions.iter().zip(&mut pods) {
        let checked = ask("CHECK", &pod, version)?;
        assert!(checked.succeeded(), "{version}: {checked:?}");
        let deleted = ask("DEL", &pod, version)?;
        assert!(deleted.succeeded(), "{version}: {deleted:?}");
        // Again, as runtimes do.
        assert!(ask("DEL", &pod, version)?.succeeded());
    }
    assert_eq!(count(node, "assigned")?, 4);
    let Some(oldest) = pods.next() else {
        return Err("too few pods".into());
    };
    // CHECK is newer than this version.
    assert!(ask("DEL", &oldest, "0.3.1")?.succeeded());
    let Some(without) = pods.next() else {
        return Err("too few pods".into());
    };
    let deleted = node
        .invocation("DEL", &without.id, None)
        .run(node.netns())?;
    assert!(deleted.succeeded(), "{deleted:?}");
    let kept = pods.next().ok_or("too few pods")?;
    let valid = json!([{ "containerID": kept.id, "ifname": "eth0" }]);
    let collected = node
        .invocation("GC", "", None)
        .conf("cniVersion", "1.1.0".into())
        .conf("cni.dev/valid-attachments", valid)
        .run(node.netns())?;
    assert!(collected.succeeded(), "{collected:?}");
    assert_eq!(count(node, "assigned")?, 1);
    assert!(ask("CHECK", &kept, "1.0.0")?.succeeded());
    Ok(())
}

/// Each changes a result: releases before 1.20 had no table in it, bandwidth adds an IFB, `ENABLE_MULTI_NIC` a second pair, and
/// converters and other plugins cut lists off.
/// The second part is the code of the error with which CHECK refuses: it needs the pod's own interface.
const SHAPES: [Shape; 6] = [
    (
        |result| {
            let own = result["interfaces"][1].as_object_mut();
            own.and_then(|own| own.remove("mac"));
        },
        None,
    ),
    (
        |result| push(result, "interfaces", json!({ "name": "bwp0123456789ab" })),
        None,
    ),
    (
        |result| {
            push(result, "interfaces", json!({ "name": "eni0123456789b" }));
            let further = json!({ "mac": "10101", "name": "eth1", "sandbox": "/run/netns/x" });
            push(result, "interfaces", further);
        },
        None,
    ),
    (|result| result["interfaces"] = json!([]), Some(7)),
    (
        |result| {
            let first = result["interfaces"][0].clone();
            result["interfaces"] = json!([first]);
            result["ips"][0]["interface"] = 7.into();
        },
        Some(7),
    ),
    (|result| result["routes"] = Value::Null, None),
];

type Shape = (fn(&mut Value), Option<u64>);

fn push(result: &mut Value, list: &str, entry: Value) {
    result[list]
        .as_array_mut()
        .into_iter()
        .for_each(|all| all.push(entry.clone()));
}

fn a_pod_is_checked_and_deleted_with_every_shape_of_an_old_result() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [3, 3])?;
    site.take_over()?;
    let node = &site.node;
    for (n, ((change, refusal), pod)) in SHAPES.iter().zip(&site.was.pods).enumerate() {
        let mut given = result(pod, "1.0.0");
        change(&mut given);
        let ask = |verb| {
            let asked = node.invocation(verb, &pod.id, Some(&pod.path));
            let asked = asked.conf("cniVersion", "1.0.0".into());
            asked.conf("prevResult", given.clone()).run(node.netns())
        };
        let checked = ask("CHECK")?;
        assert_eq!(checked.error_code(), *refusal, "{given}: {checked:?}");
        assert_eq!(checked.succeeded(), refusal.is_none(), "{checked:?}");
        let deleted = ask("DEL")?;
        assert!(deleted.succeeded(), "{given}: {deleted:?}");
        assert_eq!(count(node, "assigned")?, 5 - n);
    }
    Ok(())
}

/// One pod is so old that the checkpoint has no network for it. The runtime asks under today's name.
fn a_pod_without_a_recorded_network_is_known_by_its_container() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [2, 1])?;
    site.was.edit(|entries| {
        entries[0]["networkName"] = "_migrated-from-cri".into();
        entries[0]["ifName"] = "unknown".into();
    })?;
    site.take_over()?;
    let (node, pod) = (&site.node, &site.was.pods[0]);
    let ask = |verb: &str, network: &str, container: &str| {
        let asked = node
            .invocation(verb, container, Some(&pod.path))
            .conf("cniVersion", "1.0.0".into())
            .conf("name", network.into());
        asked
            .conf("prevResult", result(pod, "1.0.0"))
            .run(node.netns())
    };
    let checked = ask("CHECK", "aws-cni", &pod.id)?;
    assert!(checked.succeeded(), "{checked:?}");
    // Another container and another network free nothing.
    for (network, container) in [("aws-cni", "other-container"), ("second", &*pod.id)] {
        assert!(ask("DEL", network, container)?.succeeded());
    }
    assert_eq!(count(node, "assigned")?, 3);
    let deleted = ask("DEL", "aws-cni", &pod.id)?;
    assert!(deleted.succeeded(), "{deleted:?}");
    // At once, and not when the link ends.
    assert_eq!(count(node, "assigned")?, 2, "{}", node.log());
    Ok(())
}

/// CRI-O calls the plugins of the list with which a pod was started: the old one finds no daemon, and succeeds.
fn a_pod_whose_old_plugin_is_called_is_released_by_its_link() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [2, 1])?;
    site.take_over()?;
    let pod = site.was.pods.remove(2);
    site.node.end_pod(pod)?;
    let limit = std::time::Duration::from_secs(60);
    let released = || count(&site.node, "assigned").is_ok_and(|n| n == 2);
    assert!(
        lab::wait::eventually(limit, released),
        "{}",
        site.node.log()
    );
    // CRI-O collects what it does not know, and frees no other pod's address.
    let others = site.was.pods.iter();
    let valid = others.map(|pod| json!({ "containerID": pod.id, "ifname": "eth0" }));
    let collected = site
        .node
        .invocation("GC", "", None)
        .conf("cniVersion", "1.1.0".into())
        .conf("cni.dev/valid-attachments", valid.collect())
        .run(site.node.netns())?;
    assert!(collected.succeeded(), "{collected:?}");
    assert_eq!(count(&site.node, "assigned")?, 2);
    Ok(())
}
