//! A node of the AWS VPC CNI 1.23, built with its objects as they were recorded on real nodes, and a model of what its daemon
//! does at a start: the chains, the ENIs, and which pods of its checkpoint it keeps.
//!
//! Owns the recorded shapes. May use `node` and the VPC. Must not know Hawser.

mod objects;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::{fd::AsFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::Command,
};

use datapath::{
    netlink::{Socket, link},
    netns::Netns,
    pod::upstream_host_name,
};
use serde_json::{Value, json};
use vpc_sim::{
    ids::EniId,
    world::request::{
        AssignPrivateIpAddresses, AttachNetworkInterface, CreateNetworkInterface, Pick,
    },
};

use self::objects::{CONFLIST, CONNMARK, INSIDE, LOOK, MARKS, OWN_TABLE, SERVICES, SNAT};
use super::Lab;
use crate::{
    error::with_causes,
    node::{Node, Pod, plugin::Outcome},
};

/// The settings of the AWS VPC CNI that change what a node looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Secondary addresses on the primary and on a second ENI.
    SecondaryIps,
    /// The same with a /28 prefix on each.
    Prefixes,
    /// Pods keep their address on the way out of the VPC.
    ExternalSnat,
    /// Another mark, another prefix of links, and services outside the VPC.
    Customised,
    /// Chains in tables of the older iptables.
    LegacyIptables,
    /// Addresses of a /80 prefix on the primary ENI.
    Ipv6,
}

impl Kind {
    /// The settings of both programs.
    #[must_use]
    pub fn settings(self) -> Vec<(&'static str, &'static str)> {
        let own: &[(&str, &str)] = match self {
            Self::SecondaryIps | Self::LegacyIptables => &[],
            Self::Prefixes => &[("ENABLE_PREFIX_DELEGATION", "true")],
            Self::ExternalSnat => &[("AWS_VPC_K8S_CNI_EXTERNALSNAT", "true")],
            Self::Customised => &[
                ("AWS_VPC_K8S_CNI_CONNMARK", "4096"),
                ("AWS_VPC_K8S_CNI_VETHPREFIX", "pod"),
                ("AWS_EXTERNAL_SERVICE_CIDRS", SERVICES),
            ],
            Self::Ipv6 => &[
                ("ENABLE_IPv4", "false"),
                ("ENABLE_IPv6", "true"),
                ("ENABLE_PREFIX_DELEGATION", "true"),
            ],
        };
        own.to_vec()
    }

    const fn ip(self) -> &'static str {
        match self {
            Self::Ipv6 => "ip -6",
            _ => "ip",
        }
    }

    /// Of the names of pods' links.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Customised => "pod",
            _ => "eni",
        }
    }

    /// Its mark and the prefix of its links in a script for the default ones.
    fn adapt(self, script: &str) -> String {
        match self {
            Self::LegacyIptables => script.replace("iptables-nft", "iptables-legacy"),
            Self::Customised => script
                .replace("0x80", "0x1000")
                .replace("eni", self.prefix()),
            _ => script.to_owned(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct AwsNode {
    pub kind: Kind,
    /// Of the checkpoint and the socket.
    pub directory: PathBuf,
    /// Alive, with a result like that of an ADD.
    pub pods: Vec<Pod>,
    /// Attached to the second device, with its MAC, own address, and table.
    second: Option<(EniId, Ipv4Addr)>,
    allocations: Vec<Value>,
    socket: Option<UnixListener>,
}

/// What a start of its daemon made of the checkpoint.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Address and container.
    pub kept: BTreeMap<IpAddr, String>,
    /// Their addresses are free from now on.
    pub dropped: BTreeSet<IpAddr>,
}

impl AwsNode {
    /// Builds a node with `first` pods on its primary ENI and `second` ones on another. Its daemon runs.
    ///
    /// # Errors
    /// If any part cannot be created.
    pub fn build(
        lab: &Lab,
        node: &mut Node,
        kind: Kind,
        [first, second]: [usize; 2],
    ) -> io::Result<Self> {
        let directory = lab
            .dir()
            .join(node.instance.id.to_string())
            .join("aws-node");
        fs::create_dir_all(&directory)?;
        node.set("HAWSER_AWS_NODE_DIR", &directory.display().to_string());
        for (name, value) in kind.settings() {
            node.set(name, value);
        }
        let mut built = Self {
            kind,
            directory,
            pods: Vec::new(),
            second: None,
            allocations: Vec::new(),
            socket: None,
        };
        let mut addresses = built.assign(lab, node.instance.eni.clone(), first)?;
        if second > 0 {
            let eni = built.attach(lab, node)?;
            addresses.extend(built.assign(lab, eni, second)?);
        }
        built.start(lab, node)?;
        for (n, address) in addresses.into_iter().enumerate() {
            let table = (n >= first).then_some(2);
            built.add_pod(node, &format!("web-{n}"), address, table)?;
        }
        Ok(built)
    }

    fn attach(&mut self, lab: &Lab, node: &Node) -> io::Result<EniId> {
        let now = lab.sim.now();
        let mut world = lab.sim.world();
        let instance = &node.instance;
        let tag = (
            "node.k8s.amazonaws.com/instance_id".to_owned(),
            instance.id.to_string(),
        );
        let request = CreateNetworkInterface {
            description: format!("aws-K8S-{}", instance.id),
            tags: [tag].into(),
            ..CreateNetworkInterface::plain(instance.subnet.clone())
        };
        let created = world.create_network_interface(request, now);
        let created = created.map_err(|e| with_causes(&e))?;
        let request = AttachNetworkInterface {
            eni: created.id.clone(),
            instance: instance.id.clone(),
            card: 0,
            device: 1,
        };
        let attached = world.attach_network_interface(&request, now);
        attached.map_err(|e| with_causes(&e))?;
        drop(world);
        lab.sim.settle().map_err(|e| with_causes(&e))?;
        let own = created
            .primary()
            .ok_or_else(|| io::Error::other("no address"))?;
        self.second = Some((created.id.clone(), own));
        Ok(created.id)
    }

    /// Addresses for `count` pods.
    fn assign(&self, lab: &Lab, eni: EniId, count: usize) -> io::Result<Vec<IpAddr>> {
        let now = lab.sim.now();
        let wanted = u32::try_from(count).map_err(io::Error::other)?;
        if self.kind == Kind::Ipv6 {
            return ipv6_addresses(lab, &eni, wanted);
        }
        let request = AssignPrivateIpAddresses {
            eni,
            ipv4: match self.kind {
                Kind::Prefixes => Pick::PrefixCount(1),
                // One that no pod has.
                _ => Pick::Count(wanted + 1),
            },
            allow_reassignment: false,
        };
        let assigned = lab
            .sim
            .world()
            .assign_private_ip_addresses(&request, now)
            .map_err(|e| with_causes(&e))?;
        lab.sim.settle().map_err(|e| with_causes(&e))?;
        let hosts = assigned
            .prefixes
            .iter()
            .flat_map(|net| (0..16).map(|n| Ipv4Addr::from(u32::from(net.network()) + n)));
        let all = assigned.addresses.iter().copied().chain(hosts);
        Ok(all.take(count).map(IpAddr::from).collect())
    }

    /// Wires a pod as the plugin does, and records it.
    ///
    /// # Errors
    /// If its namespace or a command fails.
    pub fn add_pod(
        &mut self,
        node: &Node,
        name: &str,
        address: IpAddr,
        table: Option<u32>,
    ) -> io::Result<()> {
        let container = format!("{name}-container");
        let (netns, path) = node.sandbox(&container)?;
        let host_end = upstream_host_name(self.kind.prefix(), "default", name);
        let host_mac = veth(node, &netns, &host_end)?;
        let inside = match address {
            IpAddr::V4(_) => format!(
                "ip link set lo up; ip link set eth0 up; ip route add 169.254.1.1 dev eth0 scope link; \
                 ip route add default via 169.254.1.1; ip addr add {address}/32 dev eth0; \
                 ip neigh add 169.254.1.1 lladdr {host_mac} nud permanent dev eth0"
            ),
            IpAddr::V6(_) => format!(
                "ip link set lo up; ip link set eth0 up; ip -6 route add fe80::1 dev eth0; \
                 ip -6 route add default via fe80::1 dev eth0; ip -6 addr add {address}/128 dev eth0 nodad; \
                 ip -6 neigh add fe80::1 lladdr {host_mac} nud permanent dev eth0"
            ),
        };
        drop(run_in(&netns, &inside)?);
        let ip = self.kind.ip();
        let from = table.map(|t| format!("; {ip} rule add from {address} pref 1536 lookup {t}"));
        node.shell(&format!(
            "{ip} route add {address} dev {host_end} scope link; {ip} rule add to {address} pref 512 lookup main{}",
            from.unwrap_or_default()
        ))?;
        self.allocations.push(allocation(&container, name, address));
        self.write()?;
        let result = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": host_end }, { "name": "eth0", "mac": "2", "sandbox": path }],
            "ips": [{ "address": format!("{address}/32"), "interface": 1 }],
        });
        self.pods.push(Pod {
            id: container,
            netns,
            path,
            asked: Value::Null,
            added: Outcome {
                code: Some(0),
                json: result,
                ..Outcome::default()
            },
        });
        Ok(())
    }

    /// Changes the checkpoint.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn edit(&mut self, change: impl FnOnce(&mut Vec<Value>)) -> io::Result<()> {
        change(&mut self.allocations);
        self.write()
    }

    /// Puts its network configuration where both programs look for it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn configure_network(&self, node: &mut Node) -> io::Result<()> {
        let file = conflist(&self.directory);
        let directory = file.parent().unwrap_or(&self.directory);
        fs::create_dir_all(directory)?;
        node.set("HOST_CNI_CONFDIR_PATH", &directory.display().to_string());
        fs::write(&file, CONFLIST)
    }

    fn write(&self) -> io::Result<()> {
        let text = json!({ "version": "vpc-cni-ipam/1", "allocations": self.allocations });
        fs::write(self.directory.join("ipam.json"), text.to_string())
    }

    /// Its daemon ends: nobody listens any more.
    ///
    /// # Errors
    /// If its socket cannot be removed.
    pub fn stop(&mut self) -> io::Result<()> {
        if self.socket.take().is_some() {
            fs::remove_file(self.directory.join("ipamd.sock"))?;
        }
        Ok(())
    }

    /// What its daemon does at a start. Returns what it has made of its checkpoint.
    ///
    /// # Errors
    /// What is fatal for it: an address that is recorded twice, another version, a command that fails.
    pub fn start(&mut self, lab: &Lab, node: &Node) -> io::Result<Restored> {
        node.shell(&self.host_network(node)?)?;
        let restored = self.restore(lab, node)?;
        for address in restored.kept.keys() {
            self.rewrite_rules(node, *address)?;
        }
        let socket = self.directory.join("ipamd.sock");
        self.stop()?;
        self.socket = Some(node.netns().run(move || UnixListener::bind(socket))??);
        Ok(restored)
    }

    fn host_network(&self, node: &Node) -> io::Result<String> {
        let own = node.instance.address;
        if self.kind == Kind::Ipv6 {
            return Ok(
                "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1".to_owned(),
            );
        }
        let mut script = String::from("sysctl -qw net.ipv4.ip_forward=1\n");
        script += &self.kind.adapt(MARKS);
        if self.kind != Kind::ExternalSnat {
            script += &self.kind.adapt(SNAT).replace("OWN", &own.to_string());
            script += &self.kind.adapt(match self.kind {
                Kind::LegacyIptables => CONNMARK,
                _ => OWN_TABLE,
            });
        }
        if self.kind == Kind::Customised {
            script += &format!(
                "while ip rule del pref 1535 2>/dev/null; do :; done; ip rule add to {SERVICES} pref 1535 lookup main\n"
            );
        }
        if let Some((eni, own)) = &self.second {
            let links = node.shell("ip -o link")?;
            let device = "eth1";
            if !links.contains(": eth1@") && !links.contains(": eth1:") {
                return Err(io::Error::other(format!("{eni} has no link:\n{links}")));
            }
            script += &format!(
                "ip link set {device} mtu 9001 up; ip addr flush dev {device} scope global; \
                 ip addr add {own}/20 dev {device}; \
                 ip route replace 10.0.0.1 dev {device} scope link table 2; \
                 ip route replace default via 10.0.0.1 dev {device} table 2; \
                 ip route del 10.0.0.0/20 dev {device} 2>/dev/null || true; \
                 ip rule del from {own} pref 32765 2>/dev/null || true; ip rule add from {own} pref 32765 lookup 2\n"
            );
        }
        Ok(script)
    }

    /// `ReadBackingStore`: which entries of the file it keeps.
    fn restore(&mut self, lab: &Lab, node: &Node) -> io::Result<Restored> {
        let mut restored = Restored::default();
        let text = match fs::read_to_string(self.directory.join("ipam.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(restored),
            other => other?,
        };
        let file: Value = serde_json::from_str(&text)?;
        if file["version"] != "vpc-cni-ipam/1" {
            return Err(io::Error::other(format!("fatal: {}", file["version"])));
        }
        let links = link_names(node)?;
        let mut kept = Vec::new();
        for entry in file["allocations"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let address = [&entry["ipv4"], &entry["ipv6"]].map(text).concat();
            let address: IpAddr = address.parse().map_err(io::Error::other)?;
            let metadata = &entry["metadata"];
            let [namespace, name] =
                ["k8sPodNamespace", "k8sPodName"].map(|key| text(&metadata[key]));
            let suffix = upstream_host_name("", &namespace, &name);
            let lives = links.iter().any(|link| link.ends_with(&suffix));
            if !(namespace.is_empty() || name.is_empty() || lives) {
                let ip = self.kind.ip();
                node.shell(&format!(
                    "{ip} rule del to {address} pref 512 lookup main 2>/dev/null || true; \
                     {ip} rule del from {address} pref 1536 2>/dev/null || true"
                ))?;
                restored.dropped.insert(address);
                continue;
            }
            let on_an_eni = lab.sim.world().owner_of(address).is_some_and(|eni| {
                let attachment = eni.attachment.as_ref();
                attachment.is_some_and(|a| a.instance == node.instance.id)
            });
            if !on_an_eni {
                restored.dropped.insert(address);
                continue;
            }
            let container = text(&entry["containerID"]);
            if restored.kept.insert(address, container).is_some() {
                return Err(io::Error::other(format!("fatal: {address} twice")));
            }
            kept.push(entry.clone());
        }
        self.allocations = kept;
        self.write()?;
        Ok(restored)
    }

    /// `UpdateRuleListBySrc`: rules by source are removed and added again.
    fn rewrite_rules(&self, node: &Node, address: IpAddr) -> io::Result<()> {
        let ip = self.kind.ip();
        let present = node.shell(&format!("{ip} rule"))?;
        let from = format!("from {address} lookup ");
        let tables: BTreeSet<&str> = present
            .lines()
            .filter_map(|line| line.split_once(&from))
            .filter_map(|(_, table)| table.split_whitespace().next())
            .collect();
        for table in tables {
            node.shell(&format!(
                "{ip} rule del from {address} lookup {table}; {ip} rule add from {address} pref 1536 lookup {table}"
            ))?;
        }
        Ok(())
    }

    /// Links, routes of all tables, rules, chains, queues and settings of links of the node, the names of its daemon's files, and
    /// what is inside the pods, in an order of their own, without counters.
    ///
    /// # Errors
    /// If a command fails.
    pub fn look(&self, node: &Node) -> io::Result<BTreeSet<String>> {
        let mut shown = node.shell(LOOK)?;
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            // It comes and goes with its daemon.
            if name != "ipamd.sock" {
                shown += &format!("file {}\n", name.to_string_lossy());
            }
        }
        for pod in &self.pods {
            let inside = run_in(&pod.netns, INSIDE)?;
            inside
                .lines()
                .for_each(|line| shown += &format!("{} {line}\n", pod.id));
        }
        let lines = shown.lines().map(|line| {
            let words = line.split_whitespace();
            words.collect::<Vec<_>>().join(" ")
        });
        Ok(lines.filter(|line| !line.is_empty()).collect())
    }
}

fn allocation(container: &str, name: &str, address: IpAddr) -> Value {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    json!({
        "networkName": "aws-cni",
        "containerID": container,
        "ifName": "eth0",
        family: address,
        "allocationTimestamp": 1_795_933_322_529_386_800_i64,
        "metadata": { "k8sPodNamespace": "default", "k8sPodName": name, "interfacesCount": 1 },
    })
}

/// Addresses of the ENI's prefix, from its first one.
fn ipv6_addresses(lab: &Lab, eni: &EniId, count: u32) -> io::Result<Vec<IpAddr>> {
    let now = lab.sim.now();
    let mut world = lab.sim.world();
    let assigned = world.assign_ipv6_addresses(eni, &Pick::PrefixCount(1), now);
    let assigned = assigned.map_err(|e| with_causes(&e))?;
    drop(world);
    lab.sim.settle().map_err(|e| with_causes(&e))?;
    let prefix = assigned.prefixes.first();
    let first = prefix.map(|net| u128::from(net.network()));
    let first = first.ok_or_else(|| io::Error::other("no prefix"))?;
    let each = (0..u128::from(count)).map(|n| std::net::Ipv6Addr::from(first + n));
    Ok(each.map(IpAddr::from).collect())
}

/// The pair, up, and the MAC address of the host end.
fn veth(node: &Node, netns: &Netns, host_end: &str) -> io::Result<String> {
    let end = |name| link::End {
        name,
        mtu: Some(9001),
        mac: None,
        group: 0,
        up: false,
    };
    let made = node.netns().run(|| {
        let mut socket = Socket::open()?;
        let pair = link::add_veth(&end(host_end), &end("eth0"), Some(netns.as_fd()));
        socket.apply(&pair)?;
        let made = socket.link_by_name(host_end)?;
        if let Some(link) = &made {
            socket.apply(&link::up(link.index))?;
        }
        Ok::<_, datapath::netlink::Error>(made)
    })?;
    let mac = made.map_err(io::Error::other)?.and_then(|link| link.mac);
    let mac = mac.ok_or_else(|| io::Error::other("no link was made"))?;
    Ok(mac.to_string())
}

fn link_names(node: &Node) -> io::Result<Vec<String>> {
    let links = node.netns().run(|| Socket::open()?.links())?;
    let links = links.map_err(io::Error::other)?;
    Ok(links.into_iter().map(|link| link.name).collect())
}

/// The network configuration of a node with this directory of the checkpoint.
#[must_use]
pub fn conflist(directory: &Path) -> PathBuf {
    directory.join("net.d/10-aws.conflist")
}

/// The kinds of its plugins, in their order.
///
/// # Errors
/// If it cannot be read.
pub fn plugins_of(directory: &Path) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(conflist(directory))?;
    let list: Value = serde_json::from_str(&text)?;
    let plugins = list["plugins"].as_array().into_iter().flatten();
    let kinds = plugins.filter_map(|plugin| Some(plugin["type"].as_str()?.to_owned()));
    Ok(kinds.collect())
}

/// Runs a script in a pod's namespace, and returns what it prints.
///
/// # Errors
/// If it fails.
pub fn run_in(netns: &Netns, script: &str) -> io::Result<String> {
    let mut shell = Command::new("sh");
    shell.args(["-ec", script]);
    let output = netns.run(move || shell.output())??;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{script}: {said}")))
}
