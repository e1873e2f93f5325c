//! A node of the AWS VPC CNI becomes Hawser's.

use std::{collections::BTreeMap, fs, io, net::IpAddr, time::Duration};

use datapath::{constants::PODS_TABLE, pod::upstream_host_name};
use lab::{
    Lab,
    aws_node::{AwsNode, Kind, run_in},
    node::{Node, Pod, count, host_link, inspect::inspect},
    traffic::ping::ping,
    wait::eventually,
};
use serde_json::Value;
use vpc_sim::SimConfig;

use super::flows::Flows;
use crate::suite::{Outcome, trials};

trials!(
    a_node_with_secondary_addresses_is_taken_over_under_traffic,
    a_node_with_prefixes_is_taken_over_under_traffic,
    a_node_without_translation_is_taken_over_under_traffic,
    a_node_with_a_mark_and_links_of_its_own_is_taken_over_under_traffic,
    a_node_of_ipv6_is_taken_over_under_traffic,
    a_running_aws_node_is_not_taken_over,
    what_contradicts_is_refused_and_nothing_is_changed,
    a_pod_with_another_address_inside_is_refused_and_nothing_is_changed,
    each_refusal_names_the_pod_and_nothing_is_changed,
    network_policies_are_refused_unless_they_are_to_stay_as_they_are,
    pods_without_a_record_and_records_without_a_pod_are_told_apart,
    without_the_directory_pods_keep_their_rules,
    the_plan_is_printed_without_a_change,
);

const LIMIT: Duration = Duration::from_secs(60);
/// Nothing is assigned or attached beyond what the node has.
const STILL: [(&str, &str); 3] = [
    ("MAX_ENI", "2"),
    ("WARM_IP_TARGET", "1"),
    ("IP_COOLDOWN_PERIOD", "5"),
];

pub struct Site {
    pub lab: Lab,
    pub node: Node,
    pub was: AwsNode,
    pub far: Pod,
    _elsewhere: Node,
}

impl Site {
    pub fn build(kind: Kind, pods: [usize; 2]) -> io::Result<Self> {
        let sim = match kind {
            Kind::Ipv6 => SimConfig::dual_stack(),
            _ => SimConfig::default(),
        };
        let lab = Lab::start(sim)?;
        let mut node = lab.bare_node("m5.large", &STILL)?;
        let was = AwsNode::build(&lab, &mut node, kind, pods)?;
        let settings: &[(&str, &str)] = match kind {
            Kind::Ipv6 => &crate::support::ipv6::SIX,
            _ => &[],
        };
        let elsewhere = lab.node("t3.small", settings)?;
        let far = elsewhere.add_pod("far")?;
        Ok(Self {
            lab,
            node,
            was,
            far,
            _elsewhere: elsewhere,
        })
    }

    pub fn take_over(&mut self) -> io::Result<()> {
        self.was.stop()?;
        self.node.start_daemon(&self.lab.sim.ec2_endpoint())
    }

    /// What the daemon has for each of the pods: container and address.
    pub fn assigned(&self) -> io::Result<BTreeMap<String, IpAddr>> {
        let snapshot = inspect(&self.node.socket())?;
        let all = snapshot.enis.into_iter().flat_map(|eni| eni.addresses);
        let assigned = all.filter(|address| address.state == "assigned");
        Ok(assigned
            .filter_map(|address| {
                let bytes = address.address.as_slice();
                let ip = match <[u8; 4]>::try_from(bytes) {
                    Ok(four) => IpAddr::from(four),
                    Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
                };
                Some((address.sandbox?.container_id, ip))
            })
            .collect())
    }

    fn expected(&self) -> BTreeMap<String, IpAddr> {
        let pods = self.was.pods.iter();
        pods.map(|pod| (pod.id.clone(), pod.address())).collect()
    }

    /// Nothing of the AWS VPC CNI is left, and every pod is Hawser's.
    pub fn is_ours(&self) -> Outcome {
        assert_eq!(self.assigned()?, self.expected(), "{}", self.node.log());
        let left = self.node.shell(
            "{ ip rule; ip -6 rule; ip route; ip -6 route; } | grep -v 'proto 107\\|default\\|kernel\\|^0:\\|3276[67]:' || true; \
             { iptables-nft-save; iptables-legacy-save; } 2>/dev/null | grep AWS || true; nft list tables | grep aws-cni || true",
        )?;
        let left: Vec<_> = left
            .lines()
            .filter(|line| {
                ["eni", "dev pod", "AWS", "aws-cni", "lookup"]
                    .iter()
                    .any(|of_theirs| line.contains(of_theirs))
            })
            .collect();
        assert!(left.is_empty(), "{left:#?}");
        // An aws-node that is started by mistake ends with this.
        let guard = fs::read_to_string(self.was.directory.join("ipam.json"))?;
        assert!(guard.contains("this node is Hawser's"), "{guard}");
        for pod in &self.was.pods {
            let (address, link) = (pod.address(), host_link(pod));
            let ip = if address.is_ipv4() { "ip" } else { "ip -6" };
            let route = format!("{ip} route show table {PODS_TABLE} {address}");
            let route = self.node.shell(&route)?;
            assert!(route.contains(&link), "{address}: {route:?}");
            let shown = self.node.shell(&format!("ip -d link show {link}"))?;
            let alias = format!("alias hawser aws-cni/{}/eth0", pod.id);
            assert!(shown.contains(&alias) && shown.contains("NOARP"), "{shown}");
        }
        Ok(())
    }

    /// Every pod is deleted by its runtime, and every address comes back.
    pub fn delete_all(&mut self) -> Outcome {
        for pod in self.was.pods.drain(..) {
            self.node.delete_pod(pod)?;
        }
        let assigned = || self.assigned().is_ok_and(|left| left.is_empty());
        assert!(eventually(LIMIT, assigned), "{}", self.node.log());
        let links = || {
            let shown = self.node.shell("ip -o link");
            shown.is_ok_and(|links| ![" eni", " pod"].iter().any(|pod| links.contains(pod)))
        };
        assert!(eventually(LIMIT, links));
        Ok(())
    }
}

fn under_traffic(kind: Kind, pods: [usize; 2]) -> Outcome {
    let mut site = Site::build(kind, pods)?;
    let flows = Flows::start(&site.lab, &site.node, &site.was.pods, &site.far)?;
    std::thread::sleep(Duration::from_millis(500));
    site.take_over()?;
    std::thread::sleep(Duration::from_secs(1));
    let ended = flows
        .finish()
        .map_err(|e| io::Error::other(format!("{e}\n{}", site.node.log())))?;
    ended.judge(&format!("{kind:?}"), 1);
    site.is_ours()?;
    // New connections go the same ways.
    let flows = Flows::start(&site.lab, &site.node, &site.was.pods, &site.far)?;
    std::thread::sleep(Duration::from_millis(500));
    let ended = flows.finish()?;
    ended.judge("afterwards", 0);
    // A pod of the new plugin beside them.
    let new = site.node.add_pod("new")?;
    assert!(!site.expected().values().any(|a| *a == new.address()));
    assert!(ping(&new.netns, None, site.far.address(), LIMIT)?.is_some());
    site.node.delete_pod(new)?;
    site.delete_all()
}

fn a_node_with_secondary_addresses_is_taken_over_under_traffic() -> Outcome {
    under_traffic(Kind::SecondaryIps, [3, 3])
}

fn a_node_with_prefixes_is_taken_over_under_traffic() -> Outcome {
    under_traffic(Kind::Prefixes, [3, 3])
}

fn a_node_without_translation_is_taken_over_under_traffic() -> Outcome {
    under_traffic(Kind::ExternalSnat, [3, 3])
}

fn a_node_with_a_mark_and_links_of_its_own_is_taken_over_under_traffic() -> Outcome {
    under_traffic(Kind::Customised, [2, 2])
}

fn a_node_of_ipv6_is_taken_over_under_traffic() -> Outcome {
    under_traffic(Kind::Ipv6, [3, 0])
}

fn a_running_aws_node_is_not_taken_over() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [2, 1])?;
    let before = site.was.look(&site.node)?;
    let ended = site.node.run_daemon(&site.lab.sim.ec2_endpoint())?;
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("aws-node runs on this node"), "{said}");
    assert_eq!(site.was.look(&site.node)?, before);
    site.take_over()?;
    site.is_ours()
}

fn what_contradicts_is_refused_and_nothing_is_changed() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [2, 1])?;
    site.was.stop()?;
    let first = site.was.pods[0].address();
    let mut before = Vec::new();
    site.was.edit(|entries| {
        before = entries.clone();
        let twice = entries[0]["ipv4"].clone();
        entries[1]["ipv4"] = twice;
    })?;
    refused(&mut site, &format!("the checkpoint has {first} twice"))?;
    // Pods go on as before.
    for pod in &site.was.pods {
        assert!(ping(&pod.netns, None, site.far.address(), LIMIT)?.is_some());
    }
    site.was.edit(|entries| *entries = before)?;
    site.take_over()?;
    site.is_ours()
}

/// What is broken before the start, and what the refusal says.
type Broken = (fn(&mut Site, &str) -> io::Result<()>, &'static str);

/// `LINK` is that of the pod `web-0`.
const REFUSED: [Broken; 5] = [
    (
        |site, link| {
            let pod = &site.was.pods[0];
            let own = pod.address();
            let moved = "ip addr add 10.0.77.7/32 dev eth0; ip addr del";
            drop(run_in(&pod.netns, &format!("{moved} {own}/32 dev eth0"))?);
            let moved = format!("ip route del {own}; ip route add 10.0.77.7 dev {link}");
            drop(site.node.shell(&moved)?);
            site.was
                .edit(|entries| entries[0]["ipv4"] = "10.0.77.7".into())
        },
        "default/web-0 has 10.0.77.7, which is on no ENI",
    ),
    (
        |site, _| {
            let other = |entries: &mut Vec<Value>| {
                entries[0]["metadata"]["k8sPodName"] = "other".into();
            };
            site.was.edit(other)
        },
        "is of default/other, but the kernel routes it to LINK",
    ),
    (
        |site, _| {
            let unknown = r#"{ "version": "vpc-cni-ipam/2", "allocations": [] }"#;
            fs::write(site.was.directory.join("ipam.json"), unknown)
        },
        "has version \"vpc-cni-ipam/2\"",
    ),
    (
        |site, _| {
            let own = site.was.pods[0].address();
            let branch = format!("ip rule add from {own} pref 1536 lookup 105");
            site.node.shell(&branch).map(drop)
        },
        "default/web-0 have an ENI of their own",
    ),
    (
        |site, _| {
            let entries = site.was.directory.join("ipam-nic-1.json");
            let text = fs::read_to_string(site.was.directory.join("ipam.json"))?;
            fs::write(entries, text)?;
            let second = upstream_host_name("eni", "default", "web-0.1");
            let add = format!("ip link add {second} type veth peer name further");
            site.node.shell(&add).map(drop)
        },
        "default/web-0 have interfaces on several network cards",
    ),
];

fn each_refusal_names_the_pod_and_nothing_is_changed() -> Outcome {
    for (breaks, why) in REFUSED {
        let mut site = Site::build(Kind::SecondaryIps, [1, 1])?;
        site.was.stop()?;
        let link = host_link(&site.was.pods[0]);
        breaks(&mut site, &link)?;
        refused(&mut site, &why.replace("LINK", &link))?;
    }
    Ok(())
}

/// The daemon does not start, the plan says the same, and the node stays as it is.
fn refused(site: &mut Site, why: &str) -> Outcome {
    let before = site.was.look(&site.node)?;
    let endpoint = site.lab.sim.ec2_endpoint();
    let ended = site.node.run_daemon(&endpoint)?;
    let planned = site.node.ask(&endpoint, &["takeover", "--dry-run"])?;
    for output in [ended, planned] {
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && said.contains(why), "{said}");
    }
    assert_eq!(site.was.look(&site.node)?, before);
    Ok(())
}

fn network_policies_are_refused_unless_they_are_to_stay_as_they_are() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [1, 1])?;
    site.was.stop()?;
    let link = host_link(&site.was.pods[0]);
    let attach = format!("tc qdisc add dev {link} clsact");
    site.node.shell(&attach)?;
    refused(&mut site, "network policies are in force for default/web-0")?;
    site.node.set("HAWSER_TAKEOVER_DESPITE_POLICIES", "true");
    site.take_over()?;
    site.is_ours()?;
    let kept = site.node.shell(&format!("tc qdisc show dev {link}"))?;
    assert!(kept.contains("clsact"), "{kept}");
    Ok(())
}

fn a_pod_with_another_address_inside_is_refused_and_nothing_is_changed() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [2, 1])?;
    site.was.stop()?;
    let pod = &site.was.pods[0];
    let (right, link) = (pod.address(), host_link(pod));
    let inside = |from: &str, to: &str| {
        let script = format!("ip addr del {from}/32 dev eth0; ip addr add {to}/32 dev eth0");
        run_in(&pod.netns, &script)
    };
    let own = right.to_string();
    inside(&own, "10.0.77.7")?;
    let before = site.was.look(&site.node)?;
    let ended = site.node.run_daemon(&site.lab.sim.ec2_endpoint())?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let why = format!("routes {right} to {link}, but inside the pod");
    assert!(!ended.status.success() && said.contains(&why), "{said}");
    assert!(said.contains("10.0.77.7"), "{said}");
    assert_eq!(site.was.look(&site.node)?, before);
    // The route of a pod is lost: its own end tells the address.
    inside("10.0.77.7", &own)?;
    site.node.shell(&format!("ip route del {own} dev {link}"))?;
    site.take_over()?;
    site.is_ours()
}

fn pods_without_a_record_and_records_without_a_pod_are_told_apart() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [3, 1])?;
    site.was.stop()?;
    // The first one is in no checkpoint, and the second one has ended.
    site.was.edit(|entries| drop(entries.remove(0)))?;
    let ended = site.was.pods.remove(1);
    let resting = ended.address();
    site.node.end_pod(ended)?;
    site.take_over()?;
    let told = site.node.log();
    assert!(
        told.contains("a pod of the AWS VPC CNI is in no checkpoint"),
        "{told}"
    );
    let assigned = site.assigned()?;
    assert_eq!(assigned.len(), 3);
    assert!(!assigned.values().any(|address| *address == resting));
    let rules = site.node.shell("ip rule")?;
    assert!(!rules.contains(&resting.to_string()), "{rules}");
    // Its end is seen by its link.
    let unrecorded = site.was.pods.remove(0);
    let address = unrecorded.address();
    site.node.end_pod(unrecorded)?;
    let released = || {
        let assigned = site.assigned();
        assigned.is_ok_and(|all| !all.values().any(|other| *other == address))
    };
    assert!(eventually(LIMIT, released), "{}", site.node.log());
    site.delete_all()?;
    // No address is lost.
    assert!(eventually(LIMIT, || count(&site.node, "free").is_ok_and(|n| n > 0)));
    Ok(())
}

fn without_the_directory_pods_keep_their_rules() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [2, 1])?;
    site.was.stop()?;
    let right = site.was.directory.display().to_string();
    site.node
        .set("HAWSER_AWS_NODE_DIR", "/nonexistent/aws-node");
    site.node.start_daemon(&site.lab.sim.ec2_endpoint())?;
    let told = site.node.log();
    assert!(told.contains("its checkpoint is not there"), "{told}");
    for pod in &site.was.pods {
        assert!(ping(&pod.netns, None, site.far.address(), LIMIT)?.is_some());
    }
    let new = site.node.add_pod("new")?;
    assert!(!site.expected().values().any(|a| *a == new.address()));
    site.node.delete_pod(new)?;
    // Later on it is.
    site.node.stop_daemon()?;
    site.node.set("HAWSER_AWS_NODE_DIR", &right);
    site.take_over()?;
    site.is_ours()
}

fn the_plan_is_printed_without_a_change() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps, [2, 1])?;
    let before = site.was.look(&site.node)?;
    let ask = |site: &Site| -> io::Result<(String, bool)> {
        let endpoint = site.lab.sim.ec2_endpoint();
        let output = site.node.ask(&endpoint, &["takeover", "--dry-run"])?;
        let text = [output.stdout, output.stderr].concat();
        let success = output.status.success();
        Ok((String::from_utf8_lossy(&text).into_owned(), success))
    };
    let (text, success) = ask(&site)?;
    assert!(
        !success && text.contains("aws-node runs on this node"),
        "{text}"
    );
    site.was.stop()?;
    let (text, success) = ask(&site)?;
    assert!(success, "{text}");
    assert!(text.contains("pods: 3 recorded and alive"), "{text}");
    for pod in &site.was.pods {
        assert!(text.contains(&pod.address().to_string()), "{text}");
    }
    assert_eq!(site.was.look(&site.node)?, before);
    Ok(())
}
