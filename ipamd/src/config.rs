//! The daemon's settings: read once from an injected source and parsed into types. All errors are reported together.
//!
//! Names, defaults and precedence are the AWS VPC CNI's, so that a node's environment can be kept. Must not touch the
//! process environment, files or the network.
//!
//! May use no other folder.

mod bind;
mod egress;
mod spans;

use std::{
    collections::BTreeMap, fmt::Display, net::SocketAddr, path::PathBuf, str::FromStr,
    time::Duration,
};

pub use bind::Bind;
pub use egress::Egress;
use planner::Family;
pub use spans::{Protocol, SpanSettings};

/// The source of settings: the process environment in production, a map in tests.
pub trait Strings {
    fn get(&self, name: &str) -> Option<String>;
}

impl Strings for BTreeMap<&str, &str> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).map(|s| (*s).to_owned())
    }
}

/// The process environment. The only place that reads it.
#[derive(Clone, Copy, Debug)]
pub struct Environment;

impl Strings for Environment {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one implementation of Strings over the environment"
    )]
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Everything that `ipamd run` needs to know before its first call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub pool: planner::Config,
    pub network: Network,
    pub egress: Egress,
    pub cloud: Cloud,
    pub paths: Paths,
    pub kubernetes: Kubernetes,
    /// The address of `/metrics` (`DISABLE_METRICS` disables it). The AWS VPC CNI's port is 61678.
    pub metrics: Option<SocketAddr>,
    /// `INTROSPECTION_BIND_ADDRESS`: the address of the live page and its JSON (`DISABLE_INTROSPECTION` disables them).
    pub introspection: Option<Bind>,
    /// `HAWSER_PROBE_ADDRESS`: the address for kubelet's probes.
    pub probes: SocketAddr,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` and related variables; if unset, no spans are created.
    pub spans: Option<SpanSettings>,
    /// `AWS_VPC_K8S_CNI_LOGLEVEL`.
    pub log_level: tracing::Level,
    /// Settings that are treated as unset, one line each: those for which the AWS VPC CNI accepts any text.
    pub ignored: Vec<String>,
}

/// The configuration of pods' links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// `AWS_VPC_ENI_MTU`: the MTU of every managed ENI, in bytes.
    pub eni_mtu: u32,
    /// `POD_MTU`, or the ENIs' MTU.
    pub pod_mtu: u32,
    /// `AWS_VPC_K8S_CNI_VETHPREFIX`: at most four characters before the hash.
    pub veth_prefix: String,
    /// `HAWSER_BLOCK_POD_IMDS`: pods cannot reach the instance metadata service.
    pub block_pod_imds: bool,
}

/// Settings for EC2 calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloud {
    /// `CLUSTER_NAME`.
    pub cluster: Option<String>,
    /// `ADDITIONAL_ENI_TAGS`, a JSON object of strings.
    pub extra_tags: BTreeMap<String, String>,
    /// `MANAGE_UNTAGGED_ENI`: adopt attached ENIs without our tag.
    pub manage_untagged: bool,
    /// `HTTP_TIMEOUT`: the time limit of one EC2 or metadata call.
    pub timeout: Duration,
}

/// The node's identity in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// `MY_NODE_NAME`, from the downward API; if unset, the Node object is not watched.
    pub node: Option<String>,
    /// `CLUSTER_ENDPOINT`: the API server's URL, instead of its Service's address.
    pub endpoint: Option<String>,
}

/// The daemon's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// `HAWSER_RUN_DIR`: the directory of the socket and the state file, created with mode 0700.
    pub run_dir: PathBuf,
    /// `HOST_CNI_BIN_PATH`: the runtime's plugin directory.
    pub cni_bin_dir: PathBuf,
    /// `HOST_CNI_CONFDIR_PATH`: the runtime's directory of network configurations; if unset, none is written.
    pub cni_conf_dir: Option<PathBuf>,
}

impl Paths {
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("ipamd.sock")
    }

    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.run_dir.join("state")
    }
}

/// Every invalid setting, one line each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(pub Vec<String>);

impl Config {
    /// Reads every setting; a variable that is unset or empty means its default.
    ///
    /// # Errors
    /// [`Mistakes`] lists each invalid variable with its text and what would be accepted.
    pub fn read(source: &dyn Strings) -> Result<Self, Mistakes> {
        let mut read = Reader {
            source,
            mistakes: Vec::new(),
            ignored: Vec::new(),
        };
        let pool = read.pool();
        let mut config = Self {
            network: read.network(pool.family),
            pool,
            egress: read.egress(),
            cloud: read.cloud(),
            paths: Paths {
                run_dir: read.or("HAWSER_RUN_DIR", "a path", PathBuf::from("/run/hawser")),
                cni_bin_dir: read.or("HOST_CNI_BIN_PATH", "a path", PathBuf::from("/opt/cni/bin")),
                cni_conf_dir: read.text("HOST_CNI_CONFDIR_PATH").map(PathBuf::from),
            },
            kubernetes: Kubernetes {
                node: read.text("MY_NODE_NAME"),
                endpoint: read.text("CLUSTER_ENDPOINT"),
            },
            metrics: read.metrics(),
            introspection: read.introspection(),
            probes: read.probes(),
            spans: read.span_settings(),
            log_level: read.log_level(),
            ignored: Vec::new(),
        };
        config.ignored = read.ignored;
        if read.mistakes.is_empty() {
            Ok(config)
        } else {
            Err(Mistakes(read.mistakes))
        }
    }
}

struct Reader<'a> {
    source: &'a dyn Strings,
    mistakes: Vec<String>,
    ignored: Vec<String>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.source.get(name).filter(|text| !text.is_empty())
    }

    fn wrong(&mut self, name: &str, text: impl Display, wanted: &str) {
        self.mistakes
            .push(format!("{name}={text}: expected {wanted}"));
    }

    fn ignore(&mut self, name: &str, text: impl Display, wanted: &str) {
        self.ignored
            .push(format!("{name}={text}: expected {wanted}"));
    }

    fn maybe<T: FromStr>(&mut self, name: &str, wanted: &str) -> Option<T> {
        let text = self.text(name)?;
        let parsed = text.trim().parse().ok();
        if parsed.is_none() {
            self.wrong(name, text, wanted);
        }
        parsed
    }

    fn or<T: FromStr>(&mut self, name: &str, wanted: &str, default: T) -> T {
        self.maybe(name, wanted).unwrap_or(default)
    }

    /// The values that Go's `strconv.ParseBool` accepts, because existing manifests use them.
    fn flag(&mut self, name: &str, default: bool) -> bool {
        match self.text(name).as_deref() {
            None => default,
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
            Some(text) => {
                let text = text.to_owned();
                self.wrong(name, text, "true or false");
                default
            }
        }
    }

    /// Every link must carry packets of 576 bytes in IPv4 (RFC 791), of 1280 in IPv6 (RFC 8200).
    fn mtu(&mut self, name: &str, default: u32, family: Family) -> u32 {
        let (least, wanted) = match family {
            Family::V4 => (576, "bytes from 576 to 9001"),
            Family::V6 => (1280, "bytes from 1280 to 9001 with ENABLE_IPv6"),
        };
        let mtu = self.or(name, wanted, default);
        if !(least..=9001).contains(&mtu) {
            self.wrong(name, mtu, wanted);
        }
        mtu
    }

    fn pool(&mut self) -> planner::Config {
        const COUNT: &str = "a whole number, 0 or more";
        let default = planner::Config::default();
        // Manifests use zero for "not set" for the two IP targets.
        let target = |n: Option<u32>| n.filter(|&n| n > 0);
        planner::Config {
            family: self.family(),
            warm_eni_target: self.maybe("WARM_ENI_TARGET", COUNT),
            warm_ip_target: target(self.maybe("WARM_IP_TARGET", COUNT)),
            minimum_ip_target: target(self.maybe("MINIMUM_IP_TARGET", COUNT)),
            warm_prefix_target: self.maybe("WARM_PREFIX_TARGET", COUNT),
            max_eni: self.maybe::<u16>("MAX_ENI", COUNT).filter(|&n| n > 0),
            prefix_delegation: self.flag("ENABLE_PREFIX_DELEGATION", default.prefix_delegation),
            cooldown: Duration::from_secs(self.or("IP_COOLDOWN_PERIOD", "seconds, 0 or more", 30)),
            manage_cordoned: self.flag("AWS_MANAGE_ENIS_NON_SCHEDULABLE", default.manage_cordoned),
            provisioning: !self.flag("DISABLE_NETWORK_RESOURCE_PROVISIONING", false),
        }
    }

    fn network(&mut self, family: Family) -> Network {
        let eni_mtu = self.mtu("AWS_VPC_ENI_MTU", 9001, family);
        let veth_prefix = self
            .text("AWS_VPC_K8S_CNI_VETHPREFIX")
            .unwrap_or_else(|| "eni".to_owned());
        if let Err(why) = proto::names::VethPrefix::try_from(veth_prefix.as_str()) {
            self.mistakes
                .push(format!("AWS_VPC_K8S_CNI_VETHPREFIX={veth_prefix}: {why}"));
        }
        Network {
            eni_mtu,
            pod_mtu: self.mtu("POD_MTU", eni_mtu, family),
            veth_prefix,
            block_pod_imds: self.flag("HAWSER_BLOCK_POD_IMDS", false),
        }
    }

    fn cloud(&mut self) -> Cloud {
        let timeout = self.or("HTTP_TIMEOUT", "seconds, 10 or more", 10_u64);
        Cloud {
            cluster: self.text("CLUSTER_NAME"),
            extra_tags: self.extra_tags(),
            manage_untagged: self.flag("MANAGE_UNTAGGED_ENI", true),
            timeout: Duration::from_secs(timeout.max(10)),
        }
    }

    fn extra_tags(&mut self) -> BTreeMap<String, String> {
        let Some(text) = self.text("ADDITIONAL_ENI_TAGS") else {
            return BTreeMap::new();
        };
        match serde_json::from_str::<BTreeMap<String, String>>(&text) {
            // As in the AWS VPC CNI, the tags that identify a node's ENIs cannot be set.
            Ok(tags) => tags
                .into_iter()
                .filter(|(key, _)| !key.contains("k8s.amazonaws.com"))
                .collect(),
            Err(_) => {
                self.wrong("ADDITIONAL_ENI_TAGS", text, "a JSON object of strings");
                BTreeMap::new()
            }
        }
    }

    fn metrics(&mut self) -> Option<SocketAddr> {
        let address = self.or(
            "HAWSER_METRICS_ADDRESS",
            "an address and port",
            SocketAddr::from(([0, 0, 0, 0], 61678)),
        );
        (!self.flag("DISABLE_METRICS", false)).then_some(address)
    }

    fn probes(&mut self) -> SocketAddr {
        let default = SocketAddr::from(([127, 0, 0, 1], 61680));
        self.or("HAWSER_PROBE_ADDRESS", "an address and port", default)
    }

    fn introspection(&mut self) -> Option<Bind> {
        const NAME: &str = "INTROSPECTION_BIND_ADDRESS";
        let text = self
            .text(NAME)
            .unwrap_or_else(|| "127.0.0.1:61679".to_owned());
        let bind = match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Some(Bind::Unix(path.into())),
            Some(_) => None,
            None => text.parse().ok().map(Bind::Tcp),
        };
        if bind.is_none() {
            self.wrong(NAME, text, "an address and port, or unix:/path");
        }
        bind.filter(|_| !self.flag("DISABLE_INTROSPECTION", false))
    }

    fn log_level(&mut self) -> tracing::Level {
        let text = self
            .text("AWS_VPC_K8S_CNI_LOGLEVEL")
            .unwrap_or_else(|| "INFO".to_owned());
        match text.to_ascii_uppercase().as_str() {
            "DEBUG" => tracing::Level::DEBUG,
            "INFO" => tracing::Level::INFO,
            "WARN" => tracing::Level::WARN,
            "ERROR" | "FATAL" => tracing::Level::ERROR,
            _ => {
                self.wrong(
                    "AWS_VPC_K8S_CNI_LOGLEVEL",
                    text,
                    "DEBUG, INFO, WARN, ERROR or FATAL",
                );
                tracing::Level::INFO
            }
        }
    }

    /// Exactly one family. The AWS VPC CNI's manifest sets `ENABLE_IPv4=true`, so adding only `ENABLE_IPv6=true` to it
    /// enables both, which is an error; if `ENABLE_IPv4` is unset, it defaults to the opposite.
    fn family(&mut self) -> Family {
        let six = self.flag("ENABLE_IPv6", false);
        let four = self.flag("ENABLE_IPv4", !six);
        match (four, six) {
            (true, false) => return Family::V4,
            (false, true) => {}
            (true, true) => self.wrong(
                "ENABLE_IPv6",
                "true",
                "false, or ENABLE_IPv4=false: pods have addresses of one family",
            ),
            (false, false) => self.wrong(
                "ENABLE_IPv4",
                "false",
                "true, or ENABLE_IPv6=true: pods have addresses of one family",
            ),
        }
        if six && !self.flag("ENABLE_PREFIX_DELEGATION", false) {
            let wanted = "true: with ENABLE_IPv6 pods' addresses come from a prefix";
            self.wrong("ENABLE_PREFIX_DELEGATION", "false", wanted);
        }
        if six && self.flag("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", false) {
            let wanted = "false: with ENABLE_IPv6 pods' addresses are on the primary ENI";
            self.wrong("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true", wanted);
        }
        Family::V6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<Config, Mistakes> {
        Config::read(&pairs.iter().copied().collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn an_empty_environment_gives_upstreams_defaults() {
        let config = read(&[]).unwrap();
        assert_eq!(config.pool, planner::Config::default());
        assert_eq!(
            config.network,
            Network {
                eni_mtu: 9001,
                pod_mtu: 9001,
                veth_prefix: "eni".into(),
                block_pod_imds: false,
            }
        );
        assert_eq!(
            config.paths.socket(),
            PathBuf::from("/run/hawser/ipamd.sock")
        );
        assert_eq!(config.metrics, Some("0.0.0.0:61678".parse().unwrap()));
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let Mistakes(lines) = read(&[
            ("WARM_ENI_TARGET", "one"),
            ("AWS_VPC_ENI_MTU", "100"),
            ("AWS_VPC_K8S_CNI_VETHPREFIX", "vlan"),
            ("DISABLE_METRICS", "yes"),
            ("ADDITIONAL_ENI_TAGS", "[]"),
            ("ENABLE_IPv6", "true"),
            ("ENABLE_IPv4", "true"),
        ])
        .unwrap_err();
        let all = lines.join("\n");
        for name in [
            "WARM_ENI_TARGET",
            "AWS_VPC_ENI_MTU",
            "VETHPREFIX",
            "DISABLE_METRICS",
            "ENI_TAGS",
            "ENABLE_IPv6",
        ] {
            assert!(all.contains(name), "{name} is missing from:\n{all}");
        }
    }

    #[test]
    fn pods_have_addresses_of_one_family() {
        let six = [
            ("ENABLE_IPv6", "true"),
            ("ENABLE_IPv4", "false"),
            ("ENABLE_PREFIX_DELEGATION", "true"),
        ];
        assert_eq!(read(&six).unwrap().pool.family, Family::V6);
        assert_eq!(read(&[six[0], six[2]]).unwrap().pool.family, Family::V6);
        assert_eq!(read(&[]).unwrap().pool.family, Family::V4);
        for (wrong, named) in [
            (&[six[1]][..], "ENABLE_IPv4=false"),
            (&[six[0], six[1]], "ENABLE_PREFIX_DELEGATION=false"),
            (
                &[six[0], six[2], ("ENABLE_IPv4", "true")],
                "ENABLE_IPv6=true",
            ),
            (
                &[six[0], six[2], ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "1")],
                "CUSTOM_NETWORK_CFG",
            ),
        ] {
            let Mistakes(lines) = read(wrong).unwrap_err();
            assert!(lines.len() == 1 && lines[0].contains(named), "{lines:?}");
        }
    }

    #[test]
    fn a_link_of_ipv6_carries_1280_bytes() {
        let six = [
            ("ENABLE_IPv6", "true"),
            ("ENABLE_PREFIX_DELEGATION", "true"),
        ];
        let mtu = |bytes: &'static str, more: &[(&'static str, &'static str)]| {
            let all: Vec<_> = more.iter().copied().chain([("POD_MTU", bytes)]).collect();
            read(&all)
        };
        assert_eq!(mtu("576", &[]).unwrap().network.pod_mtu, 576);
        assert_eq!(mtu("1280", &six).unwrap().network.pod_mtu, 1280);
        let Mistakes(lines) = mtu("1279", &six).unwrap_err();
        assert_eq!(
            lines,
            ["POD_MTU=1279: expected bytes from 1280 to 9001 with ENABLE_IPv6"]
        );
    }

    #[test]
    fn zero_means_unset_for_the_ip_targets_and_max_eni() {
        let pool = read(&[
            ("WARM_IP_TARGET", "0"),
            ("MINIMUM_IP_TARGET", "0"),
            ("MAX_ENI", "0"),
        ])
        .unwrap()
        .pool;
        assert_eq!(
            (pool.warm_ip_target, pool.minimum_ip_target, pool.max_eni),
            (None, None, None)
        );
    }

    /// If unset, the pool sizes itself; zero is an ordinary target.
    #[test]
    fn warm_eni_and_prefix_targets_tell_unset_from_zero() {
        let set = read(&[("WARM_ENI_TARGET", "1"), ("WARM_PREFIX_TARGET", "0")])
            .unwrap()
            .pool;
        assert_eq!(
            (set.warm_eni_target, set.warm_prefix_target),
            (Some(1), Some(0))
        );
        let unset = read(&[]).unwrap().pool;
        assert_eq!(
            (unset.warm_eni_target, unset.warm_prefix_target),
            (None, None)
        );
    }

    #[test]
    fn pod_mtu_follows_the_enis_unless_set() {
        assert_eq!(
            read(&[("AWS_VPC_ENI_MTU", "1500")])
                .unwrap()
                .network
                .pod_mtu,
            1500
        );
        assert_eq!(
            read(&[("AWS_VPC_ENI_MTU", "1500"), ("POD_MTU", "1400")])
                .unwrap()
                .network
                .pod_mtu,
            1400
        );
    }

    #[test]
    fn extra_tags_cannot_forge_ownership() {
        let tags = read(&[(
            "ADDITIONAL_ENI_TAGS",
            r#"{"team":"net","node.k8s.amazonaws.com/instance_id":"i-0"}"#,
        )])
        .unwrap()
        .cloud
        .extra_tags;
        assert_eq!(
            tags,
            BTreeMap::from([("team".to_owned(), "net".to_owned())])
        );
    }
}
