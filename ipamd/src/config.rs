//! The daemon's settings: read once from an injected source and parsed into types. All errors are reported together.
//!
//! Names, defaults and precedence are the AWS VPC CNI's, so that a node's environment can be kept. Must not touch the
//! process environment, files or the network.
//!
//! May use no other folder.

mod bind;
mod egress;
pub mod known;
pub mod notices;
mod proxies;
mod spans;
mod subnets;
mod tags;

use std::{
    collections::BTreeMap, fmt::Display, net::SocketAddr, path::PathBuf, str::FromStr,
    time::Duration,
};

pub use bind::Bind;
pub use egress::Egress;
use notices::Notice;
use planner::Family;
pub use proxies::Proxies;
pub use spans::{Protocol, SpanSettings};
pub use subnets::{EniConfigKeys, PodSubnets};

/// The source of settings: the process environment in production, a map in tests.
pub trait Strings {
    fn get(&self, name: &str) -> Option<String>;

    /// What there is, so that a misspelt name is noticed.
    fn names(&self) -> Vec<String>;
}

impl Strings for BTreeMap<&str, &str> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).map(|s| (*s).to_owned())
    }

    fn names(&self) -> Vec<String> {
        self.keys().map(|name| (*name).to_owned()).collect()
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

    fn names(&self) -> Vec<String> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

/// Everything that `ipamd run` needs to know before its first call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub pool: planner::Config,
    /// `ENABLE_SUBNET_DISCOVERY`, `AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG`: in which subnets pods are.
    pub pod_subnets: PodSubnets,
    pub network: Network,
    pub pods: PodSettings,
    pub egress: Egress,
    pub cloud: Cloud,
    pub paths: Paths,
    pub takeover: Takeover,
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
    /// What an operator must be told about the settings, although the daemon starts.
    pub notices: Vec<Notice>,
}

/// What pods get besides an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodSettings {
    /// `ENABLE_BANDWIDTH_PLUGIN`: pods' annotations limit their bandwidth.
    pub limit_bandwidth: bool,
    /// `DISABLE_POD_V6`: no IPv6 in pods, by the standard plugin `tuning`.
    pub disable_ipv6: bool,
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
    /// `DISABLE_LEAKED_ENI_CLEANUP` turns it off: look for unattached ENIs of this node and delete them.
    pub leaked_eni_cleanup: bool,
    /// `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`.
    pub proxies: Proxies,
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
    /// `HAWSER_NODE_CONDITIONS`: write conditions to the Node.
    pub conditions: bool,
    /// `HAWSER_NODE_EVENTS`: send events of the Node.
    pub events: bool,
    /// `HAWSER_STARTUP_TAINT`: the key of the taint that is removed from the Node when pods can be served.
    pub startup_taint: Option<String>,
}

/// The daemon's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// `HAWSER_RUN_DIR`: the directory of the socket and the state file, created with mode 0700.
    pub run_dir: PathBuf,
    /// `HOST_CNI_BIN_PATH`: the runtime's plugin directory. Standard plugins are called only if they are there.
    pub cni_bin_dir: PathBuf,
    /// `HOST_CNI_CONFDIR_PATH`: the runtime's directory of network configurations; if unset, none is written.
    pub cni_conf_dir: Option<PathBuf>,
}

/// Taking the node over from the AWS VPC CNI, and giving it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// `HAWSER_AWS_NODE_DIR`: where the AWS VPC CNI keeps its checkpoint. If the directory is there, its pods are taken over.
    pub directory: PathBuf,
    /// `HAWSER_TAKEOVER_DESPITE_POLICIES`: also pods for which network policies are in force.
    pub despite_policies: bool,
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
            notices: Vec::new(),
        };
        let mut config = read.configuration();
        read.judge();
        config.notices = read.notices;
        if read.mistakes.is_empty() {
            Ok(config)
        } else {
            Err(Mistakes(read.mistakes))
        }
    }
}

/// The spellings that Go's `strconv.ParseBool` takes, which is what manifests in the field are written for.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

struct Reader<'a> {
    source: &'a dyn Strings,
    mistakes: Vec<String>,
    notices: Vec<Notice>,
}

impl Reader<'_> {
    /// Every setting that has an effect. What is wrong is noted, and the default stands for it.
    fn configuration(&mut self) -> Config {
        let pool = self.pool();
        let egress = self.egress(pool.family);
        // Links with IPv6 addresses need IPv6's minimum.
        let widest = if egress.other_family {
            Family::V6
        } else {
            pool.family
        };
        Config {
            pod_subnets: self.pod_subnets(pool.family),
            network: self.network(widest),
            pods: PodSettings {
                limit_bandwidth: self.flag("ENABLE_BANDWIDTH_PLUGIN", true),
                disable_ipv6: self.flag("DISABLE_POD_V6", false),
            },
            pool,
            egress,
            cloud: self.cloud(),
            paths: Paths {
                run_dir: self.or("HAWSER_RUN_DIR", "a path", PathBuf::from("/run/hawser")),
                cni_bin_dir: self.or("HOST_CNI_BIN_PATH", "a path", PathBuf::from("/opt/cni/bin")),
                cni_conf_dir: self.text("HOST_CNI_CONFDIR_PATH").map(PathBuf::from),
            },
            takeover: Takeover {
                directory: self.or(
                    "HAWSER_AWS_NODE_DIR",
                    "a path",
                    PathBuf::from("/var/run/aws-node"),
                ),
                despite_policies: self.flag("HAWSER_TAKEOVER_DESPITE_POLICIES", false),
            },
            kubernetes: Kubernetes {
                node: self.text("MY_NODE_NAME"),
                endpoint: self.text("CLUSTER_ENDPOINT"),
                conditions: self.flag("HAWSER_NODE_CONDITIONS", false),
                events: self.flag("HAWSER_NODE_EVENTS", false),
                startup_taint: self.text("HAWSER_STARTUP_TAINT"),
            },
            metrics: self.metrics(),
            introspection: self.introspection(),
            probes: self.probes(),
            spans: self.span_settings(),
            log_level: self.log_level(),
            notices: Vec::new(),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        self.source.get(name).filter(|text| !text.is_empty())
    }

    fn wrong(&mut self, name: &str, text: impl Display, wanted: &str) {
        self.mistakes
            .push(format!("{name}={text}: expected {wanted}"));
    }

    fn ignore(&mut self, name: &str, text: impl Display, wanted: &str) {
        self.notices.push(Notice {
            setting: format!("{name}={}", notices::shown(name, &text.to_string())),
            kind: notices::Kind::Ignored,
            text: wanted.to_owned(),
        });
    }

    /// What is not served, and what is not known.
    fn judge(&mut self) {
        let (notices, refused) = notices::not_served(self.source);
        self.notices.extend(notices);
        self.notices.extend(notices::unknown(self.source));
        self.mistakes.extend(refused);
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

    fn flag(&mut self, name: &str, default: bool) -> bool {
        let Some(text) = self.text(name) else {
            return default;
        };
        boolean(&text).unwrap_or_else(|| {
            self.wrong(name, text, "true or false");
            default
        })
    }

    /// A count of which the AWS VPC CNI takes a negative number for "not set".
    fn count(&mut self, name: &str) -> Option<u32> {
        const WANTED: &str = "a whole number; a negative one means that it is not set";
        let count: i64 = self.maybe(name, WANTED)?;
        let count = u64::try_from(count).ok()?;
        Some(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Every link must carry packets of 576 bytes in IPv4 (RFC 791), of 1280 in IPv6 (RFC 8200).
    fn mtu(&mut self, name: &str, default: u32, family: Family) -> u32 {
        let (least, wanted) = match family {
            Family::V4 => (576, "bytes from 576 to 9001"),
            Family::V6 => (1280, "bytes from 1280 to 9001 with IPv6"),
        };
        let mtu = self.or(name, wanted, default);
        if !(least..=9001).contains(&mtu) {
            self.wrong(name, mtu, wanted);
        }
        mtu
    }

    fn pool(&mut self) -> planner::Config {
        let default = planner::Config::default();
        // Manifests use zero for "not set" for the two IP targets.
        let target = |n: Option<u32>| n.filter(|&n| n > 0);
        planner::Config {
            family: self.family(),
            warm_eni_target: self.count("WARM_ENI_TARGET"),
            warm_ip_target: target(self.count("WARM_IP_TARGET")),
            minimum_ip_target: target(self.count("MINIMUM_IP_TARGET")),
            warm_prefix_target: self.count("WARM_PREFIX_TARGET"),
            max_eni: target(self.count("MAX_ENI")).map(|n| u16::try_from(n).unwrap_or(u16::MAX)),
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
            cluster: self.cluster(),
            extra_tags: self.extra_tags(),
            manage_untagged: self.flag("MANAGE_UNTAGGED_ENI", true),
            proxies: self.proxies(),
            leaked_eni_cleanup: !self.flag("DISABLE_LEAKED_ENI_CLEANUP", false),
            timeout: Duration::from_secs(timeout.max(10)),
        }
    }

    /// A value of the tags that every ENI gets.
    fn cluster(&mut self) -> Option<String> {
        let name = self.text("CLUSTER_NAME")?;
        match tags::fault("cluster", &name) {
            Some(expected) => {
                self.ignore("CLUSTER_NAME", name, expected);
                None
            }
            None => Some(name),
        }
    }

    /// Reports a tag that EC2 would refuse. The others are set.
    fn leave_out_tag(&mut self, name: &str, key: &str, expected: &str) {
        let key = notices::shown("", key);
        self.notices.push(Notice {
            setting: format!("{name}[{key:?}]"),
            kind: notices::Kind::Ignored,
            text: expected.to_owned(),
        });
    }

    fn extra_tags(&mut self) -> BTreeMap<String, String> {
        let Some(text) = self.text("ADDITIONAL_ENI_TAGS") else {
            return BTreeMap::new();
        };
        match serde_json::from_str::<BTreeMap<String, String>>(&text) {
            // As in the AWS VPC CNI, the tags that identify a node's ENIs cannot be set.
            Ok(mut tags) => {
                tags.retain(|key, _| !key.contains("k8s.amazonaws.com"));
                let (accepted, refused) = tags::sorted_out(tags);
                for (key, expected) in refused {
                    self.leave_out_tag("ADDITIONAL_ENI_TAGS", &key, expected);
                }
                accepted
            }
            // As the AWS VPC CNI does: ENIs without these tags are better than pods without addresses.
            Err(_) => {
                self.ignore("ADDITIONAL_ENI_TAGS", text, "a JSON object of strings");
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
        Family::V6
    }
}

#[cfg(test)]
mod tests;
