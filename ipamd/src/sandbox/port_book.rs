//! Which sandbox has which host port. Pure, except that a [`PortClaim`] that is dropped ends.
//!
//! Two sandboxes conflict if a packet can be meant for both: the same port and protocol, and the same address of the node, or
//! every address for one of them. The scheduler keeps such pods apart, but other clients of the runtime, static pods and a
//! sandbox whose DEL has not arrived yet do not ask it.

use std::{collections::BTreeMap, sync::Mutex};

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

    /// How many ports sandboxes have.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }

    /// The sandbox does not have these ports any more.
    pub fn free(&mut self, sandbox: &Sandbox, ports: &[HostPort]) {
        for port in ports {
            let key = (port.transport, port.port);
            let Some(held) = self.held.get_mut(&key) else {
                continue;
            };
            held.retain(|held| held.sandbox != *sandbox);
            if held.is_empty() {
                self.held.remove(&key);
            }
        }
    }
}

/// Host ports that a sandbox has until this is dropped.
#[derive(Debug)]
pub struct PortClaim<'a> {
    book: &'a Mutex<PortBook>,
    sandbox: &'a Sandbox,
    /// Empty if it keeps them.
    ports: &'a [HostPort],
}

impl<'a> PortClaim<'a> {
    /// Gives `ports` to the sandbox.
    ///
    /// # Errors
    /// The first port that another sandbox has, and that sandbox.
    pub fn new(
        book: &'a Mutex<PortBook>,
        sandbox: &'a Sandbox,
        pod: &Pod,
        ports: &'a [HostPort],
    ) -> Result<Self, Box<(HostPort, Held)>> {
        let mut held = book.lock().expect("no holder panics");
        if let Some((port, holder)) = held.conflict(sandbox, ports) {
            return Err(Box::new((port, holder.clone())));
        }
        held.keep(sandbox, pod, ports);
        drop(held);
        Ok(Self {
            book,
            sandbox,
            ports,
        })
    }

    /// The pod exists: the ports are its own until [`PortBook::free`].
    pub fn keep(mut self) {
        self.ports = &[];
    }
}

impl Drop for PortClaim<'_> {
    fn drop(&mut self) {
        if !self.ports.is_empty() {
            let mut book = self.book.lock().expect("no holder panics");
            book.free(self.sandbox, self.ports);
        }
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
        book.free(&sandbox("a"), &[port(80, None)]);
        assert_eq!(holder(&book, "c", port(80, None)), None);
        assert_eq!(holder(&book, "c", port(81, None)), Some("b".into()));
        book.free(&sandbox("b"), &[port(81, None)]);
        assert!(book.held.is_empty());
    }
    #[test]
    fn a_claim_ends_unless_it_is_kept() {
        let book = Mutex::new(PortBook::default());
        let (a, b, ports) = (sandbox("a"), sandbox("b"), [port(80, None)]);
        let claim = |sandbox| PortClaim::new(&book, sandbox, &Pod::default(), &ports);
        drop(claim(&a).unwrap());
        claim(&b).unwrap().keep();
        let (refused, holder) = *claim(&a).unwrap_err();
        assert_eq!((refused, holder.sandbox), (port(80, None), b));
    }
}
