//! Checks what must be true after a crash: the live pods, the node's kernel, the daemon's view and EC2's ledger.
//!
//! Each check looks once; the caller repeats it until the node is at rest. The numbers are those of the invariants in
//! ARCHITECTURE.md.

use std::{collections::BTreeSet, io, net::IpAddr, time::Duration};

use datapath::{
    constants::{PODS_TABLE, RULE_ENI, is_egress},
    netlink::{
        self, Family, Socket,
        route::{LOCAL, MAIN},
    },
    nft::{Nft, PortEntry},
};
use proto::v1::Snapshot;
use vpc_sim::{
    fabric::{INTERNET_ADDRESS, INTERNET_ADDRESS_V6},
    world::model::NetworkInterface,
};

use super::setup::Setup;
use crate::{
    node::{Pod, host_link, inspect::inspect},
    traffic::ping::ping,
};

/// How long a ping is repeated before it counts as unanswered.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits until there are no errors, at most `limit`.
///
/// # Errors
/// The errors of the last check, with the daemon's log.
#[expect(clippy::disallowed_methods, reason = "the lab waits in real time")]
pub fn at_rest(setup: &Setup, resting: &[IpAddr], limit: Duration) -> io::Result<()> {
    let begun = std::time::Instant::now();
    loop {
        let wrong = look(setup, resting)?;
        if wrong.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > limit {
            let (wrong, log) = (wrong.join("\n"), setup.node.log());
            return Err(io::Error::other(format!("{wrong}\n{log}")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The current errors, one line each. `resting` are addresses of deleted pods, which must not be assigned yet.
///
/// # Errors
/// If a source cannot be read.
pub fn look(setup: &Setup, resting: &[IpAddr]) -> io::Result<Vec<String>> {
    let snapshot = inspect(&setup.node.socket())?;
    let mut wrong = kernel(setup)?;
    wrong.extend(ledger(setup, &snapshot));
    wrong.extend(states(setup, &snapshot, resting));
    if wrong.is_empty() {
        // Last, because a missing answer takes time.
        wrong.extend(datapath(setup)?);
        wrong.extend(delivery(setup)?);
    }
    Ok(wrong)
}

/// The differences of two sets that must be equal.
fn differ<T: Ord + std::fmt::Debug>(
    what: &str,
    found: &BTreeSet<T>,
    want: &BTreeSet<T>,
) -> Option<String> {
    let more: Vec<_> = found.difference(want).collect();
    let less: Vec<_> = want.difference(found).collect();
    (found != want).then(|| format!("{what}: unexpected {more:?}, missing {less:?}"))
}

fn addresses(pods: &[Pod]) -> BTreeSet<IpAddr> {
    pods.iter().map(Pod::address).collect()
}

/// I4, I7: links, routes and rules are those of the live pods and the attached ENIs.
fn kernel(setup: &Setup) -> io::Result<Vec<String>> {
    let (names, family) = (links(setup)?, setup.family);
    let (routes, rules) = setup
        .node
        .netns()
        .run(|| -> Result<_, netlink::Error> {
            let mut socket = Socket::open()?;
            Ok((socket.routes(family, None)?, socket.rules(family)?))
        })?
        .map_err(io::Error::other)?;
    let crossing = Socket::open_in(setup.node.netns())
        .and_then(|mut socket| socket.routes(other(family), Some(PODS_TABLE)));
    let crossing = crossing.map_err(io::Error::other)?.into_iter();
    let crossing: BTreeSet<IpAddr> = crossing.map(|route| route.dst.addr()).collect();
    let pods: BTreeSet<IpAddr> = routes
        .iter()
        .filter(|route| route.table == PODS_TABLE)
        .map(|route| route.dst.addr())
        .collect();
    let living = addresses(&setup.pods);
    let named: BTreeSet<String> = setup.pods.iter().map(host_link).collect();
    // Pods with IPv6 addresses use the node's own routes.
    let devices: BTreeSet<u32> = match family {
        Family::V4 => eni_tables(setup),
        Family::V6 => BTreeSet::new(),
    };
    let tables: BTreeSet<u32> = routes
        .iter()
        .map(|route| route.table)
        .filter(|table| ![PODS_TABLE, LOCAL, MAIN].contains(table))
        .collect();
    let marked: BTreeSet<u32> = rules
        .iter()
        .filter(|rule| rule.priority == RULE_ENI)
        .map(|rule| rule.table)
        .collect();
    let (inside, mut wrong) = egress(setup)?;
    let checks = [
        differ("host ports", &ports(setup)?, &asked(&setup.pods)),
        differ("pod links", &names, &named),
        differ("routes to pods", &pods, &living),
        differ("routes of the other family", &crossing, &inside),
        differ("ENI tables", &tables, &devices),
        differ("rules by mark", &marked, &devices),
    ];
    wrong.extend(checks.into_iter().flatten());
    Ok(wrong)
}

fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}

/// The live pods' addresses for destinations of the other family, and which pods do not have exactly as many as they should.
fn egress(setup: &Setup) -> io::Result<(BTreeSet<IpAddr>, Vec<String>)> {
    let (mut all, mut wrong) = (BTreeSet::new(), Vec::new());
    let family = other(setup.family);
    for pod in &setup.pods {
        let inside = Socket::open_in(&pod.netns).and_then(|mut s| s.addresses(family, None));
        let inside = inside.map_err(io::Error::other)?.into_iter();
        let inside: Vec<_> = inside
            .map(|a| a.address)
            .filter(|a| is_egress(*a))
            .collect();
        if inside.len() != usize::from(setup.crosses) {
            wrong.push(format!("{} has for the other family {inside:?}", pod.id));
        }
        all.extend(inside);
    }
    Ok((all, wrong))
}

/// The host ports that lead to a pod: `tcp 8080 10.0.0.5 80`, and the pods that reach their own ones: `10.0.0.5 itself`.
fn ports(setup: &Setup) -> io::Result<BTreeSet<String>> {
    let family = setup.family;
    let look = move || Nft::open()?.ports(family);
    let found = setup.node.netns().run(look)?.map_err(io::Error::other)?;
    let text = |entry: &PortEntry| match entry {
        PortEntry::Port(port, pod) => Some(format!(
            "{} {} {pod} {}",
            port.transport.name(),
            port.port,
            port.pod_port
        )),
        PortEntry::ToItself(pod) => Some(itself(*pod)),
        PortEntry::Service(_) => None,
    };
    Ok(found.unwrap_or_default().iter().filter_map(text).collect())
}

fn itself(pod: IpAddr) -> String {
    format!("{pod} itself")
}

/// The same as the pods asked for it.
fn asked(pods: &[Pod]) -> BTreeSet<String> {
    let of_pod = |pod: &Pod| {
        let mappings = pod.asked["portMappings"].as_array().cloned();
        let mappings = mappings.unwrap_or_default();
        let address = pod.address();
        let itself = (!mappings.is_empty()).then(|| itself(address));
        let ports = mappings.into_iter().map(move |port| {
            let protocol = port["protocol"].as_str().unwrap_or_default().to_owned();
            format!(
                "{protocol} {} {address} {}",
                port["hostPort"], port["containerPort"]
            )
        });
        ports.chain(itself)
    };
    pods.iter().flat_map(of_pod).collect()
}

/// The names of the existing pod links.
///
/// # Errors
/// If the kernel cannot be queried.
pub fn links(setup: &Setup) -> io::Result<BTreeSet<String>> {
    let links = setup.node.netns().run(|| Socket::open()?.links())?;
    let names = links
        .map_err(io::Error::other)?
        .into_iter()
        .map(|link| link.name);
    Ok(names.filter(|name| name.starts_with("eni")).collect())
}

/// ENIs that belong to this node in EC2: attached to it, or with its tag.
#[must_use]
pub fn enis(setup: &Setup) -> Vec<NetworkInterface> {
    let id = &setup.node.instance.id;
    let world = setup.lab.sim.world();
    let ours = |eni: &&NetworkInterface| {
        let here = eni.attachment.as_ref().is_some_and(|a| a.instance == *id);
        let tag = eni.tags.get("node.k8s.amazonaws.com/instance_id");
        here || tag.is_some_and(|tag| *tag == id.to_string())
    };
    world.interfaces().filter(ours).cloned().collect()
}

/// The route tables of the attached ENIs.
fn eni_tables(setup: &Setup) -> BTreeSet<u32> {
    let attached = enis(setup).into_iter().filter_map(|eni| eni.attachment);
    attached
        .map(|at| datapath::constants::eni_table(at.card, at.device))
        .collect()
}

/// I2, I4, I5: the daemon knows everything that EC2 has assigned to this node, and there are no unattached ENIs.
fn ledger(setup: &Setup, snapshot: &Snapshot) -> Vec<String> {
    let ec2 = enis(setup);
    let loose = ec2.iter().filter(|eni| eni.attachment.is_none());
    let mut wrong: Vec<String> = loose
        .map(|eni| format!("{} is unattached", eni.id))
        .collect();
    let listed: BTreeSet<String> = ec2.iter().map(|eni| eni.id.to_string()).collect();
    let known: BTreeSet<String> = snapshot.enis.iter().map(|eni| eni.id.clone()).collect();
    wrong.extend(differ("ENIs that the daemon knows", &known, &listed));
    let unready = snapshot.enis.iter().filter(|eni| eni.state != "ready");
    wrong.extend(unready.map(|eni| format!("{} is {}", eni.id, eni.state)));
    if setup.family == Family::V6 {
        // An IPv6 node has one prefix, whose addresses are too many for a list.
        return wrong;
    }
    let owned: BTreeSet<IpAddr> = ec2
        .iter()
        .flat_map(|eni| eni.ipv4.iter().skip(1).copied().map(IpAddr::V4))
        .collect();
    let held: BTreeSet<IpAddr> = views(snapshot).map(|(address, _)| address).collect();
    wrong.extend(differ("addresses that the daemon knows", &held, &owned));
    wrong
}

/// Every address in the daemon's view, with its state.
fn views(snapshot: &Snapshot) -> impl Iterator<Item = (IpAddr, &str)> {
    let all = snapshot.enis.iter().flat_map(|eni| &eni.addresses);
    all.filter_map(|view| {
        let octets = view.address.as_slice();
        let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
        let address = four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
        Some((address.ok()?, view.state.as_str()))
    })
}

/// I1, I3, I4: the live pods' addresses are assigned, those of deleted pods are in cooldown, and none is in between.
fn states(setup: &Setup, snapshot: &Snapshot, resting: &[IpAddr]) -> Vec<String> {
    let is = |state: &str| -> Vec<IpAddr> {
        let all = views(snapshot).filter(|(_, found)| *found == state);
        all.map(|(address, _)| address).collect()
    };
    let assigned = is("assigned");
    let different: BTreeSet<_> = assigned.iter().copied().collect();
    let mut wrong = Vec::new();
    if assigned.len() != different.len() {
        wrong.push(format!("I1: an address is assigned twice: {assigned:?}"));
    }
    wrong.extend(differ("assigned", &different, &addresses(&setup.pods)));
    for state in ["reserved", "quarantined", "releasing"] {
        let found = is(state);
        if !found.is_empty() {
            wrong.push(format!("{state}: {found:?}"));
        }
    }
    let cooling = is("cooling");
    let early = resting.iter().filter(|address| !cooling.contains(address));
    wrong.extend(early.map(|address| format!("I3: {address} is not in cooldown")));
    if snapshot.waiting > 0 {
        wrong.push(format!("{} ADDs wait", snapshot.waiting));
    }
    wrong
}

/// I6: CHECK, which compares record and kernel, finds no differences for any pod.
fn datapath(setup: &Setup) -> io::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for pod in &setup.pods {
        let check = setup
            .node
            .invocation("CHECK", &pod.id, Some(&pod.path))
            .conf("prevResult", pod.added.json.clone())
            .run(setup.node.netns())?;
        if !check.succeeded() {
            wrong.push(format!("CHECK {}: {}", pod.id, check.error_text()));
        }
    }
    Ok(wrong)
}

/// I2, I10: every pod is reachable from its node, from the other pods and from beyond the fabric, and reaches that. It
/// reaches the internet of the other family if it should.
fn delivery(setup: &Setup) -> io::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let instance = &setup.far.instance;
    let far = match (setup.family, instance.ipv6) {
        (Family::V6, Some(six)) => six.into(),
        _ => instance.address.into(),
    };
    let abroad = match setup.family {
        Family::V4 => IpAddr::from(INTERNET_ADDRESS_V6),
        Family::V6 => INTERNET_ADDRESS.into(),
    };
    for pod in &setup.pods {
        let mut pairs = vec![
            (setup.node.netns(), pod.address()),
            (setup.far.netns(), pod.address()),
            (&pod.netns, far),
        ];
        if setup.crosses {
            pairs.push((&pod.netns, abroad));
        }
        let others = setup.pods.iter().filter(|other| other.id != pod.id);
        pairs.extend(others.map(|other| (&pod.netns, other.address())));
        for (netns, to) in pairs {
            if ping(netns, None, to, PATIENCE)?.is_none() {
                wrong.push(format!("no answer from {to} (about pod {})", pod.id));
            }
        }
    }
    Ok(wrong)
}
