//! What the runtime passes for the capabilities of the plugin (`runtimeConfig`): the pod's host ports and bandwidth, in the
//! shapes of the CNI conventions.
//!
//! containerd passes only ports with a `hostPort`, and a burst of 2³²−1 bits with each rate. It writes the keys of ports and
//! limits with a capital letter, because plugins in Go ignore the case of keys. Other keys are ignored.

use std::net::IpAddr;

use nettypes::{Asked, Bandwidth, HostPort, Transport};
use proto::asked::{self, AskedError};
use serde_json::{Map, Value};

use super::conf::{Conf, ConfError, kind};
use crate::error::{Failure, code};

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeConfigError {
    #[error(transparent)]
    Type(#[from] ConfError),
    #[error("{key} of a port mapping is {found} where a number from 1 to 65535 was expected")]
    Port { key: &'static str, found: String },
    #[error("protocol of host port {port} is {found} where tcp, udp or sctp was expected")]
    Protocol { port: u16, found: String },
    #[error("hostIP of host port {port} is {found} where an IP address was expected")]
    HostIp { port: u16, found: String },
    #[error("{key} is {found} where a number of bits was expected")]
    Quantity { key: &'static str, found: String },
    #[error("the pod asks for what no pod can have")]
    Asked(#[from] AskedError),
}

impl From<RuntimeConfigError> for Failure {
    fn from(error: RuntimeConfigError) -> Self {
        match error {
            RuntimeConfigError::Type(error) => error.into(),
            RuntimeConfigError::Port { .. }
            | RuntimeConfigError::Protocol { .. }
            | RuntimeConfigError::HostIp { .. }
            | RuntimeConfigError::Quantity { .. }
            | RuntimeConfigError::Asked(_) => Self::new(
                code::CONFIG,
                &error,
                "correct the ports of the pod's containers, or its annotations kubernetes.io/ingress-bandwidth and \
                 kubernetes.io/egress-bandwidth",
            ),
        }
    }
}

/// What the pod asks of its network.
pub fn asked(conf: &Conf) -> Result<Asked, RuntimeConfigError> {
    read(conf.get("runtimeConfig"))
}

/// Absent and `null` mean the same.
fn read(runtime_config: Option<&Value>) -> Result<Asked, RuntimeConfigError> {
    let all = object("runtimeConfig", runtime_config)?;
    let get = |key| all.and_then(|all| all.get(key));
    Ok(Asked {
        ports: ports(get("portMappings"))?,
        bandwidth: bandwidth(object("bandwidth", get("bandwidth"))?)?,
    })
}

fn object<'a>(
    key: &'static str,
    value: Option<&'a Value>,
) -> Result<Option<&'a Map<String, Value>>, ConfError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(other) => Err(wrong(key, other, "an object")),
    }
}

fn wrong(key: &'static str, value: &Value, want: &'static str) -> ConfError {
    let found = kind(value);
    ConfError::Type { key, found, want }
}

fn ports(value: Option<&Value>) -> Result<Vec<HostPort>, RuntimeConfigError> {
    let entries = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(entries)) => entries,
        Some(other) => return Err(wrong("portMappings", other, "an array").into()),
    };
    let ports: Result<Vec<_>, _> = entries.iter().map(host_port).collect();
    Ok(asked::distinct(ports?)?)
}

fn host_port(entry: &Value) -> Result<HostPort, RuntimeConfigError> {
    let Value::Object(entry) = entry else {
        return Err(wrong("an entry of portMappings", entry, "an object").into());
    };
    let port = number(entry, "hostPort")?;
    let pod_port = number(entry, "containerPort")?;
    let protocol = value_of(entry, "protocol");
    let name = protocol.and_then(Value::as_str);
    let transport = name.and_then(Transport::of_name).ok_or_else(|| {
        let found = shown(protocol);
        RuntimeConfigError::Protocol { port, found }
    })?;
    let address = match value_of(entry, "hostIP") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(value) => {
            let address: Option<IpAddr> = value.as_str().and_then(|text| text.parse().ok());
            let found = || shown(Some(value));
            Some(address.ok_or_else(|| RuntimeConfigError::HostIp {
                port,
                found: found(),
            })?)
        }
    };
    Ok(HostPort {
        transport,
        port,
        address: address.filter(|address| !address.is_unspecified()),
        pod_port,
    })
}

/// The value of a key, whatever the case of its letters.
fn value_of<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    let same = |(found, _): &(&String, _)| found.eq_ignore_ascii_case(key);
    let exact = object.get(key);
    exact.or_else(|| object.iter().find(same).map(|(_, value)| value))
}

fn number(entry: &Map<String, Value>, key: &'static str) -> Result<u16, RuntimeConfigError> {
    let value = value_of(entry, key);
    let number = value.and_then(Value::as_u64);
    match number.and_then(|number| u16::try_from(number).ok()) {
        Some(port) if port > 0 => Ok(port),
        _ => {
            let found = shown(value);
            Err(RuntimeConfigError::Port { key, found })
        }
    }
}

fn bandwidth(limits: Option<&Map<String, Value>>) -> Result<Bandwidth, RuntimeConfigError> {
    let Some(limits) = limits else {
        return Ok(Bandwidth::default());
    };
    let limit = |direction, rate, burst| -> Result<_, RuntimeConfigError> {
        let (rate, burst) = (quantity(limits, rate)?, quantity(limits, burst)?);
        Ok(asked::limit(direction, rate, burst)?)
    };
    Ok(Bandwidth {
        ingress: limit("ingress", "ingressRate", "ingressBurst")?,
        egress: limit("egress", "egressRate", "egressBurst")?,
    })
}

fn quantity(limits: &Map<String, Value>, key: &'static str) -> Result<u64, RuntimeConfigError> {
    match value_of(limits, key) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => value.as_u64().ok_or_else(|| {
            let found = shown(Some(value));
            RuntimeConfigError::Quantity { key, found }
        }),
    }
}

fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "absent".to_owned(), ToString::to_string);
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(runtime_config: &Value) -> Result<Asked, Failure> {
        read(Some(runtime_config)).map_err(Failure::from)
    }

    #[test]
    fn the_shapes_of_the_conventions_are_read() {
        let read = told(&json!({
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
                {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "10.0.0.5"},
                {"hostPort": 9, "containerPort": 9, "protocol": "sctp", "hostIP": "::"},
            ],
            "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 4_294_967_295_u64, "egressRate": 0, "egressBurst": 0},
            "dns": {"servers": []},
        }))
        .unwrap();
        let shown: Vec<_> = read.ports.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["8080/tcp", "10.0.0.5:53/udp", "9/sctp"]);
        assert_eq!(read.ports[1].pod_port, 5353);
        let ingress = read.bandwidth.ingress.unwrap();
        assert_eq!((ingress.rate, ingress.burst), (1_000_000, 4_294_967_295));
        assert_eq!(read.bandwidth.egress, None);
    }

    /// What containerd's library passes: its types have no names for JSON.
    #[test]
    fn the_case_of_keys_does_not_matter() {
        let read = told(&json!({
            "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
            "bandwidth": {"IngressRate": 0, "IngressBurst": 0, "EgressRate": 1000, "EgressBurst": 1},
        }))
        .unwrap();
        assert_eq!(read.ports[0].to_string(), "8080/tcp");
        assert_eq!(read.bandwidth.egress.unwrap().rate, 1000);
    }

    #[test]
    fn absent_and_null_ask_for_nothing() {
        assert_eq!(read(None).unwrap(), Asked::default());
        for nothing in [
            json!(null),
            json!({}),
            json!({"portMappings": null, "bandwidth": null}),
            json!({"portMappings": [], "bandwidth": {}}),
            json!({"bandwidth": {"ingressRate": null}}),
        ] {
            assert_eq!(told(&nothing), Ok(Asked::default()), "{nothing}");
        }
    }

    #[test]
    fn what_no_pod_can_have_is_refused() {
        let port = |key: &str, value: Value| {
            let mut entry = json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"});
            entry[key] = value;
            json!({"portMappings": [entry]})
        };
        let limit = |keys: Value| json!({ "bandwidth": keys });
        for bad in [
            port("hostPort", json!(0)),
            port("hostPort", json!(65536)),
            port("hostPort", json!(-1)),
            port("hostPort", json!("8080")),
            port("hostPort", json!(80.5)),
            port("containerPort", json!(0)),
            port("containerPort", json!(null)),
            port("protocol", json!("icmp")),
            port("protocol", json!(null)),
            port("hostIP", json!("localhost")),
            port("hostIP", json!(7)),
            json!({"portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": 8080, "containerPort": 81, "protocol": "tcp"},
            ]}),
            limit(json!({"ingressRate": "1M", "ingressBurst": 1})),
            limit(json!({"ingressRate": -1, "ingressBurst": 1})),
            limit(json!({"ingressRate": 1e30, "ingressBurst": 1})),
            limit(json!({"ingressRate": 999, "ingressBurst": 1})),
            limit(json!({"egressRate": 1000, "egressBurst": 0})),
            limit(json!({"egressRate": 1000})),
            limit(json!({"egressBurst": 1000})),
        ] {
            assert_eq!(told(&bad).unwrap_err().code, 7, "{bad}");
        }
        for broken in [
            json!([]),
            json!({"portMappings": {}}),
            json!({"portMappings": ["8080:80"]}),
            json!({"bandwidth": []}),
        ] {
            assert_eq!(told(&broken).unwrap_err().code, 6, "{broken}");
        }
    }
}
