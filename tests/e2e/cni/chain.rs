//! The runtime's list of plugins, shared with others, and the network's former name.

use std::{fs, path::PathBuf, thread, time::Duration};

use lab::{Lab, node::Node, wait::eventually};
use serde_json::{Value, json};
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    case_09_a_mesh_keeps_its_place_in_the_chain,
    case_10_host_ports_are_hawsers_or_portmaps_and_never_both,
    sandboxes_of_the_former_network_are_checked_and_deleted,
    the_former_configuration_becomes_the_new_one,
);

/// A node that writes its configuration into a directory of its own.
fn node(lab: &Lab, settings: &[(&str, &str)]) -> std::io::Result<(Node, PathBuf)> {
    let directory = lab.dir().join("net.d");
    fs::create_dir_all(&directory)?;
    let place = directory.display().to_string();
    let all = [settings, &[("HOST_CNI_CONFDIR_PATH", &*place)]].concat();
    Ok((lab.bare_node("m5.large", &all)?, directory))
}

fn list(path: &PathBuf) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

fn started(lab: &Lab, node: &mut Node, path: &PathBuf) -> Outcome {
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let written = || list(path).is_some_and(|list| list["name"] == "aws-cni");
    if eventually(Duration::from_secs(20), written) {
        return Ok(());
    }
    Err(format!("no configuration\n{}", node.log()).into())
}

fn case_09_a_mesh_keeps_its_place_in_the_chain() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (mut node, directory) = node(&lab, &[])?;
    let path = directory.join("10-aws.conflist");
    started(&lab, &mut node, &path)?;
    let mut meshed = list(&path).ok_or("no list")?;
    let entry = json!({ "type": "istio-cni", "log_level": "info" });
    meshed["plugins"]
        .as_array_mut()
        .ok_or("no plugins")?
        .push(entry);
    // As installers do: a temporary file, and a rename.
    fs::write(directory.join("mesh.tmp"), meshed.to_string())?;
    fs::rename(directory.join("mesh.tmp"), &path)?;
    // More than two of the daemon's looks.
    thread::sleep(Duration::from_secs(12));
    assert_eq!(
        fs::read_to_string(&path)?,
        meshed.to_string(),
        "{}",
        node.log()
    );
    assert_eq!(node.metric("hawser_repairs_total{kind=\"conflist\"}")?, 0);

    fs::write(
        &path,
        r#"{"name":"aws-cni","plugins":[{"type":"istio-cni"}]}"#,
    )?;
    let repaired = || list(&path).is_some_and(|list| list["plugins"][0]["type"] == "hawser");
    assert!(
        eventually(Duration::from_secs(20), repaired),
        "{}",
        node.log()
    );
    let kept = list(&path).ok_or("no list")?;
    assert_eq!(kept["plugins"][1]["type"], "istio-cni");
    assert_eq!(node.metric("hawser_repairs_total{kind=\"conflist\"}")?, 1);
    Ok(())
}

fn case_10_host_ports_are_hawsers_or_portmaps_and_never_both() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let bin = lab.dir().join("bin");
    fs::create_dir_all(&bin)?;
    fs::write(bin.join("portmap"), "")?;
    let place = bin.display().to_string();
    let (mut node, directory) = node(&lab, &[("HOST_CNI_BIN_PATH", &*place)])?;
    let path = directory.join("10-aws.conflist");
    started(&lab, &mut node, &path)?;
    let mut list = list(&path).ok_or("no list")?;
    assert_eq!(list["plugins"].as_array().map(Vec::len), Some(1));
    let both = json!({ "portMappings": true, "bandwidth": true });
    assert_eq!(list["plugins"][0]["capabilities"], both);

    // As an earlier release or the AWS VPC CNI wrote it.
    let entry = json!({
        "type": "portmap", "capabilities": { "portMappings": true }, "snat": true
    });
    let plugins = list["plugins"].as_array_mut().ok_or("no plugins")?;
    plugins.push(entry.clone());
    fs::write(&path, list.to_string())?;
    let bandwidth = json!({ "bandwidth": true });
    let yields = || {
        let list = self::list(&path);
        list.is_some_and(|list| {
            list["plugins"][0]["capabilities"] == bandwidth && list["plugins"][1] == entry
        })
    };
    assert!(
        eventually(Duration::from_secs(20), yields),
        "{}",
        node.log()
    );
    // The runtime passes one version to both, and portmap may not know 1.1.0.
    let list = self::list(&path).ok_or("no list")?;
    assert_eq!(list["cniVersions"], json!(["0.4.0", "1.0.0"]));
    Ok(())
}

fn the_former_configuration_becomes_the_new_one() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (mut node, directory) = node(&lab, &[])?;
    let former = json!({
        "cniVersion": "1.0.0",
        "name": "hawser",
        "plugins": [{ "type": "hawser", "socket": node.socket() }, { "type": "mesh" }],
    });
    fs::write(directory.join("10-hawser.conflist"), former.to_string())?;
    let path = directory.join("10-aws.conflist");
    started(&lab, &mut node, &path)?;
    assert!(!directory.join("10-hawser.conflist").exists());
    let list = list(&path).ok_or("no list")?;
    assert_eq!(list["plugins"][1]["type"], "mesh");
    Ok(())
}

fn sandboxes_of_the_former_network_are_checked_and_deleted() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("m5.large", &[])?;
    let mut made = Vec::new();
    for id in ["a", "b"] {
        let (netns, path) = node.sandbox(id)?;
        let add = node.invocation("ADD", id, Some(&path));
        let added = add.conf("name", "hawser".into()).run(node.netns())?;
        assert!(added.succeeded(), "{added:?}");
        made.push((id, netns, path, added));
    }
    for (at, (id, _netns, path, added)) in made.iter().enumerate() {
        if at == 1 {
            // Its DEL comes when the record is read from disk, as after an upgrade.
            node.stop_daemon()?;
            node.start_daemon(&lab.sim.ec2_endpoint())?;
        }
        let check = node.invocation("CHECK", id, Some(path));
        let checked = check
            .conf("prevResult", added.json.clone())
            .run(node.netns())?;
        assert!(checked.succeeded(), "{checked:?}");
        let deleted = node.invocation("DEL", id, Some(path)).run(node.netns())?;
        assert!(deleted.succeeded(), "{deleted:?}");
    }
    let assigned = || lab::node::count(&node, "assigned").is_ok_and(|count| count == 0);
    assert!(
        eventually(Duration::from_secs(5), assigned),
        "{}",
        node.log()
    );
    Ok(())
}
