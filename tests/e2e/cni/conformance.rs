//! The rows of the CNI conformance table that need a daemon and a kernel. The rows that the plugin decides alone are in
//! its own crate, with a fake daemon.

use std::{fs, os::unix::fs::symlink, time::Duration};

use datapath::netlink::{
    self, Socket,
    addr::{self, Address},
};
use lab::{
    Lab,
    node::{Node, Pod, count, occupy},
    wait::eventually,
};
use proto::refusal::Reason;
use serde_json::{Value, json};
use vpc_sim::SimConfig;

use crate::{
    suite::{Outcome, trials},
    support::refusals::expect_refusal,
};

trials!(
    row_05_del_without_netns_releases,
    row_13_the_hosts_own_namespace_is_refused,
    row_14_a_missing_namespace_fails_add_and_not_del,
    row_15_a_path_that_is_not_a_network_namespace_is_refused,
    row_16_an_interface_that_exists_is_refused,
    row_17_results_come_in_the_version_asked_for,
    row_19_interfaces_are_real,
    row_21_a_repeated_add_gives_the_same_address,
    row_22_concurrent_adds_are_independent,
    row_24_del_can_be_early_repeated_or_for_an_unknown_sandbox,
    row_25_our_record_wins_over_prev_result,
    row_26_without_a_daemon_add_returns_try_again_in_time,
    row_27_check_reports_removed_objects,
    row_29_status_follows_the_daemon,
    row_30_gc_keeps_the_listed_and_frees_the_rest,
    row_31_gc_frees_nothing_without_a_list,
);

/// A node with three free addresses that does not grow.
fn node(lab: &Lab) -> std::io::Result<Node> {
    let node = lab.node(
        "t3.small",
        &[("WARM_IP_TARGET", "1"), ("MINIMUM_IP_TARGET", "3")],
    )?;
    let ready = eventually(Duration::from_secs(20), || {
        count(&node, "free").is_ok_and(|n| n == 3)
    });
    if ready {
        Ok(node)
    } else {
        Err(std::io::Error::other(node.log()))
    }
}

fn prev_result(pod: &Pod) -> Value {
    pod.added.json.clone()
}

fn row_05_del_without_netns_releases() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    let pod = node.add_pod("a")?;
    assert!(
        node.invocation("DEL", &pod.id, None)
            .run(node.netns())?
            .succeeded()
    );
    assert_eq!(count(&node, "assigned")?, 0);
    let other = node.add_pod("b")?;
    assert!(
        node.invocation("DEL", &other.id, None)
            .without("CNI_NETNS")
            .run(node.netns())?
            .succeeded()
    );
    assert_eq!(count(&node, "assigned")?, 0);
    Ok(())
}

fn row_13_the_hosts_own_namespace_is_refused() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    let path = lab.dir().join("host-netns");
    node.netns().bind(&path)?;
    let refused = node.invocation("ADD", "a", Some(&path)).run(node.netns())?;
    assert_eq!(refused.error_code(), Some(8), "{refused:?}");
    assert_eq!(count(&node, "free")?, 3);
    Ok(())
}

fn row_14_a_missing_namespace_fails_add_and_not_del() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    let path = lab.dir().join("no-such-netns");
    let refused = node.invocation("ADD", "a", Some(&path)).run(node.netns())?;
    assert!(matches!(refused.error_code(), Some(3 | 8)), "{refused:?}");
    assert!(
        node.invocation("DEL", "a", Some(&path))
            .run(node.netns())?
            .succeeded()
    );
    Ok(())
}

fn row_15_a_path_that_is_not_a_network_namespace_is_refused() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    let (_netns, good) = node.sandbox("good")?;
    let (file, link) = (lab.dir().join("file"), lab.dir().join("link"));
    fs::write(&file, "")?;
    symlink(&good, &link)?;
    let mounts = std::path::PathBuf::from("/proc/self/ns/mnt");
    for path in [&file, &link, &mounts] {
        let refused = node.invocation("ADD", "a", Some(path)).run(node.netns())?;
        assert_eq!(
            refused.error_code(),
            Some(8),
            "{}: {refused:?}",
            path.display()
        );
    }
    assert_eq!(count(&node, "free")?, 3, "nothing may have changed");
    Ok(())
}

fn row_16_an_interface_that_exists_is_refused() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    let (netns, path) = node.sandbox("a")?;
    netns.run(|| occupy("eth0"))??;
    let refused = node.invocation("ADD", "a", Some(&path)).run(node.netns())?;
    let words = ["already has an interface \"eth0\"", "only one network"];
    expect_refusal(&node, &refused, Reason::InterfaceExists, &words)?;
    assert_eq!(count(&node, "free")?, 3, "the address must be free again");
    Ok(())
}

fn row_17_results_come_in_the_version_asked_for() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let (_netns, path) = node.sandbox(version)?;
        let add = node
            .invocation("ADD", version, Some(&path))
            .conf("cniVersion", json!(version));
        let added = add.run(node.netns())?;
        assert_eq!(added.json["cniVersion"], version, "{added:?}");
        let family = added.json["ips"][0].get("version").is_some();
        assert_eq!(
            family,
            version.starts_with("0."),
            "{version}: ips[].version"
        );
        assert_eq!(
            added.json["interfaces"][0].get("mtu").is_some(),
            version == "1.1.0",
            "{version}: mtu"
        );
        let del = node
            .invocation("DEL", version, Some(&path))
            .conf("cniVersion", json!(version));
        assert!(del.run(node.netns())?.succeeded());
    }
    Ok(())
}

fn row_19_interfaces_are_real() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    let pod = node.add_pod("a")?;
    let interfaces = pod.added.json["interfaces"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let index = pod.added.json["ips"][0]["interface"]
        .as_u64()
        .unwrap_or(u64::MAX);
    let inside = &interfaces[usize::try_from(index)?];
    assert_eq!(inside["sandbox"], json!(pod.path));
    assert_eq!(inside["name"], "eth0");
    let host = interfaces
        .iter()
        .find(|i| i.get("sandbox").is_none_or(|s| s == ""))
        .ok_or("no host end")?;
    let mac = |netns: &datapath::netns::Netns,
               name: &str|
     -> Result<String, Box<dyn std::error::Error>> {
        let link = netns
            .run(|| Socket::open()?.link_by_name(name))??
            .ok_or("no such link")?;
        Ok(link.mac.ok_or("link has no MAC")?.to_string())
    };
    let name = host["name"].as_str().ok_or("host end has no name")?;
    assert_eq!(
        host["mac"],
        mac(node.netns(), name).map_err(|e| e.to_string())?
    );
    assert_eq!(
        inside["mac"],
        mac(&pod.netns, "eth0").map_err(|e| e.to_string())?
    );
    Ok(())
}

fn row_21_a_repeated_add_gives_the_same_address() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    let pod = node.add_pod("a")?;
    for _ in 0..3 {
        let again = node
            .invocation("ADD", "a", Some(&pod.path))
            .run(node.netns())?;
        assert_eq!(again.address(), pod.address());
    }
    assert_eq!(count(&node, "assigned")?, 1);
    Ok(())
}

fn row_22_concurrent_adds_are_independent() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    let (bad, path) = node.sandbox("bad")?;
    bad.run(|| occupy("eth0"))??;
    std::thread::scope(|scope| {
        let good = scope.spawn(|| node.add_pod("good"));
        let refused = node.invocation("ADD", "bad", Some(&path)).run(node.netns());
        assert!(!refused.expect("the plugin starts").succeeded());
        assert!(good.join().expect("no panic").is_ok());
    });
    Ok(())
}

fn row_24_del_can_be_early_repeated_or_for_an_unknown_sandbox() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    let pod = node.add_pod("kept")?;
    for _ in 0..3 {
        assert!(
            node.invocation("DEL", "nobody", None)
                .run(node.netns())?
                .succeeded()
        );
    }
    let other = node.add_pod("gone")?;
    for _ in 0..3 {
        assert!(
            node.invocation("DEL", "gone", Some(&other.path))
                .run(node.netns())?
                .succeeded()
        );
    }
    assert_eq!(count(&node, "assigned")?, 1);
    let again = node
        .invocation("ADD", "kept", Some(&pod.path))
        .run(node.netns())?;
    assert_eq!(again.address(), pod.address());
    Ok(())
}

fn row_25_our_record_wins_over_prev_result() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    let (a, b) = (node.add_pod("a")?, node.add_pod("b")?);
    let del = node
        .invocation("DEL", "a", Some(&a.path))
        .conf("prevResult", prev_result(&b));
    assert!(del.run(node.netns())?.succeeded());
    let kept = node
        .invocation("ADD", "b", Some(&b.path))
        .run(node.netns())?;
    assert_eq!(
        (count(&node, "assigned")?, kept.address()),
        (1, b.address())
    );
    Ok(())
}

fn row_26_without_a_daemon_add_returns_try_again_in_time() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = node(&lab)?;
    let (_netns, path) = node.sandbox("a")?;
    node.stop_daemon()?;
    let refused = node
        .invocation("ADD", "a", Some(&path))
        .conf("deadlineSeconds", json!(2))
        .run(node.netns())?;
    assert_eq!(refused.error_code(), Some(11), "{refused:?}");
    assert!(
        refused.error_text().contains("ipamd"),
        "it must say who is missing: {refused:?}"
    );
    assert!(refused.took < Duration::from_secs(4), "{:?}", refused.took);
    Ok(())
}

fn row_27_check_reports_removed_objects() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    let pod = node.add_pod("a")?;
    let check = || {
        node.invocation("CHECK", "a", Some(&pod.path))
            .conf("prevResult", prev_result(&pod))
            .run(node.netns())
    };
    let fine = check()?;
    assert!(fine.succeeded(), "{fine:?}");
    pod.netns.run(|| -> Result<(), netlink::Error> {
        let mut socket = Socket::open()?;
        let index = socket.link_by_name("eth0")?.map_or(0, |link| link.index);
        socket.apply(&addr::del(&Address::host(index, pod.address())))
    })??;
    let drifted = check()?;
    assert!(
        drifted.error_code().is_some_and(|code| code >= 100),
        "{drifted:?}"
    );
    assert!(
        drifted.error_text().contains("address"),
        "it must name what is missing: {drifted:?}"
    );
    let (_netns, path) = node.sandbox("stranger")?;
    let unknown = node
        .invocation("CHECK", "stranger", Some(&path))
        .conf("prevResult", prev_result(&pod));
    assert!(
        unknown
            .run(node.netns())?
            .error_code()
            .is_some_and(|code| code >= 3)
    );
    Ok(())
}

fn row_29_status_follows_the_daemon() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = node(&lab)?;
    let status = |node: &Node| {
        node.invocation("STATUS", "", None)
            .conf("cniVersion", json!("1.1.0"))
            .run(node.netns())
    };
    let healthy = status(&node)?;
    assert!(healthy.succeeded(), "{healthy:?}");
    node.stop_daemon()?;
    let away = status(&node)?;
    assert!(away.succeeded(), "an upgrade takes seconds: {away:?}");
    let mark = std::fs::File::options()
        .write(true)
        .open(proto::presence::path(&node.socket()))?;
    mark.set_times(std::fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH))?;
    assert_eq!(status(&node)?.error_code(), Some(50));
    Ok(())
}

fn gc(
    node: &Node,
    network: &str,
    key: &str,
    list: Value,
) -> std::io::Result<lab::node::plugin::Outcome> {
    let gc = node
        .invocation("GC", "", None)
        .conf("cniVersion", json!("1.1.0"))
        .conf("name", json!(network));
    gc.conf(key, list).run(node.netns())
}

fn row_30_gc_keeps_the_listed_and_frees_the_rest() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    let (a, _b) = (node.add_pod("a")?, node.add_pod("b")?);
    let other_network = gc(&node, "another", "cni.dev/valid-attachments", json!([]))?;
    assert!(other_network.succeeded(), "{other_network:?}");
    assert_eq!(
        count(&node, "assigned")?,
        2,
        "another network's list is no business of this one"
    );
    let valid = json!([{ "containerID": "a", "ifname": "eth0" }]);
    assert!(gc(&node, "aws-cni", "cni.dev/valid-attachments", valid)?.succeeded());
    assert_eq!(count(&node, "assigned")?, 1);
    let kept = node
        .invocation("ADD", "a", Some(&a.path))
        .run(node.netns())?;
    assert_eq!(kept.address(), a.address());
    assert!(gc(&node, "aws-cni", "cni.dev/attachments", json!([]))?.succeeded());
    assert_eq!(count(&node, "assigned")?, 0);
    Ok(())
}

fn row_31_gc_frees_nothing_without_a_list() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    node.add_pod("a")?;
    assert_eq!(
        gc(&node, "aws-cni", "unrelated", json!(1))?.error_code(),
        Some(7)
    );
    gc(&node, "aws-cni", "cni.dev/valid-attachments", Value::Null)?;
    assert_eq!(count(&node, "assigned")?, 1);
    Ok(())
}
