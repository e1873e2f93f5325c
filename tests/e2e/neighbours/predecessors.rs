//! Network plugins that were on the node before, or still are: the AWS VPC CNI, and Cilium with its own ENIs.

use std::{
    io,
    net::{IpAddr, TcpListener},
    os::unix::net::UnixListener,
    time::Duration,
};

use lab::{
    Lab,
    node::{Node, inspect::inspect},
    traffic::ping::ping,
    wait::eventually,
};
use proto::v1;
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    case_25_rules_that_aws_node_left_are_removed_before_a_pod_gets_their_address,
    what_seems_to_belong_to_a_pod_of_aws_node_keeps_its_address_from_others,
    case_25_a_rule_that_comes_later_keeps_free_addresses_from_pods_until_it_goes,
    a_running_aws_node_is_named_and_the_daemon_does_not_start,
    an_old_aws_node_is_known_by_its_ports_and_another_program_on_one_of_them_is_not,
    an_aws_node_that_has_closed_its_socket_and_still_runs_is_named,
    cilium_in_eni_mode_is_named_and_a_chained_one_is_normal,
);

/// More than the daemon's round.
const LIMIT: Duration = Duration::from_secs(90);
/// Two ENIs with three addresses each, all of them free.
const SETTINGS: [(&str, &str); 2] = [("WARM_IP_TARGET", "6"), ("MAX_ENI", "2")];

/// A node with free addresses, and another one with a pod that pods of the first one talk to.
struct Pair {
    lab: Lab,
    node: Node,
    far: lab::node::Pod,
    _elsewhere: Node,
}

impl Pair {
    fn start() -> io::Result<Self> {
        let lab = Lab::start(SimConfig::default())?;
        let node = lab.node("t3.small", &SETTINGS)?;
        let elsewhere = lab.node("t3.small", &[])?;
        let far = elsewhere.add_pod("far")?;
        let pair = Self {
            lab,
            node,
            far,
            _elsewhere: elsewhere,
        };
        match eventually(LIMIT, || pair.free().len() == 6) {
            true => Ok(pair),
            false => Err(io::Error::other(pair.node.log())),
        }
    }

    fn free(&self) -> Vec<IpAddr> {
        let all = addresses(&self.node).unwrap_or_default();
        let free = all.iter().filter(|(_, view)| view.state == "free");
        free.map(|(address, _)| *address).collect()
    }

    /// Restarts the daemon; in between, `left` is done on a node without rules of Hawser.
    fn restart_after(&mut self, left: &str) -> io::Result<()> {
        self.node.stop_daemon()?;
        self.node
            .shell(&format!("ip rule flush protocol 107; {left}"))?;
        self.node.start_daemon(&self.lab.sim.ec2_endpoint())
    }

    /// Whether the pool has `address` in `state`, kept by a rule of this priority.
    fn seen(&self, address: IpAddr, state: &str, rule: u32) -> bool {
        addresses(&self.node).is_ok_and(|all| {
            all.iter().any(|(own, view)| {
                *own == address && view.state == state && view.foreign_rule == rule
            })
        })
    }

    /// Adds pods, each of which must reach the other node's and be reached by it. Returns their addresses.
    fn pods(&self, names: &[&str]) -> io::Result<Vec<IpAddr>> {
        let one = |name: &&str| {
            let pod = self.node.add_pod(name)?;
            let out = ping(&pod.netns, None, self.far.address(), LIMIT)?;
            let back = ping(&self.far.netns, None, pod.address(), LIMIT)?;
            if out.is_none() || back.is_none() {
                let state = self.node.shell("ip rule; ip route show table all")?;
                let address = pod.address();
                return Err(io::Error::other(format!(
                    "{name} with {address}: out {out:?}, back {back:?}\n{state}\n{}",
                    self.node.log()
                )));
            }
            Ok(pod.address())
        };
        names.iter().map(one).collect()
    }

    /// No pod gets `address`, although nothing else is left.
    fn keeps(&self, address: IpAddr) -> Outcome {
        assert!(!self.pods(&["a", "b", "c", "d", "e"])?.contains(&address));
        let (_netns, path) = self.node.sandbox("f")?;
        let add = self.node.invocation("ADD", "f", Some(&path));
        let add = add.conf("deadlineSeconds", serde_json::json!(2));
        // A daemon that was just started names EC2's list first, which it does not have yet.
        let told = || {
            let refused = add.run(self.node.netns());
            refused.is_ok_and(|refused| {
                let text = refused.error_text();
                !refused.succeeded() && text.contains("1 addresses are kept from pods by the host")
            })
        };
        assert!(eventually(LIMIT, told), "{}", self.node.log());
        let shown = self.node.ask(&self.lab.sim.ec2_endpoint(), &["inspect"])?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(
            shown.contains("of another program decides its way"),
            "{shown}"
        );
        Ok(())
    }
}

fn addresses(node: &Node) -> io::Result<Vec<(IpAddr, v1::Address)>> {
    let snapshot = inspect(&node.socket())?;
    let all = snapshot.enis.into_iter().flat_map(|eni| eni.addresses);
    let read = |address: v1::Address| {
        let four = <[u8; 4]>::try_from(address.address.as_slice()).ok()?;
        Some((IpAddr::from(four), address))
    };
    Ok(all.filter_map(read).collect())
}

fn case_25_rules_that_aws_node_left_are_removed_before_a_pod_gets_their_address() -> Outcome {
    let mut pair = Pair::start()?;
    let mut free = pair.free();
    free.sort();
    let each = free.iter().map(|address| {
        format!(
            "ip rule add to {address} pref 512 lookup main; ip rule add from {address} pref 1536 lookup 3; "
        )
    });
    // The table of an ENI that is gone.
    let table =
        "ip route add default dev lo table 3; ip rule add fwmark 0x80/0x80 pref 1024 lookup main";
    pair.restart_after(&(each.collect::<String>() + table))?;
    let left = pair.node.shell("ip rule | grep -v 'proto 107'")?;
    assert!(
        !left.contains("lookup 3") && !left.contains("512:"),
        "{left}"
    );
    let told = pair.node.log();
    assert_eq!(
        told.matches("removed what a predecessor left behind")
            .count(),
        13,
        "{told}"
    );
    let mut given = pair.pods(&["a", "b", "c", "d", "e", "f"])?;
    given.sort();
    assert_eq!(given, free, "on both ENIs");
    Ok(())
}

fn what_seems_to_belong_to_a_pod_of_aws_node_keeps_its_address_from_others() -> Outcome {
    let mut pair = Pair::start()?;
    let address = pair.free()[0];
    pair.restart_after(&format!(
        "ip link add eni0123456789a up type veth peer name p; ip link set p up; \
         ip route add {address} dev eni0123456789a scope link; ip rule add to {address} pref 512 lookup main"
    ))?;
    assert!(
        pair.seen(address, "quarantined", 512),
        "{}",
        pair.node.log()
    );
    assert!(
        pair.node
            .log()
            .contains("an ip rule of another program decides the way")
    );
    pair.keeps(address)?;
    pair.node.shell(&format!(
        "ip link del eni0123456789a; ip rule del to {address} pref 512"
    ))?;
    assert!(eventually(LIMIT, || pair.seen(address, "free", 0)));
    assert_eq!(pair.pods(&["g"])?, [address]);
    Ok(())
}

fn case_25_a_rule_that_comes_later_keeps_free_addresses_from_pods_until_it_goes() -> Outcome {
    let pair = Pair::start()?;
    let address = pair.free()[5];
    pair.node
        .shell(&format!("ip rule add to {address} pref 100 lookup main"))?;
    assert!(eventually(LIMIT, || pair.seen(address, "quarantined", 100)));
    pair.keeps(address)?;
    pair.node.shell("ip rule del pref 100")?;
    assert!(eventually(LIMIT, || pair.seen(address, "free", 0)));
    assert_eq!(pair.pods(&["g"])?, [address]);
    // Under a pod: it is told, and the address gets no other pod.
    pair.node
        .shell(&format!("ip rule add from {address} pref 100 lookup main"))?;
    assert!(eventually(LIMIT, || pair.seen(address, "assigned", 100)));
    pair.node.shell("ip rule del pref 100")?;
    assert!(eventually(LIMIT, || pair.seen(address, "assigned", 0)));
    Ok(())
}

/// A program that listens at `<dir>/<path>` in the node's namespace.
fn listening(lab: &Lab, node: &Node, path: &str) -> io::Result<UnixListener> {
    let path = lab.dir().join(path);
    std::fs::create_dir_all(path.parent().unwrap_or(lab.dir()))?;
    node.netns().run(move || UnixListener::bind(path))?
}

fn listen(node: &Node, at: &'static str) -> io::Result<TcpListener> {
    node.netns().run(move || TcpListener::bind(at))?
}

fn refuses(lab: &Lab, node: &mut Node, why: &str) -> Outcome {
    let ended = node.run_daemon(&lab.sim.ec2_endpoint())?;
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && said.contains(why), "{ended:?}");
    Ok(())
}

fn a_running_aws_node_is_named_and_the_daemon_does_not_start() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.bare_node("t3.small", &[])?;
    let aws_node = listening(&lab, &node, "aws-node/ipamd.sock")?;
    refuses(&lab, &mut node, "aws-node runs on this node")?;
    assert!(!node.shell("ip rule")?.contains("proto 107"));
    drop(aws_node);
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    node.add_pod("a")?;
    Ok(())
}

/// Before version 1.23, it listened on ports. Many programs listen on 50051 of all addresses.
fn an_old_aws_node_is_known_by_its_ports_and_another_program_on_one_of_them_is_not() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.bare_node("t3.small", &[])?;
    let its_introspection = listen(&node, "127.0.0.1:61679")?;
    let old = listen(&node, "127.0.0.1:50051")?;
    refuses(&lab, &mut node, "it listens at 127.0.0.1:50051")?;
    drop((old, its_introspection));
    let _another = listen(&node, "0.0.0.0:50051")?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    node.add_pod("a")?;
    Ok(())
}

/// On a real node, a daemon was seen to run for minutes after SIGTERM, beside its successor.
fn an_aws_node_that_has_closed_its_socket_and_still_runs_is_named() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.bare_node("t3.small", &[])?;
    for (at, seen) in [
        ("127.0.0.1:61679", "it listens on port 61679"),
        ("0.0.0.0:61678", "it listens on port 61678"),
    ] {
        let its = listen(&node, at)?;
        refuses(&lab, &mut node, seen)?;
        assert!(!node.shell("ip rule")?.contains("proto 107"));
        drop(its);
    }
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    // Now these ports are Hawser's.
    let asked = node.ask(&lab.sim.ec2_endpoint(), &["takeover", "--dry-run"])?;
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(asked.status.success(), "{said}");
    node.kill_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())
        .map_err(Into::into)
}

fn cilium_in_eni_mode_is_named_and_a_chained_one_is_normal() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.bare_node("t3.small", &[])?;
    let _agent = listening(&lab, &node, "cilium/cilium.sock")?;
    node.shell(
        "ip link add lxc_health up type veth peer name p; ip link set p up; ip route add 10.0.3.9 dev lxc_health; \
         ip rule add to 10.0.3.9 pref 20 lookup main proto kernel; \
         ip rule add from 10.0.3.9 to 10.0.0.0/16 pref 111 lookup 11 proto kernel",
    )?;
    refuses(&lab, &mut node, "Cilium runs on this node in ENI mode")?;
    node.shell("ip link del lxc_health")?;
    // Chained behind Hawser it has links of its own, and rules for its proxy.
    node.shell(
        "ip link add cilium_net type veth peer name cilium_host; ip addr add 10.0.200.1/32 dev cilium_host; \
         ip link add lxc_health up type veth peer name p; \
         ip rule add pref 9 fwmark 0x200/0xf00 lookup 2004; ip rule del pref 0; ip rule add pref 100 lookup local",
    )?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let (a, b) = (node.add_pod("a")?, node.add_pod("b")?);
    assert!(ping(&a.netns, None, b.address(), LIMIT)?.is_some());
    // While an agent runs, what looks like its rules stays.
    assert!(node.shell("ip rule")?.contains("111:"), "{}", node.log());
    Ok(())
}
