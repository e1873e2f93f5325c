//! The real AWS VPC CNI: a real containerd starts pods through its plugins, the node is taken over and given back, and its own
//! daemon restores every pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use datapath::{netns::Netns, pod::upstream_host_name};
use lab::{
    Lab,
    aws_node::Kind,
    aws_vpc_cni::{self, AwsVpcCni},
    containerd::{CniDirs, Containerd, RuntimeError},
    error::with_causes,
    node::{Node, Pod, binaries, count, plugin::Outcome as Answer},
    traffic::ping::ping,
    wait::eventually,
};
use serde_json::{Value, json};
use vpc_sim::SimConfig;

use super::{back, flows::Flows};
use crate::{
    suite::{Outcome, trials},
    support::ipv6::SIX,
};

trials!(
    a_real_node_with_secondary_addresses_goes_forth_and_back,
    a_real_node_with_prefixes_goes_forth_and_back,
    a_real_node_of_ipv6_goes_forth_and_back,
    a_real_aws_node_does_not_serve_on_a_node_of_hawser,
);

const LIMIT: Duration = Duration::from_secs(60);
/// Of pods in the runtime.
const NAMESPACE: &str = "lab";
const COOLDOWN: (&str, &str) = ("IP_COOLDOWN_PERIOD", "5");

struct Site {
    lab: Lab,
    node: Node,
    upstream: AwsVpcCni,
    far: Pod,
    _elsewhere: Node,
    containerd: Containerd,
    conflist: PathBuf,
    /// By name.
    pods: BTreeMap<String, Pod>,
}

fn why(error: RuntimeError) -> io::Error {
    io::Error::other(with_causes(&error).to_string())
}

impl Site {
    fn build(kind: Kind) -> io::Result<Self> {
        let six = kind == Kind::Ipv6;
        let lab = Lab::start(match six {
            true => SimConfig::dual_stack(),
            false => SimConfig::default(),
        })?;
        let elsewhere = lab.node("t3.small", if six { &SIX } else { &[] })?;
        let far = elsewhere.add_pod("far")?;
        let cni = CniDirs::create(&lab.dir().join("cni")).map_err(why)?;
        fs::copy(binaries::plugin(), cni.bin.join("hawser"))?;
        let conflist = cni.conf.join("10-aws.conflist");
        let mut node = lab.bare_node("m5.large", &[COOLDOWN])?;
        for (name, value) in kind.settings() {
            node.set(name, value);
        }
        node.set("HAWSER_AWS_NODE_DIR", aws_vpc_cni::DIRECTORY);
        node.set("HOST_CNI_CONFDIR_PATH", &cni.conf.display().to_string());
        node.set("HOST_CNI_BIN_PATH", &cni.bin.display().to_string());
        let dir = lab.dir().join("containerd");
        let mut containerd = Containerd::start(&dir, Some(node.netns()), &cni).map_err(why)?;
        let mut upstream = AwsVpcCni::install(&lab, kind, &[COOLDOWN], cni)?;
        upstream.start(&lab, &node)?;
        containerd.wait_network_ready().map_err(why)?;
        Ok(Self {
            lab,
            node,
            upstream,
            far,
            _elsewhere: elsewhere,
            containerd,
            conflist,
            pods: BTreeMap::new(),
        })
    }

    /// Starts a pod as the kubelet does: again, if the plugin refuses.
    fn add(&mut self, name: &str) -> io::Result<()> {
        let mut last = None;
        let uid = format!("uid-{name}");
        eventually(LIMIT, || {
            let started = self.containerd.run_pod(name, &uid);
            let is_started = started.is_ok();
            last = Some(started);
            is_started
        });
        let started = last.ok_or_else(|| io::Error::other("it was not started"))?;
        let id = started
            .map_err(|e| io::Error::other(format!("{}\n{}", why(e), self.upstream.plugin_log())))?
            .id;
        let status = self.containerd.status(&id).map_err(why)?;
        let (Some(path), Some(ip)) = (status.netns_path, status.ip) else {
            return Err(io::Error::other(format!("{name} has no network")));
        };
        let length = if ip.is_ipv4() { 32 } else { 128 };
        let json = json!({
            "interfaces": [{ "name": upstream_host_name("eni", NAMESPACE, name) }],
            "ips": [{ "address": format!("{ip}/{length}"), "interface": 1 }],
        });
        let pod = Pod {
            id,
            netns: Netns::open(&path).map_err(io::Error::other)?,
            path,
            asked: Value::Null,
            added: Answer {
                code: Some(0),
                json,
                ..Answer::default()
            },
        };
        self.pods.insert(name.to_owned(), pod);
        Ok(())
    }

    fn add_all(&mut self, prefix: &str, how_many: usize) -> io::Result<()> {
        (0..how_many).try_for_each(|n| self.add(&format!("{prefix}-{n}")))
    }

    /// Deletes a pod as the kubelet does.
    fn delete(&mut self, name: &str) -> io::Result<()> {
        let pod = self.pods.remove(name);
        let id = pod.ok_or_else(|| io::Error::other(name.to_owned()))?.id;
        self.containerd.stop_pod(&id).map_err(why)?;
        self.containerd.remove_pod(&id).map_err(why)
    }

    fn dry_run(&self) -> io::Result<(bool, String)> {
        let endpoint = self.lab.sim.ec2_endpoint();
        let output = self.node.ask(&endpoint, &["takeover", "--dry-run"])?;
        let text = [output.stdout, output.stderr].concat();
        let success = output.status.success();
        Ok((success, String::from_utf8_lossy(&text).into_owned()))
    }

    fn take_over(&mut self) -> io::Result<()> {
        self.upstream.kill()?;
        self.node.start_daemon(&self.lab.sim.ec2_endpoint())?;
        let is_ours = || fs::read_to_string(&self.conflist).is_ok_and(|t| t.contains("hawser"));
        match eventually(LIMIT, is_ours) {
            true => Ok(()),
            false => Err(io::Error::other(self.node.log())),
        }
    }

    /// Returns how many pods its daemon has restored.
    fn give_back(&mut self, force: bool) -> io::Result<usize> {
        self.node.stop_daemon()?;
        let before = self.upstream.log().matches("\"Recovered ").count();
        let (lab, node, upstream) = (&self.lab, &self.node, &mut self.upstream);
        back::while_handing_back(node, &lab.sim.ec2_endpoint(), force, || {
            upstream.start(lab, node)
        })?;
        Ok(self.upstream.log().matches("\"Recovered ").count() - before)
    }

    /// Every pod has an address of its own, and packets go both ways.
    fn reach_all(&self) -> Outcome {
        for (name, pod) in &self.pods {
            let out = ping(&pod.netns, None, self.far.address(), LIMIT)?;
            let back = ping(&self.far.netns, None, pod.address(), LIMIT)?;
            assert!(out.is_some() && back.is_some(), "{name} is cut off");
        }
        let addresses: BTreeSet<IpAddr> = self.pods.values().map(Pod::address).collect();
        assert_eq!(addresses.len(), self.pods.len(), "an address twice");
        Ok(())
    }

    /// Another handle of a pod, for flows that go on while it is asked for.
    fn again(&self, name: &str) -> io::Result<Pod> {
        let pod = &self.pods[name];
        Ok(Pod {
            id: pod.id.clone(),
            netns: Netns::open(&pod.path).map_err(io::Error::other)?,
            path: pod.path.clone(),
            asked: Value::Null,
            added: pod.added.clone(),
        })
    }

    /// The number of chains and of leases that `egress-cni` has made and that are left.
    fn egress(&self) -> io::Result<[usize; 2]> {
        let chains = self.node.shell("iptables-nft-save -t nat")?;
        let chains = chains.lines().filter(|line| line.starts_with(":CNI-E4-"));
        let leases = fs::read_dir(LEASES)?.collect::<io::Result<Vec<_>>>()?;
        let leases = leases.iter().map(|lease| lease.file_name());
        let leases = leases.filter(|name| name.to_string_lossy().starts_with("169."));
        Ok([chains.count(), leases.count()])
    }

    /// What is left of pods when all are deleted.
    fn left(&self) -> io::Result<Vec<String>> {
        let mut left = self.containerd.leftovers().map_err(why)?;
        let shown = self.node.shell(
            "{ ip -o link; ip rule; ip -6 rule; ip route; ip -6 route; nft list ruleset; } | \
             grep ' eni[0-9a-f]\\{11\\}\\|512:\\|1536:' || true",
        )?;
        left.extend(shown.lines().map(str::to_owned));
        Ok(left)
    }
}

/// Of `egress-cni` on a node of IPv6.
const LEASES: &str = "/run/cni/v6pd/egress-v4-ipam/aws-cni";

fn forth_and_back(kind: Kind, pods: usize) -> Outcome {
    let mut site = Site::build(kind)?;
    site.add_all("old", pods)?;
    site.reach_all()?;
    let ends = [
        site.again("old-0")?,
        site.again(&format!("old-{}", pods - 1))?,
    ];
    let flows = Flows::start(&site.lab, &site.node, &ends, &site.far)?;
    let (success, said) = site.dry_run()?;
    assert!(!success && said.contains("aws-node runs"), "{said}");
    site.take_over()?;
    let adopted = || count(&site.node, "assigned").is_ok_and(|assigned| assigned == pods);
    assert!(eventually(LIMIT, adopted), "{}", site.node.log());
    site.reach_all()?;
    // Pods of the old plugin by the new one, and new ones beside them.
    site.delete("old-3")?;
    site.delete("old-4")?;
    site.add_all("new", 4)?;
    site.reach_all()?;
    // The runtime calls the old plugin for the old pods, so Hawser sees their end by their links.
    let released = || count(&site.node, "assigned").is_ok_and(|assigned| assigned == pods + 2);
    assert!(eventually(LIMIT, released), "{}", site.node.log());
    if kind == Kind::Ipv6 {
        let released = || site.egress().is_ok_and(|left| left == [pods - 2; 2]);
        assert!(eventually(2 * LIMIT, released), "{:?}", site.egress()?);
    }
    // On a node of IPv6, Hawser gives its pods IPv4 egress, which they lose.
    let restored = site.give_back(kind == Kind::Ipv6)?;
    assert_eq!(restored, pods + 2, "{}", site.upstream.log());
    site.reach_all()?;
    site.add_all("newer", 2)?;
    site.reach_all()?;
    flows.finish()?.judge(&format!("{kind:?}"), 2);
    drop(ends);
    let all: Vec<String> = site.pods.keys().cloned().collect();
    all.iter().try_for_each(|name| site.delete(name))?;
    let nothing = || site.left().is_ok_and(|left| left.is_empty());
    assert!(eventually(LIMIT, nothing), "{:#?}", site.left()?);
    if kind == Kind::Ipv6 {
        assert_eq!(site.egress()?, [0, 0]);
    }
    Ok(())
}

fn a_real_node_with_secondary_addresses_goes_forth_and_back() -> Outcome {
    forth_and_back(Kind::SecondaryIps, 20)
}

fn a_real_node_with_prefixes_goes_forth_and_back() -> Outcome {
    forth_and_back(Kind::Prefixes, 20)
}

fn a_real_node_of_ipv6_goes_forth_and_back() -> Outcome {
    forth_and_back(Kind::Ipv6, 8)
}

fn a_real_aws_node_does_not_serve_on_a_node_of_hawser() -> Outcome {
    let mut site = Site::build(Kind::SecondaryIps)?;
    site.add_all("old", 2)?;
    site.take_over()?;
    site.add_all("new", 2)?;
    let (lab, node) = (&site.lab, &site.node);
    let started = site.upstream.start(lab, node);
    let said = started.err().map(|error| error.to_string());
    let said = said.ok_or("two daemons serve one node")?;
    assert!(said.contains("this node is Hawser's"), "{said}");
    site.reach_all()?;
    site.add_all("newer", 1)?;
    site.reach_all()?;
    assert!(Path::new(aws_vpc_cni::DIRECTORY).join("ipam.json").exists());
    Ok(())
}
