//! The node for humans and scripts: one serialisable value for the command line, introspection and the page.
//!
//! Created from the gRPC message ([`v1::Snapshot`]), or from the state file if no daemon answers. The parts of the message
//! that need no conversion are used as they are. Ages are in milliseconds, so that a reader does not need our clock. There
//! are no decisions here.

use std::{net::IpAddr, time::Duration};

use proto::{asked, v1};
use serde::Serialize;

/// The node at one time.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    pub source: Source,
    pub instance: String,
    pub instance_type: String,
    /// The maximum number of pods with their own address, and its calculation.
    pub pod_limit: u32,
    pub pod_limit_why: String,
    pub totals: v1::Totals,
    /// What the planner would do now; not available from a state file.
    pub decision: Option<v1::Decision>,
    /// First come, first served.
    pub waiting: Vec<Waiting>,
    /// Pending commands to EC2 or to the host.
    pub calls: Vec<v1::Call>,
    /// What prevents EC2 calls, and for how long.
    pub obstacles: Vec<v1::Obstacle>,
    /// EC2 actions whose last try was refused.
    pub refused: Vec<v1::RefusedAction>,
    /// Where new ENIs are created; not available from a state file.
    pub places: Option<v1::Places>,
    pub enis: Vec<Eni>,
    /// ENIs attached to this instance that the pool does not manage.
    pub unmanaged: Vec<String>,
    pub cordoned: bool,
    pub stopping: bool,
    /// What an operator must be told about the daemon's settings; a state file cannot tell.
    pub settings: Vec<v1::SettingNotice>,
}

/// The source of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The daemon.
    Live,
    /// The state file of a daemon that does not answer.
    File,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    pub pod: String,
    pub sandbox: String,
    pub waited_ms: u64,
    /// The refusal that it would get if its deadline were now.
    pub cause: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Eni {
    /// Empty while EC2 is creating it.
    pub id: String,
    pub phase: String,
    pub phase_age_ms: Option<u64>,
    pub card: u32,
    pub device: Option<u32>,
    pub primary: bool,
    pub address: Option<IpAddr>,
    pub mac: String,
    pub subnet: String,
    /// EC2 does not list it as attached and ours.
    pub missing: bool,
    /// Why no new pod gets an address of it; empty if pods do.
    pub closed: String,
    pub prefixes: Vec<String>,
    pub addresses: Vec<Address>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    pub address: Option<IpAddr>,
    /// `free`, `reserved`, `assigned`, `cooling`, `quarantined` or `releasing`.
    pub state: String,
    pub age_ms: Option<u64>,
    /// `namespace/name`, or empty.
    pub pod: String,
    /// Container id and interface, or empty.
    pub sandbox: String,
    /// The prefix of the address, or empty.
    pub prefix: String,
    /// The reason for its state, if it is not obvious.
    pub reason: String,
    /// Ports of the node that lead to its pod.
    pub host_ports: Vec<HostPort>,
    /// The limits of its pod's traffic: rates in bits per second, bursts in bits; 0 for no limit.
    pub bandwidth: Option<v1::Bandwidth>,
    /// The address by which its pod reaches destinations of the other address family.
    pub egress_address: Option<IpAddr>,
    /// The node itself uses it.
    #[serde(skip)]
    pub host_uses: bool,
    /// The priority of a rule of another program that decides its way, or 0.
    #[serde(skip)]
    pub foreign_rule: u32,
}

/// A port of the node that leads to a pod.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// tcp, udp, sctp
    pub protocol: &'static str,
    /// The node's address; `None` for each of its addresses.
    #[serde(rename = "hostIP")]
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
}

impl From<nettypes::HostPort> for HostPort {
    fn from(port: nettypes::HostPort) -> Self {
        Self {
            protocol: port.transport.name(),
            host_ip: port.address,
            host_port: port.port,
            container_port: port.pod_port,
        }
    }
}

impl From<v1::Snapshot> for View {
    fn from(wire: v1::Snapshot) -> Self {
        Self {
            source: Source::Live,
            instance: wire.instance_id,
            instance_type: wire.instance_type,
            pod_limit: wire.pod_limit,
            pod_limit_why: wire.pod_limit_why,
            totals: wire.totals.unwrap_or_default(),
            decision: wire.decision,
            waiting: wire.queue.into_iter().map(Waiting::from).collect(),
            calls: wire.calls,
            obstacles: wire.obstacles,
            refused: wire.refused,
            places: wire.places,
            enis: wire.enis.into_iter().map(Eni::from).collect(),
            unmanaged: wire.unmanaged,
            cordoned: wire.cordoned,
            stopping: wire.stopping,
            settings: wire.settings,
        }
    }
}

impl From<v1::Waiting> for Waiting {
    fn from(wire: v1::Waiting) -> Self {
        Self {
            pod: pod(wire.pod.as_ref()),
            sandbox: sandbox(wire.sandbox.as_ref()),
            waited_ms: wire.waited_ms,
            cause: wire.cause,
        }
    }
}

impl From<v1::Eni> for Eni {
    fn from(wire: v1::Eni) -> Self {
        let missing = wire.missing;
        Self {
            phase: wire.state,
            phase_age_ms: Some(wire.state_ms),
            card: wire.card,
            // A daemon sends 0 both for the first device and for none yet; only the primary ENI has the first device.
            device: (wire.device_index > 0 || wire.is_primary).then_some(wire.device_index),
            primary: wire.is_primary,
            address: ip(&wire.primary),
            mac: mac(&wire.mac),
            subnet: wire.subnet,
            missing,
            closed: wire.closed,
            prefixes: wire.prefixes,
            addresses: wire
                .addresses
                .into_iter()
                .map(|address| Address::of(address, missing))
                .collect(),
            id: wire.id,
        }
    }
}

impl Address {
    fn of(wire: v1::Address, eni_missing: bool) -> Self {
        let reason = match wire.state.as_str() {
            "cooling" => format!("free again in {}", human_duration(wire.until_ms)),
            "quarantined" if wire.host_uses => "the node itself uses it".to_owned(),
            "assigned" if wire.host_uses => "the node itself uses it too".to_owned(),
            "quarantined" | "assigned" if wire.foreign_rule > 0 => format!(
                "ip rule {} of another program decides its way",
                wire.foreign_rule
            ),
            "quarantined" if eni_missing => "EC2 does not list its ENI as ours".to_owned(),
            "quarantined" => "EC2 does not list it".to_owned(),
            "releasing" => "it is being returned to EC2".to_owned(),
            "reserved" => "its pod is being wired".to_owned(),
            _ => String::new(),
        };
        Self {
            address: ip(&wire.address),
            age_ms: Some(wire.state_ms),
            pod: pod(wire.pod.as_ref()),
            sandbox: sandbox(wire.sandbox.as_ref()),
            prefix: wire.prefix,
            host_uses: wire.host_uses,
            foreign_rule: wire.foreign_rule,
            state: wire.state,
            reason,
            // A daemon of another release may send what this one does not know: it is left out.
            host_ports: asked::host_ports(&wire.port_mappings)
                .unwrap_or_default()
                .into_iter()
                .map(HostPort::from)
                .collect(),
            bandwidth: wire.bandwidth,
            egress_address: ip(&wire.egress_address),
        }
    }
}

/// A duration for humans: the two largest units, no fractions above ten seconds.
#[must_use]
pub fn human_duration(milliseconds: u64) -> String {
    let seconds = Duration::from_millis(milliseconds).as_secs();
    match seconds {
        0..10 => format!("{}.{} s", seconds, milliseconds % 1000 / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A rate for humans, in the largest unit in which it is at least 1.
#[must_use]
pub fn human_rate(bits_per_second: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")];
    let unit = UNITS.into_iter().find(|(unit, _)| bits_per_second >= *unit);
    let (unit, name) = unit.unwrap_or((1, ""));
    let (whole, rest) = (bits_per_second / unit, bits_per_second % unit);
    let tenths = rest * 10 / unit;
    match tenths {
        0 => format!("{whole} {name}bit/s"),
        tenths => format!("{whole}.{tenths} {name}bit/s"),
    }
}

/// Four or sixteen bytes in network order.
fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn mac(bytes: &[u8]) -> String {
    let parts: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

fn pod(pod: Option<&v1::Pod>) -> String {
    pod.filter(|pod| !pod.name.is_empty())
        .map(|pod| format!("{}/{}", pod.namespace, pod.name))
        .unwrap_or_default()
}

fn sandbox(sandbox: Option<&v1::Sandbox>) -> String {
    sandbox
        .map(|sandbox| format!("{}/{}", sandbox.container_id, sandbox.ifname))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (ms, text) in [
            (0, "0.0 s"),
            (2_450, "2.4 s"),
            (12_900, "12 s"),
            (61_000, "1 min 1 s"),
            (3_720_000, "1 h 2 min"),
            (176_400_000, "2 d 1 h"),
        ] {
            assert_eq!(human_duration(ms), text);
        }
    }

    #[test]
    fn rates_have_the_unit_that_fits() {
        for (rate, text) in [
            (999, "999 bit/s"),
            (1000, "1 kbit/s"),
            (1_500_000, "1.5 Mbit/s"),
            (10_000_000_000, "10 Gbit/s"),
        ] {
            assert_eq!(human_rate(rate), text);
        }
    }

    #[test]
    fn only_the_two_families_have_addresses() {
        assert_eq!(ip(&[10, 0, 0, 1]), Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(ip(&[0; 16]), Some(IpAddr::from([0_u16; 8])));
        assert_eq!(ip(&[]), None);
    }

    /// An older daemon sends less; unknown values must not look like facts.
    #[test]
    fn an_empty_snapshot_is_a_view() {
        let view = View::from(v1::Snapshot::default());
        assert!(view.decision.is_none() && view.enis.is_empty());
    }
}
