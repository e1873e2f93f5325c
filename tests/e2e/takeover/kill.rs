//! SIGKILL at every effect of a takeover and of a handback: a repetition continues, and no pod notices.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Mutex,
    time::Duration,
};

use lab::{
    aws_node::{AwsNode, Kind, plugins_of},
    crash::{
        audit,
        campaign::Scenario,
        setup::Setup,
        tracer::{Boundary, Trace},
    },
    node::{Pod, plugin::Outcome as Answer},
    traffic::ping::ping,
    wait::eventually,
};
use vpc_sim::fabric::INTERNET_ADDRESS;

use crate::{
    suite::{Outcome, trials},
    support::campaign::{COOLDOWN, WORKERS, survive},
};

trials!(
    a_takeover_survives_a_kill_at_every_effect,
    a_handback_survives_a_kill_at_every_effect,
);

const REST: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(5);

/// A node of the AWS VPC CNI with two pods on each of two ENIs.
fn before_the_takeover() -> io::Result<(Setup, AwsNode)> {
    let settings = [
        ("MAX_ENI", "2"),
        ("WARM_IP_TARGET", "1"),
        COOLDOWN,
        ("DISABLE_NETWORK_RESOURCE_PROVISIONING", "true"),
    ];
    let mut setup = Setup::bare("m5.large", &settings)?;
    let was = AwsNode::build(&setup.lab, &mut setup.node, Kind::SecondaryIps, [2, 2])?;
    was.configure_network(&mut setup.node)?;
    Ok((setup, was))
}

/// The addresses of the node's ENIs that no pod has: nobody recorded when they were released.
fn resting(setup: &Setup) -> Vec<IpAddr> {
    let node = &setup.node.instance.id;
    let world = setup.lab.sim.world();
    let here = world.interfaces().filter(|eni| {
        let attachment = eni.attachment.as_ref();
        attachment.is_some_and(|attached| attached.instance == *node)
    });
    let addresses = here.flat_map(|eni| eni.ipv4.iter().skip(1).copied());
    let of_no_pod = |address: &IpAddr| setup.pods.iter().all(|pod| pod.address() != *address);
    addresses.map(IpAddr::from).filter(of_no_pod).collect()
}

/// Whether this is the first plugin of the network.
fn calls_first(setup: &Setup, plugin: &str) -> bool {
    let directory = setup.lab.dir().join(setup.node.instance.id.to_string());
    let plugins = plugins_of(&directory.join("aws-node"));
    plugins.is_ok_and(|plugins| plugins.first().is_some_and(|first| first == plugin))
}

/// Every pod reaches another node, that node reaches it, and it reaches the destinations `outside`.
fn reachable(setup: &Setup, pods: &[Pod], outside: &[Ipv4Addr]) -> io::Result<()> {
    let far = &setup.far;
    for pod in pods {
        let address = pod.address();
        let mut ways = vec![ping(far.netns(), None, address, SOON)?];
        for to in [&[far.instance.address], outside].concat() {
            ways.push(ping(&pod.netns, None, to, SOON)?);
        }
        if ways.iter().any(Option::is_none) {
            let state = "ip rule; ip route show table all; nft list ruleset";
            let (state, log) = (setup.node.shell(state)?, setup.node.log());
            return Err(io::Error::other(format!(
                "{address} is cut off: {ways:?}\n{state}\n{log}"
            )));
        }
    }
    Ok(())
}

struct Takeover;

impl Scenario for Takeover {
    fn setup(&self) -> io::Result<Setup> {
        let (mut setup, mut was) = before_the_takeover()?;
        was.stop()?;
        setup.pods = std::mem::take(&mut was.pods);
        Ok(setup)
    }

    fn strike(
        &self,
        setup: &mut Setup,
        at: Option<&Boundary>,
    ) -> io::Result<(Trace, Option<Answer>)> {
        let trace = setup.strike_start(
            at,
            |setup| self.done(setup),
            |setup| reachable(setup, &setup.pods, &[INTERNET_ADDRESS]),
        )?;
        Ok((trace, None))
    }

    fn done(&self, setup: &Setup) -> bool {
        setup.node.log().contains("\"ready\"") && calls_first(setup, "hawser")
    }

    fn judge(&self, setup: &mut Setup, _: Option<Answer>) -> io::Result<()> {
        reachable(setup, &setup.pods, &[INTERNET_ADDRESS])?;
        audit::at_rest(setup, &resting(setup), REST)?;
        let left = setup.node.shell("ip rule | grep -v 'proto 107'")?;
        let left: BTreeSet<&str> = left
            .lines()
            .filter_map(|line| line.split(':').next())
            .collect();
        if left != BTreeSet::from(["0", "32766", "32767"]) {
            return Err(io::Error::other(format!("rules are left: {left:?}")));
        }
        // By the key that the runtime knows.
        for pod in setup.pods.drain(..) {
            setup.node.delete_pod(pod)?;
        }
        Ok(())
    }
}

/// Nodes that were taken over, each with how it looked before, by the directory of its lab.
#[derive(Default)]
struct Handback(Mutex<BTreeMap<PathBuf, (AwsNode, BTreeSet<String>)>>);

impl Scenario for Handback {
    fn setup(&self) -> io::Result<Setup> {
        let (mut setup, mut was) = before_the_takeover()?;
        let before = was.look(&setup.node)?;
        was.stop()?;
        setup.start()?;
        // The daemon stores the list of ENIs a moment after it is ready, and a handback needs it.
        let endpoint = setup.lab.sim.ec2_endpoint();
        let dry_run = || setup.node.ask(&endpoint, &["handback", "--dry-run"]);
        if !eventually(REST, || dry_run().is_ok_and(|run| run.status.success())) {
            return Err(io::Error::other(format!("{:?}", dry_run()?)));
        }
        setup.node.stop_daemon()?;
        let directory = setup.lab.dir().to_owned();
        let mut nodes = self.0.lock().expect("no worker panics");
        nodes.insert(directory, (was, before));
        Ok(setup)
    }

    fn strike(
        &self,
        setup: &mut Setup,
        at: Option<&Boundary>,
    ) -> io::Result<(Trace, Option<Answer>)> {
        Ok((setup.strike_command(at, &["handback"])?, None))
    }

    fn done(&self, _: &Setup) -> bool {
        false
    }

    fn judge(&self, setup: &mut Setup, _: Option<Answer>) -> io::Result<()> {
        let nodes = self
            .0
            .lock()
            .expect("no worker panics")
            .remove(setup.lab.dir());
        let (mut was, before) = nodes.ok_or_else(|| io::Error::other("a node without a past"))?;
        // As the kill has left it. Pods on secondary ENIs may have to wait for the AWS VPC CNI's translation.
        reachable(setup, &was.pods, &[])?;
        let endpoint = setup.lab.sim.ec2_endpoint();
        let again = setup.node.ask(&endpoint, &["handback"])?;
        if !again.status.success() {
            return Err(io::Error::other(format!("{again:?}")));
        }
        let restored = was.start(&setup.lab, &setup.node)?;
        let kept: BTreeSet<_> = restored.kept.into_keys().collect();
        let expected: BTreeSet<_> = was.pods.iter().map(Pod::address).collect();
        let after = was.look(&setup.node)?;
        let differ: Vec<_> = after.symmetric_difference(&before).collect();
        if kept != expected || !differ.is_empty() {
            return Err(io::Error::other(format!(
                "{kept:?} of {expected:?}\n{differ:#?}"
            )));
        }
        if !calls_first(setup, "aws-cni") {
            return Err(io::Error::other(
                "the network configuration is not aws-node's",
            ));
        }
        reachable(setup, &was.pods, &[INTERNET_ADDRESS])
    }
}

fn a_takeover_survives_a_kill_at_every_effect() -> Outcome {
    survive("takeover", &Takeover, WORKERS)
}

fn a_handback_survives_a_kill_at_every_effect() -> Outcome {
    survive("handback", &Handback::default(), WORKERS)
}
