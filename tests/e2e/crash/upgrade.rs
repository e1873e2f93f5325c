//! The real binaries of the previous release, replaced under live pods: its state file, links, rules and conflist are
//! taken over, packets continue, and its sandboxes can be checked and deleted.

use std::{fs, io, net::IpAddr, path::PathBuf, time::Duration};

use lab::{
    Lab,
    node::{Node, Pod, binaries::Release, count, inspect::inspect},
    traffic::ping::{ping, unanswered},
    wait::eventually,
};
use proto::address::ip;
use serde_json::Value;
use vpc_sim::SimConfig;

use crate::{
    suite::{Outcome, trials},
    support::{
        ipv6::{self, SIX},
        streams,
    },
};

trials!(
    an_upgrade_loses_no_packet_and_keeps_every_pod,
    an_upgrade_after_a_kill_loses_no_packet_and_keeps_every_pod,
    an_upgrade_of_an_ipv6_node_keeps_every_pod,
    the_previous_plugin_works_with_the_new_daemon,
);

const LIMIT: Duration = Duration::from_secs(20);

/// A node that runs the previous release, with pods that its plugin added: three on the primary ENI, two on another.
struct Before {
    lab: Lab,
    node: Node,
    pods: Vec<Pod>,
    /// A pod elsewhere in the VPC.
    far: Pod,
    _elsewhere: Node,
    conflist: PathBuf,
}

impl Before {
    fn start(lab: Lab, settings: &[(&str, &str)]) -> io::Result<Self> {
        let conf_dir = lab.dir().join("net.d");
        fs::create_dir_all(&conf_dir)?;
        let shown = conf_dir.display().to_string();
        let settings = [settings, &[("HOST_CNI_CONFDIR_PATH", &*shown)]].concat();
        let mut node = lab.bare_node("t3.small", &settings)?;
        node.set_release(Release::Previous);
        node.start_daemon(&lab.sim.ec2_endpoint())?;
        let pods = (0..5).map(|n| node.add_pod(&format!("old{n}")));
        let pods = pods.collect::<io::Result<Vec<_>>>()?;
        let elsewhere = lab.node("t3.small", &settings[..settings.len() - 1])?;
        let far = elsewhere.add_pod("far")?;
        let conflist = conf_dir.join("10-hawser.conflist");
        if !eventually(LIMIT, || conflist.exists()) {
            return Err(io::Error::other(format!("no conflist\n{}", node.log())));
        }
        Ok(Self {
            lab,
            node,
            pods,
            far,
            _elsewhere: elsewhere,
            conflist,
        })
    }

    /// Starts this checkout's daemon in place of the previous one, and waits until it has compared itself with EC2.
    fn upgrade(&mut self) -> io::Result<()> {
        self.node.set_release(Release::Current);
        self.lab.sim.clear_calls();
        self.node.start_daemon(&self.lab.sim.ec2_endpoint())?;
        let asked = || !self.lab.sim.calls().is_empty();
        if !eventually(LIMIT, asked) {
            return Err(io::Error::other(format!(
                "the new daemon never asked EC2\n{}",
                self.node.log()
            )));
        }
        Ok(())
    }

    /// Each address of a pod is assigned to the same sandbox as before the upgrade.
    fn expect_all_known(&self) -> io::Result<()> {
        let all = self.pods.len();
        let known = || count(&self.node, "assigned").is_ok_and(|n| n == all);
        assert!(eventually(LIMIT, known), "{}", self.node.log());
        let snapshot = inspect(&self.node.socket())?;
        for pod in &self.pods {
            let addresses = snapshot.enis.iter().flat_map(|eni| &eni.addresses);
            let own = addresses
                .filter(|address| {
                    ip("address", &address.address).is_ok_and(|ip| ip == pod.address())
                })
                .filter_map(|address| address.sandbox.as_ref())
                .map(|sandbox| sandbox.container_id.as_str());
            assert_eq!(own.collect::<Vec<_>>(), [&*pod.id], "{}", self.node.log());
        }
        Ok(())
    }

    /// What a runtime does with the old sandboxes after an upgrade, and that the node then serves new ones.
    fn expect_normal_life(self) -> Outcome {
        let Self {
            lab: _lab,
            node,
            pods,
            far,
            conflist,
            ..
        } = self;
        assert!(!conflist.exists(), "the previous release's file is gone");
        let written = fs::read(conflist.with_file_name("10-aws.conflist"))?;
        let written: Value = serde_json::from_slice(&written)?;
        assert_eq!(written["name"], "aws-cni", "{written}");
        assert_eq!(written["plugins"][0]["type"], "hawser", "{written}");
        for pod in &pods {
            let check = node.invocation("CHECK", &pod.id, Some(&pod.path));
            let checked = check
                .conf("prevResult", pod.added.json.clone())
                .run(node.netns())?;
            assert!(
                checked.succeeded(),
                "{}: {checked:?}\n{}",
                pod.id,
                node.log()
            );
        }
        let gone: Vec<IpAddr> = pods.iter().map(Pod::address).collect();
        for pod in pods {
            node.delete_pod(pod)?;
        }
        let none = || count(&node, "assigned").is_ok_and(|n| n == 0);
        assert!(eventually(LIMIT, none), "{}", node.log());
        // Links are removed after the answer, those of earlier DELs too.
        let removed = || {
            node.shell("ip -o link")
                .is_ok_and(|links| !links.contains(": eni"))
        };
        assert!(eventually(LIMIT, removed), "{}", node.shell("ip -o link")?);
        for address in gone {
            let answer = ping(node.netns(), None, address, Duration::from_millis(300))?;
            assert!(answer.is_none(), "{address} still answers");
        }
        let new = (0..3).map(|n| node.add_pod(&format!("new{n}")));
        let new = new.collect::<io::Result<Vec<_>>>()?;
        assert_eq!(unanswered(&new, &new)?, []);
        assert_eq!(unanswered(&new, std::slice::from_ref(&far))?, []);
        Ok(())
    }
}

fn an_upgrade_loses_no_packet_and_keeps_every_pod() -> Outcome {
    upgrade_under_traffic(|node| match node.stop_daemon()? {
        true => Ok(()),
        false => Err(io::Error::other(node.log())),
    })
}

fn an_upgrade_after_a_kill_loses_no_packet_and_keeps_every_pod() -> Outcome {
    upgrade_under_traffic(Node::kill_daemon)
}

fn upgrade_under_traffic(end: impl FnOnce(&mut Node) -> io::Result<()>) -> Outcome {
    let mut before = Before::start(Lab::start(SimConfig::default())?, &[])?;
    let streams = streams::start(&before.node, &before.pods, &before.far)?;
    std::thread::sleep(Duration::from_millis(500));
    end(&mut before.node)?;
    std::thread::sleep(Duration::from_millis(300));
    before.upgrade()?;
    before.expect_all_known()?;
    // The difference to what the new daemon wants is applied at once, a sweep comes within seconds.
    std::thread::sleep(Duration::from_secs(2));
    streams::finish(streams, &before.node)?;
    before.expect_normal_life()
}

fn an_upgrade_of_an_ipv6_node_keeps_every_pod() -> Outcome {
    let mut before = Before::start(ipv6::start()?, &SIX)?;
    assert!(before.node.stop_daemon()?, "{}", before.node.log());
    before.upgrade()?;
    before.expect_all_known()?;
    assert_eq!(
        unanswered(&before.pods, std::slice::from_ref(&before.far))?,
        []
    );
    assert_eq!(
        unanswered(std::slice::from_ref(&before.far), &before.pods)?,
        []
    );
    before.expect_normal_life()
}

/// The files of a node are replaced one after the other: runtimes execute the old plugin for a while.
fn the_previous_plugin_works_with_the_new_daemon() -> Outcome {
    let mut before = Before::start(Lab::start(SimConfig::default())?, &[])?;
    assert!(before.node.stop_daemon()?, "{}", before.node.log());
    before.upgrade()?;
    before.node.set_release(Release::Previous);
    let pod = before.node.add_pod("between")?;
    let check = before.node.invocation("CHECK", &pod.id, Some(&pod.path));
    let checked = check
        .conf("prevResult", pod.added.json.clone())
        .run(before.node.netns())?;
    assert!(checked.succeeded(), "{checked:?}\n{}", before.node.log());
    before.node.delete_pod(pod)?;
    let old = before.pods.pop().ok_or("no pod")?;
    before.node.delete_pod(old)?;
    before.expect_all_known()?;
    before.node.set_release(Release::Current);
    before.expect_normal_life()
}
