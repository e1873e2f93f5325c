//! Runtimes and orchestrators other than kubelet, and what they pass to the plugin.

use std::{path::Path, process::Command, time::Duration};

use lab::{
    Lab,
    node::{Node, count},
    traffic::ping::ping,
    wait::eventually,
};
use serde_json::{Value, json};
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    nomads_arguments_are_served,
    an_mtu_may_be_a_number_or_a_text_and_del_takes_anything,
    a_del_with_less_than_its_add_had_frees_the_pod,
    a_path_below_proc_is_a_namespace_like_any_other,
    case_02_a_del_under_another_network_touches_nothing,
    case_06_a_reused_pid_leads_del_to_the_host_which_stays_as_it_is,
);

const LIMIT: Duration = Duration::from_secs(20);

fn lab() -> std::io::Result<(Lab, Node)> {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[("IP_COOLDOWN_PERIOD", "1")])?;
    Ok((lab, node))
}

fn expect_assigned(node: &Node, number: usize) {
    let reached = || count(node, "assigned").is_ok_and(|n| n == number);
    assert!(eventually(LIMIT, reached), "not {number}\n{}", node.log());
}

fn nomads_arguments_are_served() -> Outcome {
    let (_lab, node) = lab()?;
    let (_netns, path) = node.sandbox("nomad")?;
    let args = "IgnoreUnknown=true;NOMAD_REGION=global;NOMAD_NAMESPACE=default;NOMAD_JOB_ID=web/api;NOMAD_GROUP_NAME=g;\
                NOMAD_ALLOC_ID=5f1d9c0a-1111-2222-3333-444455556666";
    let verb = |verb| {
        node.invocation(verb, "nomad", Some(&path))
            .variable("CNI_ARGS", args)
    };
    let added = verb("ADD").run(node.netns())?;
    assert!(added.succeeded(), "{added:?}\n{}", node.log());
    let deleted = verb("DEL").run(node.netns())?;
    assert!(deleted.succeeded(), "{deleted:?}");
    expect_assigned(&node, 0);
    for broken in ["NOMAD_JOB_ID=a=b", "IgnoreUnknown=true;"] {
        let refused = verb("ADD").variable("CNI_ARGS", broken).run(node.netns())?;
        assert_eq!(refused.error_code(), Some(4), "{broken}: {refused:?}");
    }
    Ok(())
}

/// An installer writes the number as text, and the next release writes it as a number, or not at all.
fn an_mtu_may_be_a_number_or_a_text_and_del_takes_anything() -> Outcome {
    let (_lab, node) = lab()?;
    let add = [json!(1500), json!("1500"), json!("")];
    let del = [json!("1500"), json!({ "bytes": 1500 }), json!("rubbish")];
    for (n, (add, del)) in add.into_iter().zip(del).enumerate() {
        let id = format!("pod{n}");
        let (_netns, path) = node.sandbox(&id)?;
        let verb = |verb, mtu: &Value| {
            node.invocation(verb, &id, Some(&path))
                .conf("mtu", mtu.clone())
                .run(node.netns())
        };
        let added = verb("ADD", &add)?;
        assert!(added.succeeded(), "{add}: {added:?}");
        let deleted = verb("DEL", &del)?;
        assert!(deleted.succeeded(), "{del}: {deleted:?}");
    }
    expect_assigned(&node, 0);
    let (_netns, path) = node.sandbox("refused")?;
    for wrong in [json!("abc"), json!(68.5), json!(-1), json!(true)] {
        let refused = node
            .invocation("ADD", "refused", Some(&path))
            .conf("mtu", wrong.clone())
            .run(node.netns())?;
        assert_eq!(refused.error_code(), Some(7), "{wrong}: {refused:?}");
    }
    Ok(())
}

/// Multus calls DEL with what it finds in its cache, or with less.
fn a_del_with_less_than_its_add_had_frees_the_pod() -> Outcome {
    let (_lab, node) = lab()?;
    let (_netns, path) = node.sandbox("pod")?;
    let added = node
        .invocation("ADD", "pod", Some(&path))
        .conf("vethPrefix", json!("pod"))
        .conf("mtu", json!(1500))
        .run(node.netns())?;
    assert!(added.succeeded(), "{added:?}");
    expect_assigned(&node, 1);
    let deleted = node
        .invocation("DEL", "pod", Some(&path))
        .conf("cniVersion", json!("0.3.1"))
        .variable("CNI_ARGS", "IgnoreUnknown=true;K8S_POD_UID=")
        .run(node.netns())?;
    assert!(deleted.succeeded(), "{deleted:?}");
    expect_assigned(&node, 0);
    Ok(())
}

/// Docker and older runtimes name a process instead of a bound file.
fn a_path_below_proc_is_a_namespace_like_any_other() -> Outcome {
    let (_lab, node) = lab()?;
    let (netns, _path) = node.sandbox("pause")?;
    let mut pause = netns.run(|| Command::new("sleep").arg("60").spawn())??;
    let path = format!("/proc/{}/ns/net", pause.id());
    let verb = |verb, path: &str| {
        node.invocation(verb, "pause", Some(Path::new(path)))
            .run(node.netns())
    };
    let added = verb("ADD", &path)?;
    let deleted = verb("DEL", &path.replace("/ns", "//ns"))?;
    pause.kill()?;
    pause.wait()?;
    assert!(added.succeeded(), "{added:?}\n{}", node.log());
    assert!(deleted.succeeded(), "{deleted:?}\n{}", node.log());
    expect_assigned(&node, 0);
    Ok(())
}

/// The configuration was renamed between ADD and DEL. The sandbox is released when its namespace ends.
fn case_02_a_del_under_another_network_touches_nothing() -> Outcome {
    let (_lab, node) = lab()?;
    let pod = node.add_pod("pod")?;
    for network in ["podman", "second"] {
        let deleted = node
            .invocation("DEL", "pod", Some(&pod.path))
            .conf("name", json!(network))
            .run(node.netns())?;
        assert!(deleted.succeeded(), "{deleted:?}");
    }
    assert_eq!(count(&node, "assigned")?, 1);
    let answer = ping(node.netns(), None, pod.address(), LIMIT)?;
    assert!(answer.is_some(), "{}", node.log());
    node.end_pod(pod)?;
    expect_assigned(&node, 0);
    Ok(())
}

/// Runtimes that name a process do not notice that it has ended. Its pid may belong to a process of the host by then.
fn case_06_a_reused_pid_leads_del_to_the_host_which_stays_as_it_is() -> Outcome {
    let (lab, node) = lab()?;
    // As /var/run, which is a link to /run.
    let linked = lab.dir().join("var-run");
    std::os::unix::fs::symlink(node.sandboxes(), &linked)?;
    let (_netns, path) = node.sandbox("pod")?;
    let path = linked.join(path.file_name().ok_or("no name")?);
    let verb = |verb, path: &Path| node.invocation(verb, "pod", Some(path)).run(node.netns());
    let added = verb("ADD", &path)?;
    assert!(added.succeeded(), "{added:?}\n{}", node.log());
    let state = "ip -o addr; ip rule; ip route show table all; nft list ruleset";
    let before = node.shell(state)?;

    let mut other = node
        .netns()
        .run(|| Command::new("sleep").arg("60").spawn())??;
    let refused = verb("DEL", Path::new(&format!("/proc/{}/ns/net", other.id())));
    other.kill()?;
    other.wait()?;
    let refused = refused?;
    assert_eq!(refused.error_code(), Some(8), "{refused:?}");
    assert_eq!(node.shell(state)?, before);
    assert_eq!(count(&node, "assigned")?, 1);
    let deleted = verb("DEL", &path)?;
    assert!(deleted.succeeded(), "{deleted:?}");
    expect_assigned(&node, 0);
    Ok(())
}
