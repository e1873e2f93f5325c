//! What kube-proxy writes on a node, in its three modes, reduced to one endpoint per service. Deletes what an earlier
//! call wrote.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::SocketAddr,
    process::{Command, Stdio},
};

use datapath::netns::Netns;
use ipnet::IpNet;

/// How services are implemented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    Iptables,
    Nftables,
    /// The services' addresses are on a device of the node, as with IPVS. (nftables rewrite them: IPVS is not in every
    /// kernel, and it rewrites at the same hooks.)
    LocalAddress,
}

impl Proxy {
    pub const ALL: [Self; 3] = [Self::Iptables, Self::Nftables, Self::LocalAddress];
}

/// A service with one endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// A ClusterIP, or a node's address with a NodePort.
    pub at: SocketAddr,
    pub endpoint: SocketAddr,
    /// `externalTrafficPolicy: Cluster`: the endpoint sees a node's address instead of the client's.
    pub masquerade: bool,
}

/// The device of IPVS for ClusterIPs.
const DEVICE: &str = "kube-ipvs0";

/// Configures exactly `services` on `node`, all of one family.
///
/// # Errors
/// The tool's error.
pub fn program(node: &Netns, proxy: Proxy, services: &[Service]) -> io::Result<()> {
    let (iptables, nftables) = match proxy {
        Proxy::Iptables => (services, &[][..]),
        Proxy::Nftables | Proxy::LocalAddress => (&[][..], services),
    };
    let six = services.iter().any(|service| service.at.is_ipv6());
    let restore = if six {
        "ip6tables-restore"
    } else {
        "iptables-restore"
    };
    feed(node, &[restore], &iptables_text(iptables))?;
    let family = if six { "ip6" } else { "ip" };
    feed(node, &["nft", "-f", "-"], &nftables_text(family, nftables))?;
    let mut links = format!("ip link del {DEVICE} 2>/dev/null || true\n");
    if proxy == Proxy::LocalAddress {
        writeln!(links, "ip link add {DEVICE} type bridge").unwrap_or_default();
        for service in services {
            let address = service.at.ip();
            // The address of a NodePort is already on the node.
            let there = format!("ip -o addr | grep -q ' {address}/'");
            writeln!(
                links,
                "{there} || ip addr add {} dev {DEVICE}",
                IpNet::from(address)
            )
            .unwrap_or_default();
        }
    }
    feed(node, &["sh", "-e"], &links).map(drop)
}

fn iptables_text(services: &[Service]) -> String {
    let mut text = "*nat\n:KUBE-SERVICES -\n:KUBE-POSTROUTING -\n".to_owned();
    text += "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n";
    text += "-A POSTROUTING -j KUBE-POSTROUTING\n";
    for Service {
        at,
        endpoint,
        masquerade,
    } in services
    {
        let to = format!(
            "-A KUBE-SERVICES -d {} -p tcp --dport {}",
            IpNet::from(at.ip()),
            at.port()
        );
        if *masquerade {
            text += &format!("{to} -j MARK --or-mark 0x4000\n");
        }
        text += &format!("{to} -j DNAT --to-destination {endpoint}\n");
    }
    text += "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n";
    text += "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n";
    text + "-A KUBE-POSTROUTING -j MASQUERADE --random-fully\nCOMMIT\n"
}

fn nftables_text(family: &str, services: &[Service]) -> String {
    let mut rules = String::new();
    for Service {
        at,
        endpoint,
        masquerade,
    } in services
    {
        let to = format!("{family} daddr {} tcp dport {}", at.ip(), at.port());
        if *masquerade {
            rules += &format!("{to} meta mark set meta mark | 0x4000\n");
        }
        rules += &format!("{to} dnat to {endpoint}\n");
    }
    format!(
        "add table {family} kube-proxy\ndelete table {family} kube-proxy\ntable {family} kube-proxy {{\n\
         chain services {{\n{rules}}}\n\
         chain in {{ type nat hook prerouting priority dstnat; jump services; }}\n\
         chain own {{ type nat hook output priority -100; jump services; }}\n\
         chain out {{ type nat hook postrouting priority srcnat;\n\
         meta mark & 0x4000 == 0 return\n\
         meta mark set meta mark ^ 0x4000\n\
         masquerade fully-random\n}}\n}}\n"
    )
}

/// Runs a command on a node with `input` on its standard input, and returns its output.
///
/// # Errors
/// Its error output, if it fails.
///
/// # Panics
/// If no command is given.
pub fn feed(node: &Netns, command: &[&str], input: &str) -> io::Result<String> {
    let (program, arguments) = command.split_first().expect("every command has a name");
    node.run(|| {
        let mut child = Command::new(program)
            .args(arguments)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            match pipe.write_all(input.as_bytes()) {
                // A command that does not read all of its input reports the reason when it ends.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{program}: {said}\n{input}")))
    })?
}
