//! The real AWS VPC CNI on a node of the lab: its daemon as a process, and its plugins for the container runtime.
//!
//! `make` builds its programs from the Go module proxy. What its image does beside starting the daemon is done here: the
//! plugins and the network configuration are copied to the host. Paths that are compiled into its programs are below `/run`,
//! so a test has one such node, after [`Containerd`](crate::containerd::Containerd) made `/run` private. Must not know Hawser.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use vpc_sim::Instance;

use super::{Lab, aws_node::Kind};
use crate::{containerd::CniDirs, node::Node, wait::eventually};

/// Where its daemon keeps its checkpoint and listens.
pub const DIRECTORY: &str = "/run/aws-node";
/// It waits five seconds for each ENI that it attaches.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Of the standard plugins that its configuration names.
const STANDARD: &str = "/usr/lib/cni";
/// The settings of the host that images for Kubernetes nodes and its init container make, as a shell command.
pub const HOST: &str = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.eth0.rp_filter=2";
/// What its programs are called on a node.
const NAMES: [(&str, &str); 2] = [
    ("routed-eni-cni-plugin", "aws-cni"),
    ("egress-cni-plugin", "egress-cni"),
];

/// See the module.
#[derive(Debug)]
pub struct AwsVpcCni {
    kind: Kind,
    /// More of its settings.
    settings: Vec<(String, String)>,
    cni: CniDirs,
    log: PathBuf,
    daemon: Option<Child>,
}

impl AwsVpcCni {
    /// Installs its plugins in the runtime's directory.
    ///
    /// # Errors
    /// If its programs are not built, or a file cannot be written.
    pub fn install(
        lab: &Lab,
        kind: Kind,
        settings: &[(&str, &str)],
        cni: CniDirs,
    ) -> io::Result<Self> {
        install_plugins(&cni.bin)?;
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Ok(Self {
            kind,
            settings: settings.iter().map(owned).collect(),
            cni,
            log: lab.dir().join("aws-node.log"),
            daemon: None,
        })
    }

    /// Starts its daemon on `node`, and gives the runtime its network configuration as soon as it serves.
    ///
    /// # Errors
    /// If it does not serve in time. The error contains its log.
    pub fn start(&mut self, lab: &Lab, node: &Node) -> io::Result<()> {
        node.shell(HOST)?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        let name = node.instance.id.to_string();
        let mut command = Command::new(agent()?);
        command
            .env_clear()
            .envs(environment(self.kind, &name, &lab.sim.ec2_endpoint()))
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut daemon = node.netns().run(move || command.spawn())??;
        let serves = || UnixStream::connect(Path::new(DIRECTORY).join("ipamd.sock")).is_ok();
        let mut ended = || !matches!(daemon.try_wait(), Ok(None));
        eventually(READY_LIMIT, || serves() || ended());
        self.daemon = Some(daemon);
        if !serves() {
            return Err(io::Error::other(format!(
                "it does not serve:\n{}",
                self.log()
            )));
        }
        self.configure(node)
    }

    fn configure(&self, node: &Node) -> io::Result<()> {
        let log = self.log.with_file_name("aws-cni.log");
        let text = network_configuration(self.kind, &node.instance, &log)?;
        let unfinished = self.cni.conf.join("10-aws.tmp");
        fs::write(&unfinished, text)?;
        fs::rename(unfinished, self.cni.conf.join("10-aws.conflist"))
    }

    /// Ends its daemon with SIGKILL, as the kubelet does after the grace period: a daemon that serves ignores SIGTERM.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self) -> io::Result<()> {
        let Some(mut daemon) = self.daemon.take() else {
            return Err(io::Error::other("it does not run"));
        };
        daemon.kill()?;
        daemon.wait().map(drop)
    }

    /// What its daemons have logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What its plugins have logged.
    #[must_use]
    pub fn plugin_log(&self) -> String {
        fs::read_to_string(self.log.with_file_name("aws-cni.log")).unwrap_or_default()
    }
}

impl Drop for AwsVpcCni {
    fn drop(&mut self) {
        drop(self.kill());
    }
}

/// Copies its plugins, and the standard ones that it uses, into the runtime's directory.
///
/// # Errors
/// If its programs are not built, or a file cannot be written.
pub fn install_plugins(bin: &Path) -> io::Result<()> {
    let programs = programs()?;
    for (built, name) in NAMES {
        fs::copy(programs.join(built), bin.join(name))?;
    }
    for name in ["portmap", "host-local", "bandwidth"] {
        fs::copy(Path::new(STANDARD).join(name), bin.join(name))?;
    }
    Ok(())
}

/// Its daemon's program.
///
/// # Errors
/// If it is not built.
pub fn agent() -> io::Result<PathBuf> {
    Ok(programs()?.join("aws-k8s-agent"))
}

/// The environment of its daemon on the node of this name.
#[must_use]
pub fn environment(kind: Kind, node: &str, ec2: &str) -> BTreeMap<String, String> {
    let always = [
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ("MY_NODE_NAME", node),
        ("AWS_ENDPOINT_URL_EC2", ec2),
        ("AWS_VPC_K8S_CNI_LOG_FILE", "stdout"),
        ("AWS_VPC_K8S_CNI_LOGLEVEL", "DEBUG"),
        // Its manifest says so; the default is that both families are off.
        ("ENABLE_IPv4", "true"),
        // Without an API server, it cannot ask whether its node is schedulable.
        ("AWS_MANAGE_ENIS_NON_SCHEDULABLE", "true"),
    ];
    let all = always.into_iter().chain(kind.settings());
    all.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The network configuration that its entry point gives the runtime. The plugins log to `log`.
///
/// # Errors
/// If its programs are not built.
pub fn network_configuration(kind: Kind, instance: &Instance, log: &Path) -> io::Result<String> {
    let six = kind == Kind::Ipv6;
    let (subnet, to, leases) = match six {
        true => (
            "169.254.172.0/22",
            "0.0.0.0/0",
            "/run/cni/v6pd/egress-v4-ipam",
        ),
        false => ("fd00::ac:00/118", "::/0", "/run/cni/v4pd/egress-v6-ipam"),
    };
    let own = instance.address.to_string();
    let log = log.display().to_string();
    let mut text = fs::read_to_string(programs()?.join("10-aws.conflist"))?;
    for (name, value) in [
        ("VETHPREFIX", "eni"),
        ("MTU", "9001"),
        ("PODSGENFORCINGMODE", "strict"),
        ("PLUGINLOGFILE", &log),
        ("EGRESSPLUGINLOGFILE", &log),
        ("PLUGINLOGLEVEL", "Debug"),
        ("EGRESSPLUGINENABLED", if six { "true" } else { "false" }),
        ("EGRESSPLUGINIPAMSUBNET", subnet),
        ("EGRESSPLUGINIPAMDST", to),
        ("EGRESSPLUGINIPAMDATADIR", leases),
        ("RANDOMIZESNAT", "prng"),
        ("NODEIP", if six { &own } else { "" }),
    ] {
        text = text.replace(&format!("__{name}__"), value);
    }
    Ok(text)
}

/// The directory of its programs.
fn programs() -> io::Result<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the lab is configured by make, through the environment"
    )]
    let path = std::env::var("HAWSER_AWS_NODE_PROGRAMS").map(PathBuf::from);
    let path = path.unwrap_or_default();
    if path.join("complete").is_file() {
        return Ok(path);
    }
    let path = path.display();
    let text = format!(
        "HAWSER_AWS_NODE_PROGRAMS names no built programs ({path}): run `make aws-node-programs`"
    );
    Err(io::Error::other(text))
}
