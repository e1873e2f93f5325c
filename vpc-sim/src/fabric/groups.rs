//! Security groups as nftables rules of the router, on the ports of the interfaces that have a guard.
//!
//! Connections are tracked, so that replies need no rule. Uses the system's `nft`. Without guards, there is no table,
//! and nothing is tracked.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
    process::{Command, Stdio},
};

use datapath::netns::Netns;
use ipnet::IpNet;

use super::FabricError;
use crate::{
    ids::EniId,
    world::model::security::{Allowed, Guard, Peers, Protocol},
};

/// Replaces the table, or removes it if there is no guard. `ports`: the name of each interface's link on the router.
pub fn program(
    router: &Netns,
    guards: &[Guard],
    ports: &BTreeMap<EniId, String>,
) -> Result<(), FabricError> {
    let ruleset = ruleset(guards, ports);
    let fed = router.run(|| feed(&ruleset)).and_then(|fed| fed);
    fed.map_err(|source| FabricError::Groups { source })
}

fn feed(ruleset: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(ruleset.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("nft: {said}\n{ruleset}")))
}

/// The peer of a packet: its sender or its receiver.
#[derive(Clone, Copy, Debug)]
struct Side {
    link: &'static str,
    address: &'static str,
}

const SENDER: Side = Side {
    link: "iifname",
    address: "saddr",
};
const RECEIVER: Side = Side {
    link: "oifname",
    address: "daddr",
};

/// One transaction: no packet sees a part of it.
fn ruleset(guards: &[Guard], ports: &BTreeMap<EniId, String>) -> String {
    // It is created first, so that deleting it cannot fail.
    let mut text = "table inet groups\ndelete table inet groups\n".to_owned();
    if guards.is_empty() {
        return text;
    }
    let (mut chains, mut jumps) = (String::new(), String::new());
    let guarded = guards.iter().filter_map(|g| Some((ports.get(&g.eni)?, g)));
    for (port, guard) in guarded {
        let directions = [
            ("to", RECEIVER.link, &guard.ingress, SENDER),
            ("from", SENDER.link, &guard.egress, RECEIVER),
        ];
        for (word, link, allowed, peer) in directions {
            let Some(allowed) = allowed else { continue };
            let rules: String = allowed
                .iter()
                .filter_map(|a| rule(a, peer, ports))
                .collect();
            write!(chains, "  chain {word}_{port} {{\n{rules}    drop\n  }}\n").unwrap_or_default();
            writeln!(jumps, "    {link} \"{port}\" jump {word}_{port}").unwrap_or_default();
        }
    }
    write!(
        text,
        "table inet groups {{\n{chains}  chain forward {{\n    \
         type filter hook forward priority filter; policy accept;\n    \
         ct state established,related accept\n{jumps}  }}\n}}\n"
    )
    .unwrap_or_default();
    text
}

/// A packet that fits returns, because the groups of the other interface decide too. `None`: no packet fits.
fn rule(allowed: &Allowed, peer: Side, ports: &BTreeMap<EniId, String>) -> Option<String> {
    let from = match &allowed.peer {
        Peers::Block(IpNet::V4(block)) => format!("ip {} {block} ", peer.address),
        Peers::Block(IpNet::V6(block)) => format!("ip6 {} {block} ", peer.address),
        Peers::Interfaces(enis) => {
            let names: Vec<_> = enis.iter().filter_map(|eni| ports.get(eni)).collect();
            let quoted: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
            if quoted.is_empty() {
                return None;
            }
            format!("{} {{ {} }} ", peer.link, quoted.join(", "))
        }
    };
    let protocol = match allowed.protocol {
        Protocol::All => String::new(),
        Protocol::Icmp => "meta l4proto icmp ".to_owned(),
        Protocol::Tcp { from, to } => format!("tcp dport {from}-{to} "),
        Protocol::Udp { from, to } => format!("udp dport {from}-{to} "),
    };
    Some(format!("    {from}{protocol}return\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_two_chains_on_its_port() {
        let port = |n: u8| (EniId(format!("eni-{n}")), format!("port{n}"));
        let ports = BTreeMap::from([port(1), port(2)]);
        let web = Allowed {
            protocol: Protocol::tcp(80),
            peer: Peers::Interfaces(vec![EniId::from("eni-2"), EniId::from("eni-gone")]),
        };
        let nobody = Allowed {
            protocol: Protocol::All,
            peer: Peers::Interfaces(vec![EniId::from("eni-gone")]),
        };
        let dns = Allowed {
            protocol: Protocol::udp(53),
            peer: Peers::Block("10.0.0.0/8".parse().unwrap()),
        };
        let guard = Guard {
            eni: EniId::from("eni-1"),
            ingress: Some(vec![web, nobody]),
            egress: Some(vec![dns]),
        };
        let expect = "table inet groups
delete table inet groups
table inet groups {
  chain to_port1 {
    iifname { \"port2\" } tcp dport 80-80 return
    drop
  }
  chain from_port1 {
    ip daddr 10.0.0.0/8 udp dport 53-53 return
    drop
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    oifname \"port1\" jump to_port1
    iifname \"port1\" jump from_port1
  }
}
";
        assert_eq!(ruleset(&[guard], &ports), expect);
    }

    #[test]
    fn without_guards_there_is_no_table() {
        let expect = "table inet groups\ndelete table inet groups\n";
        assert_eq!(ruleset(&[], &BTreeMap::new()), expect);
    }
}
