//! A node with traffic that is damaged, for the repair tests of both address families.
//!
//! Owns the traffic and the wait until the node is restored. The test defines the damage and the expected state.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use lab::{
    Lab,
    node::{Node, Pod},
    traffic::ping::ping,
    wait::eventually,
};

use serde_json::json;
use vpc_sim::SimConfig;

use crate::suite::Outcome;

/// Generous, because the machine may be busy. The actual time is printed.
pub const LIMIT: Duration = Duration::from_secs(20);

/// What an operator would check, without counters and the ages of learned neighbours.
const STATE: &str = "ip rule | sort; ip -4 route show table all | sort; ip -4 neigh show nud permanent | sort; \
    ip -o -4 addr show dev eth1 | cut -d'\\' -f1; nft list table ip hawser | sort; nft list table ip hawser_ports | sort; nft list table ip6 hawser; ip -o link | sed 's/ qlen [0-9]*//'; \
    cd /proc/sys/net/ipv4; cat ip_forward; \
    for d in conf/e*; do echo $d $(cat $d/rp_filter $d/forwarding $d/accept_redirects $d/route_localnet); done";

/// A node with pods that send traffic to another host.
pub struct DamagedNode {
    pub lab: Lab,
    pub node: Node,
    pub pods: Vec<Pod>,
    /// The ones with traffic.
    pub talking: [usize; 2],
    /// The host with the target.
    pub _elsewhere: Node,
    pub target: Pod,
    /// The command that prints the state to be restored.
    pub state: &'static str,
}

impl DamagedNode {
    /// One of the two pods with traffic is on the primary ENI, the other on a secondary one. All have host ports.
    pub fn ipv4() -> io::Result<Self> {
        let lab = Lab::start(SimConfig::default())?;
        // Two ENIs, and no third one during the test.
        let two = [("MAX_ENI", "2")];
        let (node, elsewhere) = (lab.node("t3.small", &two)?, lab.node("t3.small", &two)?);
        let target = elsewhere.add_pod("target")?;
        // Three addresses on the primary ENI, so the fourth pod is on another one.
        let asking = |n| json!({ "portMappings": [{ "hostPort": 8000 + n, "containerPort": 80, "protocol": "tcp" }] });
        let pods = (0..4).map(|n| node.add_pod_asking(&format!("pod{n}"), &asking(n)));
        let pods = pods.collect::<io::Result<Vec<_>>>()?;
        let damaged = Self {
            lab,
            node,
            pods,
            talking: [0, 3],
            _elsewhere: elsewhere,
            target,
            state: STATE,
        };
        damaged.talks()?;
        Ok(damaged)
    }

    pub fn owner(&self, pod: &Pod) -> String {
        let world = self.lab.sim.world();
        let owner = world.owner_of(pod.address());
        owner.map_or_else(String::new, |eni| eni.id.to_string())
    }

    pub fn talks(&self) -> io::Result<()> {
        for pod in self.talking.map(|n| &self.pods[n]) {
            let answer = ping(&pod.netns, None, self.target.address(), LIMIT)?;
            assert!(answer.is_some(), "{}", self.node.log());
        }
        Ok(())
    }

    pub fn describe(&self) -> io::Result<String> {
        self.node.shell(self.state)
    }

    pub fn repairs(&self, kind: &str) -> io::Result<u64> {
        let name = format!("hawser_repairs_total{{kind=\"{kind}\"}}");
        self.node.metric(&name)
    }

    /// Damages the node while pods send traffic; returns how long the repair took.
    #[expect(clippy::disallowed_methods, reason = "the lab measures real time")]
    pub fn damage(&self, how: &str, right: &str) -> io::Result<Duration> {
        let (stop, answered) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 2]);
        std::thread::scope(|scope| {
            let talking = self.talking.map(|n| &self.pods[n]);
            for (pod, answered) in talking.into_iter().zip(&answered) {
                let (stop, target) = (&stop, self.target.address());
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        if let Ok(Some(_)) =
                            ping(&pod.netns, None, target, Duration::from_millis(250))
                        {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                });
            }
            let took = self.node.shell(how).map(|_| {
                let begun = Instant::now();
                let whole = || self.describe().is_ok_and(|now| now == right);
                eventually(LIMIT, whole).then(|| begun.elapsed())
            });
            let at_repair: Vec<u64> = answered.iter().map(|n| n.load(Ordering::Relaxed)).collect();
            let flows = || {
                let now = answered.iter().map(|n| n.load(Ordering::Relaxed));
                now.zip(&at_repair).all(|(now, then)| now >= then + 3)
            };
            let flowed = eventually(LIMIT, flows);
            stop.store(true, Ordering::Relaxed);
            let took = took?.ok_or_else(|| self.not_whole(how, right))?;
            assert!(flowed, "no traffic after {how}\n{}", self.node.log());
            Ok(took)
        })
    }

    fn not_whole(&self, how: &str, right: &str) -> io::Error {
        let now = self.describe().unwrap_or_default();
        io::Error::other(format!(
            "not whole after {how}\nwas:\n{right}\nis:\n{now}\n{}",
            self.node.log()
        ))
    }
}

/// Each damage is undone and counted by the expected kind, and the log stays short.
pub fn one_by_one(damaged: &DamagedNode, damage: &[(&str, &str)]) -> Outcome {
    let right = damaged.describe()?;
    for (kind, how) in damage {
        let before = damaged.repairs(kind)?;
        let took = damaged.damage(how, &right)?;
        let repairs = damaged.repairs(kind)? - before;
        stdout::errln!("{kind}: whole after {took:?}, {repairs} changes ({how})");
        assert!(repairs > 0, "no {kind} was counted after {how}");
    }
    // Each kind is logged when it is new.
    let told = damaged
        .node
        .log()
        .matches("repaired the node's network")
        .count();
    assert!((1..=damage.len()).contains(&told), "{}", damaged.node.log());
    Ok(())
}
