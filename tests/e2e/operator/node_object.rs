//! What the daemon writes to its Node: conditions, events, and the end of the startup taint.

use std::{
    fs,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use lab::{Lab, fakes::api_server::ApiServer, node::Node, wait::eventually};
use serde_json::Value;
use vpc_sim::{Action, Fault, SimConfig};

use crate::{
    suite::{Outcome, trials},
    support::{
        kubernetes::{NAME, serve},
        refusals::{WANTS_NO_MORE, add_within},
    },
};

trials!(
    a_denied_action_is_a_condition_and_an_event,
    a_full_subnet_is_an_event_with_the_time_of_the_next_try,
    a_node_that_is_registered_anew_is_written_again,
    another_networks_configuration_that_comes_first_is_named,
    quick_changes_are_few_writes,
    the_startup_taint_stays_until_the_runtime_knows_of_the_network,
);

/// Two of the daemon's looks, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Not the chart's.
const TAINT: &str = "example.com/no-network-yet";
const NETWORK: &str = "NetworkUnavailable";
const PRESSURE: &str = "PodAddressPressure";

/// A node without a daemon, whose Node is registered with the startup taint.
struct Cluster {
    node: Node,
    server: ApiServer,
    /// The runtime's directory for network configurations. It does not exist yet.
    configurations: PathBuf,
    lab: Lab,
}

impl Cluster {
    fn new(settings: &[(&str, &str)]) -> std::io::Result<Self> {
        let lab = Lab::start(SimConfig::default())?;
        let (configurations, kubeconfig) = (lab.dir().join("net.d"), lab.dir().join("kubeconfig"));
        let [directory, file] =
            [&configurations, &kubeconfig].map(|path| path.display().to_string());
        let own = [
            ("MY_NODE_NAME", NAME),
            ("KUBECONFIG", &file),
            ("HOST_CNI_CONFDIR_PATH", &directory),
            ("HAWSER_NODE_CONDITIONS", "true"),
            ("HAWSER_NODE_EVENTS", "true"),
            ("HAWSER_STARTUP_TAINT", TAINT),
            ("IP_COOLDOWN_PERIOD", "0"),
        ];
        let node = lab.bare_node("t3.small", &[&own[..], settings].concat())?;
        let server = serve(&node, "127.0.0.1:0")?;
        server.kubeconfig(&kubeconfig)?;
        server.register("first", TAINT);
        Ok(Self {
            node,
            server,
            configurations,
            lab,
        })
    }

    /// With a daemon that has written all that it writes to a Node at first.
    fn started(settings: &[(&str, &str)]) -> Result<Self, Box<dyn std::error::Error>> {
        let mut cluster = Self::new(settings)?;
        fs::create_dir(&cluster.configurations)?;
        cluster.start()?;
        cluster.expect_serving();
        Ok(cluster)
    }

    fn start(&mut self) -> std::io::Result<()> {
        self.node.start_daemon(&self.lab.sim.ec2_endpoint())
    }

    fn taints(&self) -> Vec<String> {
        let node = self.server.node();
        let taints = node["spec"]["taints"].as_array();
        let keys = taints.into_iter().flatten();
        keys.filter_map(|taint| taint["key"].as_str().map(str::to_owned))
            .collect()
    }

    fn expect_serving(&self) {
        self.expect(NETWORK, "False", "HawserIsUp");
        self.expect(PRESSURE, "False", "AddressesAvailable");
        let removed = eventually(PATIENCE, || !self.taints().iter().any(|key| key == TAINT));
        assert!(removed, "{}\n{}", self.server.node(), self.node.log());
    }

    /// Waits for a condition.
    fn expect(&self, kind: &str, status: &str, reason: &str) {
        let wanted = Some((status.to_owned(), reason.to_owned()));
        let found = eventually(PATIENCE, || self.server.condition(kind) == wanted);
        let (node, log) = (self.server.node(), self.node.log());
        assert!(found, "{kind} is not {status} {reason}: {node}\n{log}");
    }

    fn message(&self, kind: &str) -> String {
        let node = self.server.node();
        let conditions = node["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let found = conditions.find(|condition| condition["type"] == kind);
        let message = found.and_then(|condition| condition["message"].as_str());
        message.unwrap_or_default().to_owned()
    }

    /// Waits for an event, and returns its message.
    fn event(&self, reason: &str) -> String {
        let find = || {
            let events = self.server.events();
            events.into_iter().find(|(found, _)| found == reason)
        };
        let found = eventually(PATIENCE, || find().is_some());
        assert!(found, "{:?}\n{}", self.server.events(), self.node.log());
        find().map(|(_, message)| message).unwrap_or_default()
    }

    /// Every address is in use, EC2 answers with `code`, and one more pod comes and goes.
    fn refused(code: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let cluster = Self::started(&[WANTS_NO_MORE])?;
        let create = Action::CreateNetworkInterface;
        let fault = Fault::error(create, u32::MAX, code);
        cluster.lab.sim.faults().push(fault);
        let pods: Vec<_> = (0..3)
            .map(|n| cluster.node.add_pod(&format!("pod{n}")))
            .collect::<Result<_, _>>()?;
        assert!(!add_within(&cluster.node, 3)?.succeeded());
        let told = cluster.server.condition(PRESSURE);
        assert_eq!(pods.len(), 3, "{told:?}");
        Ok(cluster)
    }
}

fn a_node_that_is_registered_anew_is_written_again() -> Outcome {
    let cluster = Cluster::started(&[])?;
    cluster.server.register("second", TAINT);
    cluster.expect_serving();
    Ok(())
}

fn the_startup_taint_stays_until_the_runtime_knows_of_the_network() -> Outcome {
    const OTHER: &str = "dedicated";
    let mut cluster = Cluster::new(&[])?;
    cluster.start()?;
    cluster.expect(NETWORK, "True", "HawserIsStarting");
    // The pool could serve.
    cluster.expect(PRESSURE, "False", "AddressesAvailable");
    cluster.server.change(|node| {
        let taints = node["spec"]["taints"].as_array_mut();
        let other = serde_json::json!({ "key": OTHER, "effect": "NoSchedule" });
        taints.into_iter().for_each(|all| all.push(other.clone()));
    });
    sleep(Duration::from_secs(6));
    assert_eq!(cluster.taints(), [TAINT, OTHER], "{}", cluster.node.log());
    fs::create_dir(&cluster.configurations)?;
    cluster.expect_serving();
    assert_eq!(cluster.taints(), [OTHER]);
    Ok(())
}

fn another_networks_configuration_that_comes_first_is_named() -> Outcome {
    let mut cluster = Cluster::new(&[])?;
    fs::create_dir(&cluster.configurations)?;
    let rival = cluster.configurations.join("05-other.conflist");
    fs::write(&rival, "{}")?;
    cluster.start()?;
    cluster.expect(NETWORK, "True", "AnotherNetworkIsFirst");
    let message = cluster.message(NETWORK);
    assert!(message.contains("05-other.conflist"), "{message}");
    assert_eq!(cluster.taints(), [TAINT]);
    fs::remove_file(&rival)?;
    cluster.expect_serving();
    // Later too: nobody need restart the daemon to see it.
    fs::write(&rival, "{}")?;
    cluster.expect(NETWORK, "True", "AnotherNetworkIsFirst");
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the daemon's period is in real time"
)]
fn quick_changes_are_few_writes() -> Outcome {
    const CHANGES: u32 = 20;
    const PERIOD: u64 = 5;
    let cluster = Cluster::started(&[("MAX_ENI", "1")])?;
    let node = &cluster.node;
    let kept = [node.add_pod("a")?, node.add_pod("b")?];
    let before = cluster.server.patches().len();
    let begun = Instant::now();
    for _ in 0..CHANGES / 2 {
        let last = node.add_pod("last")?;
        sleep(Duration::from_millis(500));
        node.delete_pod(last)?;
        sleep(Duration::from_millis(500));
    }
    let most = usize::try_from(begun.elapsed().as_secs() / PERIOD)? + 1;
    let patches = cluster.server.patches().split_off(before);
    assert!(patches.len() <= most, "{most}: {patches:?}");
    // The last state is written.
    let last = node.add_pod("last")?;
    cluster.expect(PRESSURE, "True", "PodLimitReached");
    node.delete_pod(last)?;
    cluster.expect(PRESSURE, "False", "AddressesAvailable");
    let all = cluster.server.patches();
    let of = |patch: &Value| patch["status"]["conditions"][0]["reason"] == "PodLimitReached";
    assert!(all.iter().any(of), "{all:?}");
    drop(kept);
    Ok(())
}

fn a_full_subnet_is_an_event_with_the_time_of_the_next_try() -> Outcome {
    let cluster = Cluster::refused("InsufficientFreeAddressesInSubnet")?;
    let told = cluster.event("SubnetExhausted");
    let subnet = cluster.lab.sim.world().first_subnet().cloned();
    let subnet = subnet.ok_or("no subnet")?;
    let wanted = format!("subnet {subnet} has no free address; EC2 is asked again at 20");
    assert!(told.starts_with(&wanted), "{told}");
    cluster.expect(PRESSURE, "True", "SubnetExhausted");
    cluster.lab.sim.faults().clear();
    // Nothing is warm, so the end of the pressure is an address for a pod that asks for one.
    cluster.node.add_pod("served")?;
    cluster.event("AddressesAvailable");
    cluster.expect(PRESSURE, "False", "AddressesAvailable");
    Ok(())
}

fn a_denied_action_is_a_condition_and_an_event() -> Outcome {
    let cluster = Cluster::refused("UnauthorizedOperation")?;
    let told = cluster.event("PermissionDenied");
    let wanted = "IAM denies ec2:CreateNetworkInterface; EC2 is asked again at 20";
    assert!(told.starts_with(wanted), "{told}");
    cluster.expect(PRESSURE, "True", "PermissionDenied");
    Ok(())
}
