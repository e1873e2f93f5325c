//! Two nodes, each with a pod on the primary and one on a secondary ENI, a listener at every address, and a capture of
//! everything that they send: for tests of the ENI and address with which packets leave.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use datapath::netns::Netns;
use serde_json::Value;
use vpc_sim::{SimConfig, fabric::INTERNET_ADDRESS, ids::EniId};

use crate::{
    Lab,
    node::{Node, Pod},
    traffic::{
        capture::{self, Capture, Packet},
        tcp_probe::{Listener, TcpConnection},
    },
};

/// The port of all listeners.
pub const PORT: u16 = 80;

/// Much longer than any answer takes on a busy machine; a lost first packet is sent again within this time.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Endpoint can connect, and listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Node `a`'s pod on its primary ENI.
    APrimary,
    ASecondary,
    BPrimary,
    BSecondary,
    /// The node itself.
    A,
    B,
    Internet,
}

impl Endpoint {
    const ALL: [Self; 7] = [
        Self::APrimary,
        Self::ASecondary,
        Self::BPrimary,
        Self::BSecondary,
        Self::A,
        Self::B,
        Self::Internet,
    ];

    /// Node `a`'s pods, on the primary and on a secondary ENI.
    pub const ON_A: [Self; 2] = [Self::APrimary, Self::ASecondary];
}

/// See the module. Fields are dropped in this order.
#[derive(Debug)]
pub struct NodePair {
    listeners: Vec<Listener>,
    capture: Capture,
    /// On the primary ENI, and on a secondary one.
    pub on_a: [Pod; 2],
    pub on_b: [Pod; 2],
    /// Pods that fill the primary ENIs.
    pub fillers: Vec<Pod>,
    pub a: Node,
    pub b: Node,
    pub lab: Lab,
    wrong: Vec<String>,
}

impl NodePair {
    /// Node `a` gets `settings`, node `b` none.
    ///
    /// # Errors
    /// If any part cannot be created.
    pub fn start(settings: &[(&str, &str)]) -> io::Result<Self> {
        Self::start_asking(settings, |_| Value::Null)
    }

    /// The same; `asking` is what a pod of node `a` with this id asks for (`runtimeConfig`).
    ///
    /// # Errors
    /// As [`NodePair::start`].
    pub fn start_asking(
        settings: &[(&str, &str)],
        asking: impl Fn(&str) -> Value,
    ) -> io::Result<Self> {
        let lab = Lab::start(SimConfig::default())?;
        let capture = Capture::start(&lab)?;
        // t3.small: three ENIs with three pods each.
        let (a, b) = (lab.node("t3.small", settings)?, lab.node("t3.small", &[])?);
        let mut fillers = Vec::new();
        let on_a = on_both(&lab, &a, asking, &mut fillers)?;
        let on_b = on_both(&lab, &b, |_| Value::Null, &mut fillers)?;
        let mut pair = Self {
            listeners: Vec::new(),
            capture,
            on_a,
            on_b,
            fillers,
            a,
            b,
            lab,
            wrong: Vec::new(),
        };
        pair.listen()?;
        Ok(pair)
    }

    fn listen(&mut self) -> io::Result<()> {
        for who in Endpoint::ALL {
            let listener = Listener::start(self.netns(who), self.at(who), &format!("{who:?}"))?;
            self.listeners.push(listener);
        }
        Ok(())
    }

    #[must_use]
    pub const fn netns(&self, who: Endpoint) -> &Netns {
        let ([a0, a1], [b0, b1]) = (&self.on_a, &self.on_b);
        match who {
            Endpoint::APrimary => &a0.netns,
            Endpoint::ASecondary => &a1.netns,
            Endpoint::BPrimary => &b0.netns,
            Endpoint::BSecondary => &b1.netns,
            Endpoint::A => &self.a.instance.netns,
            Endpoint::B => &self.b.instance.netns,
            Endpoint::Internet => self.lab.sim.internet(),
        }
    }

    #[must_use]
    pub fn address(&self, who: Endpoint) -> Ipv4Addr {
        let ([a0, a1], [b0, b1]) = (&self.on_a, &self.on_b);
        match who {
            Endpoint::APrimary => a0.ipv4(),
            Endpoint::ASecondary => a1.ipv4(),
            Endpoint::BPrimary => b0.ipv4(),
            Endpoint::BSecondary => b1.ipv4(),
            Endpoint::A => self.a.instance.address,
            Endpoint::B => self.b.instance.address,
            Endpoint::Internet => INTERNET_ADDRESS,
        }
    }

    /// The address of this listener.
    #[must_use]
    pub fn at(&self, who: Endpoint) -> SocketAddr {
        SocketAddr::from((self.address(who), PORT))
    }

    /// Records an error if `from` is not answered at `to` by the right listener, or is seen there with the wrong
    /// address.
    pub fn expect(
        &mut self,
        what: &str,
        from: Endpoint,
        to: SocketAddr,
        (by, seen_as): (Endpoint, Endpoint),
    ) {
        let seen_as = self.address(seen_as);
        let found = match self.call(from, to) {
            Ok(c) if c.with == format!("{by:?}") && c.seen_as.ip() == seen_as => return,
            Ok(c) => format!("{} answered and saw {}", c.with, c.seen_as),
            Err(error) => error.to_string(),
        };
        self.wrong.push(format!(
            "{what}: {from:?} calls {to}: {by:?} must answer and see {seen_as}, but: {found}"
        ));
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// As [`TcpConnection::start`].
    pub fn call(&self, from: Endpoint, to: SocketAddr) -> io::Result<TcpConnection> {
        TcpConnection::start(self.netns(from), None, to, LIMIT)
    }

    /// Records a failure that was found elsewhere.
    pub fn note(&mut self, what: &str, result: io::Result<()>) {
        self.wrong
            .extend(result.err().map(|error| format!("{what}: {error}")));
    }

    /// The packets of the nodes since the last call.
    ///
    /// # Errors
    /// The capture's error.
    pub fn packets(&self) -> io::Result<Vec<Packet>> {
        self.capture.packets(&self.lab)
    }

    /// The secondary ENI of node `a` with a pod.
    ///
    /// # Panics
    /// If EC2 has none: the pod would have no address.
    #[must_use]
    pub fn secondary(&self) -> EniId {
        self.secondary_in(&self.lab.sim.world())
    }

    /// The same, if the world is already locked.
    ///
    /// # Panics
    /// As [`NodePair::secondary`].
    #[must_use]
    pub fn secondary_in(&self, world: &vpc_sim::World) -> EniId {
        let owner = world.owner_of(self.on_a[1].address());
        owner.expect("the pod's address is on an ENI").id.clone()
    }

    /// Checks that there were no errors, that no packet left through an ENI that does not own its source, and that both
    /// ENIs of node `a` were used.
    ///
    /// # Errors
    /// All errors.
    pub fn verdict(&mut self) -> Result<(), String> {
        let packets = self.packets().map_err(|error| error.to_string())?;
        let mut wrong = std::mem::take(&mut self.wrong);
        for stray in capture::strays(&self.lab, &packets) {
            wrong.push(format!("sent through the wrong ENI: {stray:?}"));
        }
        for eni in [self.a.instance.eni.clone(), self.secondary()] {
            if !packets.iter().any(|packet| packet.eni == eni) {
                wrong.push(format!("no packet was captured on {eni}"));
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("\n"))
        }
    }
}

/// Adds pods until one is on a secondary ENI; returns that one and the first.
fn on_both(
    lab: &Lab,
    node: &Node,
    asking: impl Fn(&str) -> Value,
    fillers: &mut Vec<Pod>,
) -> io::Result<[Pod; 2]> {
    let is_primary = |pod: &Pod| {
        let world = lab.sim.world();
        world
            .owner_of(pod.address())
            .is_some_and(|eni| eni.id == node.instance.eni)
    };
    let add = |id: &str| node.add_pod_asking(id, &asking(id));
    let first = add("first")?;
    if !is_primary(&first) {
        return Err(io::Error::other("the first pod is not on the primary ENI"));
    }
    for n in 0..8 {
        let pod = add(&format!("pod{n}"))?;
        if !is_primary(&pod) {
            return Ok([first, pod]);
        }
        fillers.push(pod);
    }
    Err(io::Error::other("no pod is on a secondary ENI"))
}
