//! A node of Hawser is given back to the AWS VPC CNI, whose start is a model of the real one's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    thread,
    time::Duration,
};

use lab::{
    Lab,
    aws_node::{Kind, Restored},
    node::{Node, Pod, host_link},
    traffic::ping::ping,
    wait::eventually,
};
use serde_json::{Value, json};
use vpc_sim::SimConfig;

use super::{flows::Flows, forth::Site};
use crate::suite::{Outcome, trials};

trials!(
    a_node_goes_forth_and_back_twenty_times_under_traffic,
    a_node_with_prefixes_is_given_back,
    a_node_without_translation_is_given_back,
    a_node_with_a_mark_and_links_of_its_own_is_given_back,
    a_node_of_ipv6_is_given_back,
    pods_that_hawser_started_are_given_back,
    ipv6_pods_that_hawser_started_are_given_back,
    the_network_configuration_goes_forth_and_back,
    what_no_record_knows_is_an_obstacle,
    a_running_daemon_gives_nothing_back,
    a_handback_that_was_begun_can_be_taken_back,
    without_the_directory_of_the_aws_vpc_cni_nothing_is_given_back,
);

const LIMIT: Duration = Duration::from_secs(60);

impl Site {
    fn command(&self, arguments: &[&str]) -> io::Result<(bool, String)> {
        let output = self.node.ask(&self.lab.sim.ec2_endpoint(), arguments)?;
        let text = [output.stdout, output.stderr].concat();
        let success = output.status.success();
        Ok((success, String::from_utf8_lossy(&text).into_owned()))
    }

    /// Hawser's daemon ends, the command waits, the AWS VPC CNI starts, the command ends.
    fn give_back(&mut self) -> io::Result<Restored> {
        self.node.stop_daemon()?;
        let Self { lab, node, was, .. } = self;
        let endpoint = lab.sim.ec2_endpoint();
        while_handing_back(node, &endpoint, false, || was.start(lab, node))
    }

    fn expect_kept(&self, restored: &Restored, pods: &[&Pod]) {
        let expected: BTreeMap<IpAddr, String> = pods
            .iter()
            .map(|pod| (pod.address(), pod.id.clone()))
            .collect();
        assert_eq!(restored.kept, expected);
        assert_eq!(restored.dropped, BTreeSet::new());
    }
}

/// Runs `start` as soon as the waiting command has given every pod what the AWS VPC CNI needs, and waits for its end.
pub fn while_handing_back<T>(
    node: &Node,
    endpoint: &str,
    force: bool,
    start: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let mark = proto::presence::handed_back(&node.socket());
    let pid = node.state_file().with_file_name("handback.pid");
    let script = format!("echo $$ > {}; exec \"$@\"", pid.display());
    let arguments = ["handback", "--wait", "--force"];
    let arguments = &arguments[..if force { 3 } else { 2 }];
    thread::scope(|scope| {
        let command =
            scope.spawn(|| node.ask_under(&["sh", "-c", &script, "sh"], endpoint, arguments));
        eventually(LIMIT, || mark.exists() || command.is_finished());
        let began = mark.exists();
        let started = start();
        eventually(LIMIT, || !mark.exists() || command.is_finished());
        let done = !mark.exists();
        // It answers probes until then.
        drop(node.shell(&format!("kill $(cat {})", pid.display())));
        let output = command.join().expect("no command panics")?;
        // The signal may come before the command has written its last line or listens for signals. The mark says how far it
        // came: it appears when the AWS VPC CNI may start, and goes when everything is done.
        let clean = matches!(output.status.code(), Some(0) | None);
        match began && done && clean {
            true => started,
            false => Err(io::Error::other(format!("{output:?}"))),
        }
    })
}

/// Forth and back again this often, while packets flow. The node looks afterwards as it did before.
fn forth_and_back(kind: Kind, pods: [usize; 2], times: usize) -> Outcome {
    let mut site = Site::build(kind, pods)?;
    let flows = Flows::start(&site.lab, &site.node, &site.was.pods, &site.far)?;
    let before = site.was.look(&site.node)?;
    for time in 1..=times {
        site.take_over()?;
        site.is_ours()?;
        let restored = site.give_back()?;
        site.expect_kept(&restored, &site.was.pods.iter().collect::<Vec<_>>());
        same(&site, &before, time)?;
    }
    let ended = flows
        .finish()
        .map_err(|e| io::Error::other(format!("{e}\n{}", site.node.log())))?;
    ended.judge(&format!("{kind:?} {times} times"), 2 * times);
    Ok(())
}

fn a_node_goes_forth_and_back_twenty_times_under_traffic() -> Outcome {
    forth_and_back(Kind::SecondaryIps, [2, 2], 20)
}

/// The node is as the AWS VPC CNI had left it.
fn same(site: &Site, before: &BTreeSet<String>, time: usize) -> Outcome {
    let after = site.was.look(&site.node)?;
    let more: Vec<_> = after.difference(before).collect();
    let less: Vec<_> = before.difference(&after).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "time {time}: more {more:#?}\nless {less:#?}"
    );
    Ok(())
}

fn a_node_with_prefixes_is_given_back() -> Outcome {
    forth_and_back(Kind::Prefixes, [3, 2], 2)
}

fn a_node_without_translation_is_given_back() -> Outcome {
    forth_and_back(Kind::ExternalSnat, [2, 2], 2)
}

fn a_node_with_a_mark_and_links_of_its_own_is_given_back() -> Outcome {
    forth_and_back(Kind::Customised, [2, 2], 2)
}

fn a_node_of_ipv6_is_given_back() -> Outcome {
    forth_and_back(Kind::Ipv6, [3, 0], 2)
}

fn pods_that_hawser_started_are_given_back() -> Outcome {
    started_pods_are_given_back(Kind::SecondaryIps, [2, 2])
}

fn ipv6_pods_that_hawser_started_are_given_back() -> Outcome {
    started_pods_are_given_back(Kind::Ipv6, [3, 0])
}

fn started_pods_are_given_back(kind: Kind, pods: [usize; 2]) -> Outcome {
    let mut site = Site::build(kind, pods)?;
    // Pods with addresses of the other family are not given back without `--force`.
    site.node.set("ENABLE_V4_EGRESS", "false");
    site.take_over()?;
    let born: io::Result<Vec<Pod>> = (0..3)
        .map(|n| site.node.add_pod(&format!("born-{n}")))
        .collect();
    let born = born?;
    let gone = site.was.pods.remove(0);
    site.node.delete_pod(gone)?;
    let restored = site.give_back()?;
    let all: Vec<&Pod> = site.was.pods.iter().chain(&born).collect();
    site.expect_kept(&restored, &all);
    for pod in &all {
        assert!(ping(&pod.netns, None, site.far.address(), LIMIT)?.is_some());
        assert!(ping(&site.far.netns, None, pod.address(), LIMIT)?.is_some());
        let link = host_link(pod);
        let shown = site.node.shell(&format!("ip -d link show {link}"))?;
        for ours in ["alias", "NOARP", "group 27"] {
            assert!(!shown.contains(ours), "{shown}");
        }
    }
    // The simulated instance's own IPv6 address is a route of this protocol in the table local.
    let rules = site.node.shell(
        "ip rule; nft list tables; ip route show table all | grep ' table ' | grep -v 'table local' || true",
    )?;
    assert!(
        !rules.contains("proto 107") && !rules.contains("hawser"),
        "{rules}"
    );
    Ok(())
}

fn the_network_configuration_goes_forth_and_back() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [1, 1])?;
    let directory = site.was.directory.join("net.d");
    fs::create_dir_all(&directory)?;
    site.node
        .set("HOST_CNI_CONFDIR_PATH", &directory.display().to_string());
    let file = directory.join("10-aws.conflist");
    let theirs = json!({ "cniVersion": "0.4.0", "name": "aws-cni", "disableCheck": true, "plugins": [
        { "name": "aws-cni", "type": "aws-cni", "vethPrefix": "eni", "mtu": "9001" },
        { "name": "egress-cni", "type": "egress-cni", "enabled": "false" },
        { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
        { "type": "linkerd-cni" },
    ]});
    fs::write(&file, theirs.to_string())?;
    site.take_over()?;
    let read = || -> io::Result<Value> { Ok(serde_json::from_str(&fs::read_to_string(&file)?)?) };
    let kinds = |list: &Value| -> Vec<String> {
        let plugins = list["plugins"].as_array().into_iter().flatten();
        plugins
            .filter_map(|plugin| Some(plugin["type"].as_str()?.to_owned()))
            .collect()
    };
    let ours = || read().is_ok_and(|list| kinds(&list).first().is_some_and(|k| k == "hawser"));
    assert!(eventually(LIMIT, ours), "{}", site.node.log());
    assert!(kinds(&read()?).contains(&"linkerd-cni".to_owned()));
    let mut list = read()?;
    if let Some(plugins) = list["plugins"].as_array_mut() {
        plugins.push(json!({ "type": "istio-cni" }));
    }
    fs::write(&file, list.to_string())?;
    site.give_back()?;
    assert_eq!(
        kinds(&read()?),
        [
            "aws-cni",
            "egress-cni",
            "portmap",
            "linkerd-cni",
            "istio-cni"
        ]
    );
    Ok(())
}

fn what_no_record_knows_is_an_obstacle() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [2, 1])?;
    site.was.stop()?;
    site.was.edit(|entries| drop(entries.remove(0)))?;
    site.take_over()?;
    site.node.stop_daemon()?;
    let link = host_link(&site.was.pods[0]);
    let why = format!("{link} has {} and no record", site.was.pods[0].address());
    let (success, said) = site.command(&["handback", "--dry-run"])?;
    assert!(!success && said.contains(&why), "{said}");
    let rules = site.node.shell("ip rule")?;
    let (success, said) = site.command(&["handback"])?;
    assert!(!success && said.contains(&why), "{said}");
    assert_eq!(site.node.shell("ip rule")?, rules);
    let (success, said) = site.command(&["handback", "--force"])?;
    assert!(success, "{said}");
    let restored = site.was.start(&site.lab, &site.node)?;
    // Its address is not given to another pod.
    assert_eq!(restored.kept.len(), 3);
    assert!(restored.kept.contains_key(&site.was.pods[0].address()));
    Ok(())
}

fn a_running_daemon_gives_nothing_back() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [1, 1])?;
    site.take_over()?;
    let (success, said) = site.command(&["handback"])?;
    assert!(
        !success && said.contains("ipamd is still running"),
        "{said}"
    );
    let (success, said) = site.command(&["handback", "--dry-run"])?;
    assert!(success && said.contains("give back"), "{said}");
    site.is_ours()
}

fn a_handback_that_was_begun_can_be_taken_back() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [2, 2])?;
    site.take_over()?;
    site.node.stop_daemon()?;
    // The AWS VPC CNI never starts, and the command is ended while it waits.
    let ended = site.node.ask_under(
        &["timeout", "-s", "KILL", "3"],
        &site.lab.sim.ec2_endpoint(),
        &["handback", "--wait"],
    )?;
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("4 pods have the rules of both"), "{said}");
    let rules = site.node.shell("ip rule")?;
    assert!(
        rules.contains("lookup main") && rules.contains("proto 107"),
        "{rules}"
    );
    for pod in &site.was.pods {
        assert!(ping(&pod.netns, None, site.far.address(), LIMIT)?.is_some());
    }
    let status = site.node.invocation("STATUS", "", None);
    let status = status.conf("cniVersion", json!("1.1.0"));
    let status = status.run(site.node.netns())?;
    assert_eq!(status.error_code(), Some(50), "{status:?}");
    assert!(
        status.error_text().contains("is being given back"),
        "{status:?}"
    );
    site.take_over()?;
    site.is_ours()
}

fn without_the_directory_of_the_aws_vpc_cni_nothing_is_given_back() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let directory = lab.dir().join("aws-node");
    let mut node = lab.bare_node("t3.small", &[])?;
    node.set("HAWSER_AWS_NODE_DIR", &directory.display().to_string());
    let endpoint = lab.sim.ec2_endpoint();
    let give_back = |node: &Node| -> io::Result<(bool, String)> {
        let output = node.ask(&endpoint, &["handback"])?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok((output.status.success(), text))
    };
    let (success, said) = give_back(&node)?;
    assert!(success && said.contains("nothing to give back"), "{said}");
    node.start_daemon(&endpoint)?;
    let pod = node.add_pod("pod")?;
    node.stop_daemon()?;
    let before = node.shell("ip rule; ip route show table all")?;
    let (success, said) = give_back(&node)?;
    let why = format!("{}, which is not there", directory.display());
    assert!(!success && said.contains(&why), "{said}");
    assert_eq!(node.shell("ip rule; ip route show table all")?, before);
    fs::create_dir(&directory)?;
    let (success, said) = give_back(&node)?;
    assert!(success, "{said}");
    let written = fs::read_to_string(directory.join("ipam.json"))?;
    assert!(written.contains(&pod.address().to_string()), "{written}");
    Ok(())
}
