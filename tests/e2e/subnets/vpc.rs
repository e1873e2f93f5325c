//! A VPC with several subnets, and what EC2 knows of a node's ENIs in them.

use std::{collections::BTreeMap, io, thread, time::Duration};

use lab::{
    Lab, crash::clock_offset::ClockOffset, fakes::api_server::ApiServer, node::Node,
    wait::eventually,
};
use serde_json::json;
use vpc_sim::{
    SimConfig,
    ids::{GroupId, SubnetId},
};

use crate::{
    suite::Outcome,
    support::kubernetes::{NAME, serve},
};

pub const PATIENCE: Duration = Duration::from_secs(40);

/// A VPC whose first subnet is the nodes'.
pub struct Vpc {
    pub lab: Lab,
    /// The nodes' subnet first.
    pub subnets: Vec<SubnetId>,
}

impl Vpc {
    /// With further subnets of these sizes in a secondary block, in the zone of this letter.
    pub fn start(extras: &[(&str, char)]) -> Result<Self, Box<dyn std::error::Error>> {
        let lab = Lab::start(SimConfig::default())?;
        let mut subnets: Vec<_> = lab
            .sim
            .world()
            .first_subnet()
            .cloned()
            .into_iter()
            .collect();
        {
            let mut world = lab.sim.world();
            let vpc = world.vpcs().next().ok_or("no VPC")?.id.clone();
            assert!(world.associate_block(&vpc, "100.64.0.0/16".parse()?));
            for (cidr, zone) in extras {
                subnets.push(world.add_subnet(&vpc, cidr.parse()?, None, *zone));
            }
        }
        lab.sim.settle()?;
        Ok(Self { lab, subnets })
    }

    /// Sets a tag of a subnet.
    pub fn tag(
        &self,
        subnet: usize,
        key: &str,
        value: &str,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let now = self.lab.sim.now();
        let tags = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let id = [self.subnets[subnet].to_string()];
        self.lab.sim.world().create_tags(&id, &tags, now)?;
        Ok(())
    }

    /// The same for the tag that lets pods use a subnet.
    pub fn role(&self, subnet: usize, value: &str) -> Result<(), Box<dyn std::error::Error>> {
        self.tag(subnet, "kubernetes.io/role/cni", value)
    }

    /// A security group that lets nothing in.
    pub fn group(&self) -> io::Result<GroupId> {
        self.lab.group("pods", Vec::new())
    }

    /// The subnet of this address's ENI, by its number.
    pub fn subnet_of(&self, address: std::net::IpAddr) -> Option<usize> {
        let world = self.lab.sim.world();
        let subnet = &world.owner_of(address)?.subnet;
        self.subnets.iter().position(|known| known == subnet)
    }

    /// How many ENIs of the node there are in each subnet, the primary one included.
    pub fn enis(&self, node: &Node) -> BTreeMap<usize, usize> {
        let world = self.lab.sim.world();
        let mut counts = BTreeMap::new();
        for eni in world.interfaces() {
            let here = eni
                .attachment
                .as_ref()
                .is_some_and(|at| at.instance == node.instance.id);
            let subnet = self.subnets.iter().position(|known| *known == eni.subnet);
            if let Some(subnet) = subnet.filter(|_| here) {
                *counts.entry(subnet).or_default() += 1;
            }
        }
        counts
    }

    pub fn calls(&self, action: &str) -> usize {
        let calls = self.lab.sim.calls();
        calls.iter().filter(|call| call.action == action).count()
    }

    /// The calls in two hours of a node without anything to do.
    pub fn calls_of_two_idle_hours(
        &self,
        node: &Node,
        ahead: &mut ClockOffset,
    ) -> io::Result<Vec<String>> {
        const STEP: Duration = Duration::from_secs(600);
        let mut later = || {
            ahead.pass(node, STEP)?;
            // What is due by now is done by then.
            thread::sleep(Duration::from_millis(300));
            Ok::<_, io::Error>(())
        };
        // In the first minutes, a daemon looks for ENIs of its predecessor.
        later()?;
        later()?;
        self.lab.sim.clear_calls();
        (0..12).try_for_each(|_| later())?;
        let calls = self.lab.sim.calls();
        Ok(calls.into_iter().map(|call| call.action).collect())
    }

    /// A node in a cluster with custom networking, not started yet, and its API server. With `settings`.
    pub fn custom_node(
        &self,
        kind: &str,
        settings: &[(&str, &str)],
    ) -> Result<(Node, ApiServer), Box<dyn std::error::Error>> {
        let path = self.lab.dir().join("kubeconfig");
        let kubeconfig = path.display().to_string();
        let own = [
            ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true"),
            ("MY_NODE_NAME", NAME),
            ("KUBECONFIG", kubeconfig.as_str()),
            ("WARM_IP_TARGET", "1"),
            ("IP_COOLDOWN_PERIOD", "0"),
        ];
        let node = self.lab.bare_node(kind, &[&own[..], settings].concat())?;
        let server = serve(&node, "127.0.0.1:0")?;
        server.kubeconfig(&path)?;
        server.change(|node| {
            node["metadata"]["labels"] = json!({ "topology.kubernetes.io/zone": "us-west-2a" });
        });
        Ok((node, server))
    }
}

/// Waits until the daemon's `inspect` has this text.
pub fn shows(vpc: &Vpc, node: &Node, text: &str) -> Outcome {
    let mut last = String::new();
    let found = eventually(PATIENCE, || {
        let shown = node.ask(&vpc.lab.sim.ec2_endpoint(), &["inspect"]);
        last = shown.map_or_else(
            |error| error.to_string(),
            |shown| String::from_utf8_lossy(&shown.stdout).into_owned(),
        );
        last.contains(text)
    });
    match found {
        true => Ok(()),
        false => Err(format!("{text} is not in\n{last}\n{}", node.log()).into()),
    }
}
