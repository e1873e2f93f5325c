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
    aws_node::{Kind, Restored, conflist, plugins_of, run_in},
    node::{Node, Pod, host_link},
    traffic::{ping::ping, stream::Delivery},
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
    a_node_with_the_older_iptables_is_given_back,
    a_node_of_ipv6_is_given_back,
    pods_that_hawser_started_are_given_back,
    ipv6_pods_that_hawser_started_are_given_back,
    the_network_configuration_goes_forth_and_back,
    host_ports_are_an_obstacle_and_limits_of_bandwidth_stay,
    the_model_of_the_restore_drops_and_fails_as_the_real_one_does,
    an_aws_node_that_starts_beside_hawser_does_no_harm,
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

    /// What EC2 has of the node.
    fn enis(&self) -> BTreeSet<String> {
        let world = self.lab.sim.world();
        let here = world.interfaces().filter(|eni| {
            let attachment = eni.attachment.as_ref();
            attachment.is_some_and(|attached| attached.instance == self.node.instance.id)
        });
        here.map(|eni| format!("{eni:?}")).collect()
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
    let enis = site.enis();
    for time in 1..=times {
        site.take_over()?;
        site.is_ours()?;
        let restored = site.give_back()?;
        site.expect_kept(&restored, &site.was.pods.iter().collect::<Vec<_>>());
        same(&site, &before, time)?;
        assert_eq!(site.enis(), enis, "time {time}");
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

fn a_node_with_the_older_iptables_is_given_back() -> Outcome {
    forth_and_back(Kind::LegacyIptables, [2, 2], 2)
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
    site.was.configure_network(&mut site.node)?;
    let file = conflist(&site.was.directory);
    site.take_over()?;
    let kinds = || plugins_of(&site.was.directory);
    let ours = || kinds().is_ok_and(|kinds| kinds.first().is_some_and(|k| k == "hawser"));
    assert!(eventually(LIMIT, ours), "{}", site.node.log());
    assert!(kinds()?.contains(&"linkerd-cni".to_owned()));
    let mut list: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    if let Some(plugins) = list["plugins"].as_array_mut() {
        plugins.push(json!({ "type": "istio-cni" }));
    }
    fs::write(&file, list.to_string())?;
    site.give_back()?;
    assert_eq!(
        plugins_of(&site.was.directory)?,
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

fn host_ports_are_an_obstacle_and_limits_of_bandwidth_stay() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [1, 1])?;
    let before = site.was.look(&site.node)?;
    site.take_over()?;
    let limits = json!({ "ingressRate": 80_000_000, "ingressBurst": 8_000_000, "egressRate": 80_000_000, "egressBurst": 8_000_000 });
    let limits = json!({ "bandwidth": limits });
    let limited = site.node.add_pod_asking("limited", &limits)?;
    let ports = json!([{ "hostPort": 18080, "containerPort": 80, "protocol": "tcp" }]);
    let ports = json!({ "portMappings": ports });
    let open = site.node.add_pod_asking("open", &ports)?;
    let shown = |node: &Node, pod: &Pod| -> io::Result<[String; 2]> {
        let link = host_link(pod);
        let outside = node.shell(&format!("tc qdisc show dev {link}"))?;
        Ok([outside, run_in(&pod.netns, "tc qdisc show dev eth0")?])
    };
    let buckets = shown(&site.node, &limited)?;
    assert!(
        buckets.iter().all(|side| side.contains("tbf")),
        "{buckets:?}"
    );
    site.node.stop_daemon()?;
    let rules = site.node.shell("ip rule; nft list ruleset")?;
    for arguments in [&["handback", "--dry-run"][..], &["handback"]] {
        let (success, said) = site.command(arguments)?;
        assert!(
            !success && said.contains("pod-open has host ports"),
            "{said}"
        );
        assert!(!said.contains("pod-limited has"), "{said}");
    }
    assert_eq!(site.node.shell("ip rule; nft list ruleset")?, rules);
    let (success, said) = site.command(&["handback", "--force"])?;
    assert!(success, "{said}");
    let restored = site.was.start(&site.lab, &site.node)?;
    let [first, second] = &site.was.pods[..] else {
        return Err("two pods were built".into());
    };
    site.expect_kept(&restored, &[first, second, &limited, &open]);
    assert_eq!(shown(&site.node, &limited)?, buckets);
    // Nothing but the two new pods differs: their links, routes, rules and settings.
    let of_new = |line: &&String| {
        let mut words = line.split([' ', '/', '@', ':']);
        words.any(|word| {
            [&limited, &open]
                .iter()
                .any(|pod| word == host_link(pod) || word == pod.address().to_string())
        })
    };
    let after = site.was.look(&site.node)?;
    let more: Vec<_> = after
        .difference(&before)
        .filter(|line| !of_new(line))
        .collect();
    let less: Vec<_> = before.difference(&after).collect();
    assert!(more.is_empty() && less.is_empty(), "{more:#?}\n{less:#?}");
    Ok(())
}

/// Otherwise a test that expects kept pods could not fail.
fn the_model_of_the_restore_drops_and_fails_as_the_real_one_does() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [3, 1])?;
    let [renamed, elsewhere, ..] = &site.was.pods[..] else {
        return Err("four pods were built".into());
    };
    let expected = BTreeSet::from([renamed.address(), IpAddr::from([10, 0, 88, 8])]);
    let (link, moved) = (host_link(renamed), elsewhere.address());
    let rename = format!("ip link set {link} down; ip link set {link} name foreign0");
    site.node.shell(&rename)?;
    site.was
        .edit(|entries| entries[1]["ipv4"] = "10.0.88.8".into())?;
    let Site { lab, node, was, .. } = &mut site;
    let restored = was.start(lab, node)?;
    assert_eq!(restored.dropped, expected);
    let kept: BTreeSet<_> = restored.kept.keys().copied().collect();
    assert_eq!(kept, was.pods[2..].iter().map(Pod::address).collect());
    assert!(!kept.contains(&moved));
    was.edit(|entries| entries.push(entries[0].clone()))?;
    let twice = was.start(lab, node).map(drop);
    assert!(twice.is_err_and(|error| error.to_string().contains("twice")));
    let other = r#"{ "version": "vpc-cni-ipam/2", "allocations": [] }"#;
    fs::write(was.directory.join("ipam.json"), other)?;
    let version = was.start(lab, node).map(drop);
    assert!(version.is_err_and(|error| error.to_string().contains("vpc-cni-ipam/2")));
    Ok(())
}

/// Both DaemonSets run on the node by mistake.
fn an_aws_node_that_starts_beside_hawser_does_no_harm() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [2, 2])?;
    site.take_over()?;
    let flows = Flows::start(&site.lab, &site.node, &site.was.pods, &site.far)?;
    let Site { lab, node, was, .. } = &mut site;
    // It sets up the host's network, and ends at the file in the place of its checkpoint.
    let started = was.start(lab, node).map(drop);
    let told = started.map_err(|error| error.to_string());
    assert!(told.is_err_and(|error| error.contains("this node is Hawser's")));
    let ended = flows
        .finish()
        .map_err(|e| io::Error::other(format!("{e}\n{}", site.node.log())))?;
    // It empties its ENI of addresses and configures it anew, as at each of its starts. How long that takes is its affair.
    let once = |delivery: &Delivery| delivery.interruptions() <= 1;
    assert!(ended.delivered.iter().all(once), "{:?}", ended.delivered);
    let new = site.node.add_pod("new")?;
    assert!(ping(&new.netns, None, site.far.address(), LIMIT)?.is_some());
    site.node.delete_pod(new)?;
    // The next start removes what it made.
    site.node.kill_daemon()?;
    site.node.start_daemon(&site.lab.sim.ec2_endpoint())?;
    // The rule for an ENI's own address is the same in both programs, and serves on.
    let left = site.node.shell(
        "iptables-nft-save 2>/dev/null | grep AWS || true; nft list tables | grep aws-cni || true; \
         ip rule | grep '^1024:\\|512:' | grep -v 'proto 107' || true",
    )?;
    assert_eq!(left, "");
    assert_eq!(site.assigned()?.len(), site.was.pods.len());
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
