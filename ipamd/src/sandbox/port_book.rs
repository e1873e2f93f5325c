//! Which sandbox has which host port. Pure.
//!
//! Two sandboxes conflict if a packet can be meant for both: the same port and protocol, and the same address of the node, or
//! every address for one of them. The scheduler keeps such pods apart, but other clients of the runtime, static pods and a
//! sandbox whose DEL has not arrived yet do not ask it.

use std::collections::BTreeMap;

use nettypes::{HostPort, Transport};
use planner::{Pod, Sandbox};

/// See the module.
#[derive(Debug, Default)]
pub struct PortBook {
    held: BTreeMap<(Transport, u16), Vec<Held>>,
}

/// A port, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub port: HostPort,
    pub sandbox: Sandbox,
    pub pod: Pod,
}

impl PortBook {
    /// Gives all of `ports` to the sandbox, whoever else has them: it has them in the kernel.
    pub fn keep(&mut self, sandbox: &Sandbox, pod: &Pod, ports: &[HostPort]) {
        for port in ports {
            let held = self.held.entry((port.transport, port.port)).or_default();
            held.push(Held {
                port: *port,
                sandbox: sandbox.clone(),
                pod: pod.clone(),
            });
        }
    }

    /// The first of `ports` that another sandbox has, and that sandbox.
    #[must_use]
    pub fn conflict(&self, sandbox: &Sandbox, ports: &[HostPort]) -> Option<(HostPort, &Held)> {
        ports.iter().find_map(|port| {
            let held = self.held.get(&(port.transport, port.port))?;
            let mut others = held.iter().filter(|held| held.sandbox != *sandbox);
            let other = others.find(|held| held.port.overlaps(port))?;
            Some((*port, other))
        })
    }

    /// The sandbox has no ports any more.
    pub fn free(&mut self, sandbox: &Sandbox) {
        self.held.retain(|_, held| {
            held.retain(|held| held.sandbox != *sandbox);
            !held.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str) -> Sandbox {
        Sandbox {
            network: "aws-cni".into(),
            container_id: id.into(),
            ifname: "eth0".into(),
        }
    }

    fn port(number: u16, address: Option<[u8; 4]>) -> HostPort {
        HostPort {
            transport: Transport::Tcp,
            port: number,
            address: address.map(Into::into),
            pod_port: 80,
        }
    }

    fn holder(book: &PortBook, id: &str, wanted: HostPort) -> Option<String> {
        let conflict = book.conflict(&sandbox(id), &[port(1, None), wanted]);
        conflict.map(|(_, held)| held.sandbox.container_id.clone())
    }

    #[test]
    fn every_address_conflicts_with_each_and_each_with_itself() {
        let mut book = PortBook::default();
        let (one, two) = (Some([10, 0, 0, 5]), Some([10, 0, 0, 6]));
        book.keep(
            &sandbox("a"),
            &Pod::default(),
            &[port(80, one), port(81, None)],
        );
        assert_eq!(holder(&book, "b", port(80, one)), Some("a".into()));
        assert_eq!(holder(&book, "b", port(80, None)), Some("a".into()));
        assert_eq!(holder(&book, "b", port(80, two)), None);
        assert_eq!(holder(&book, "b", port(81, two)), Some("a".into()));
        assert_eq!(holder(&book, "a", port(81, two)), None, "its own");
    }

    #[test]
    fn a_freed_port_is_nobodys() {
        let mut book = PortBook::default();
        book.keep(&sandbox("a"), &Pod::default(), &[port(80, None)]);
        book.keep(&sandbox("b"), &Pod::default(), &[port(81, None)]);
        book.free(&sandbox("a"));
        assert_eq!(holder(&book, "c", port(80, None)), None);
        assert_eq!(holder(&book, "c", port(81, None)), Some("b".into()));
        book.free(&sandbox("b"));
        assert!(book.held.is_empty());
    }
}
