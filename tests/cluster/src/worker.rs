//! containerd, kubelet and kube-proxy on a node.

use std::{fs, io, net::Ipv4Addr, path::Path, time::Duration};

use lab::wait::eventually;
use serde_json::json;

use crate::{
    command::run,
    control_plane::{API_PORT, DNS_SERVICE},
    images,
    machine::Machine,
    pki::Pki,
};

const CONTAINERD_LIMIT: Duration = Duration::from_secs(60);

/// The modes of kube-proxy that are tested. The first one is the default.
pub const PROXY_MODES: [&str; 2] = ["iptables", "nftables"];

/// Options that differ between nodes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// More than the addresses of a small instance, so that Hawser and not kubelet refuses the last pod.
    pub max_pods: u32,
    /// Taints with which kubelet registers the node, as `KEY=VALUE:EFFECT`.
    pub taints: Vec<String>,
    /// Whether kube-proxy is started with the node. Otherwise it comes later.
    pub proxy: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_pods: 110,
            taints: Vec::new(),
            proxy: true,
        }
    }
}

/// Starts all three, or two of them. The node registers itself, and becomes ready when a CNI plugin is installed.
///
/// # Errors
/// If one of them cannot be started, or an image cannot be imported.
pub fn start(
    machine: &mut Machine,
    pki: &Pki,
    api_server: Ipv4Addr,
    archives: &[impl AsRef<Path>],
    settings: &Settings,
) -> io::Result<()> {
    start_containerd(machine)?;
    for archive in archives {
        import(machine, archive.as_ref())?;
    }
    start_kubelet(machine, pki, api_server, settings)?;
    match settings.proxy {
        true => start_proxy(machine, pki, PROXY_MODES[0]),
        false => Ok(()),
    }
}

/// Imports the images of an archive into the node's containerd.
///
/// # Errors
/// If containerd refuses them.
pub fn import(machine: &Machine, archive: &Path) -> io::Result<()> {
    let mut command = machine.command("ctr")?;
    command.args(["--namespace", "k8s.io", "images", "import"]);
    run(command.arg(archive)).map(drop)
}

/// Starts containerd and waits until it answers.
///
/// # Errors
/// If it does not answer in time. The error contains its log.
pub fn start_containerd(machine: &mut Machine) -> io::Result<()> {
    // An overlay file system cannot be on another one. The machine's directory is a tmpfs, where it can be.
    let (root, config) = (
        machine.dir().join("containerd"),
        machine.dir().join("containerd.toml"),
    );
    fs::write(&config, containerd_config(&root))?;
    let arguments = ["--config".to_owned(), config.display().to_string()];
    machine.start("containerd", "containerd", &arguments)?;
    let answers = || {
        let asked = machine
            .command("ctr")
            .and_then(|mut ctr| run(ctr.arg("version")));
        asked.is_ok()
    };
    if eventually(CONTAINERD_LIMIT, answers) {
        return Ok(());
    }
    let log = machine.log("containerd");
    Err(io::Error::other(format!(
        "containerd does not answer:\n{log}"
    )))
}

fn containerd_config(root: &Path) -> String {
    // Lowering OOM scores and raising limits needs permissions that a build machine may not have.
    format!(
        r#"version = 3
root = {root:?}
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = {pause:?}
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
"#,
        pause = images::PAUSE,
    )
}

/// Starts kubelet.
///
/// # Errors
/// If its certificate or its configuration cannot be created.
pub fn start_kubelet(
    machine: &mut Machine,
    pki: &Pki,
    api_server: Ipv4Addr,
    settings: &Settings,
) -> io::Result<()> {
    let (name, address) = (machine.name.clone(), machine.instance.address);
    let subject = format!("/O=system:nodes/CN=system:node:{name}");
    pki.sign(&name, &subject, &format!("DNS:{name},IP:{address}"))?;
    let kubeconfig = machine.dir().join("kubelet.kubeconfig");
    let server = format!("https://{api_server}:{API_PORT}");
    pki.kubeconfig(&name, &server, &kubeconfig)?;
    let config = machine.dir().join("kubelet.json");
    fs::write(&config, kubelet_config(machine, pki, settings).to_string())?;
    let instance = &machine.instance;
    let mut arguments = vec![
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={name}"),
        format!("--node-ip={address}"),
        format!(
            "--node-labels=node.kubernetes.io/instance-type={}",
            instance.instance_type
        ),
    ];
    if !settings.taints.is_empty() {
        let taints = settings.taints.join(",");
        arguments.push(format!("--register-with-taints={taints}"));
    }
    machine.start("kubelet", "kubelet", &arguments)
}

fn kubelet_config(machine: &Machine, pki: &Pki, settings: &Settings) -> serde_json::Value {
    let file = |name: &str| pki.path(name).display().to_string();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": file("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": file(&format!("{}.crt", machine.name)),
        "tlsPrivateKeyFile": file(&format!("{}.key", machine.name)),
        "clusterDNS": [DNS_SERVICE.to_string()],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "maxPods": settings.max_pods,
        "resolvConf": machine.dir().join("resolv.conf").display().to_string(),
        "serializeImagePulls": false,
        // Otherwise, this version of kubelet refuses version 1 of control groups.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", machine.cgroup()),
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "oomScoreAdj": 0,
        // Other programs use the disk and memory of this machine too.
        "evictionHard": {
            "memory.available": "1Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
    })
}

/// Starts kube-proxy in one of [`PROXY_MODES`]. It removes the rules of the other ones.
///
/// # Errors
/// If its configuration cannot be written.
pub fn start_proxy(machine: &mut Machine, pki: &Pki, mode: &str) -> io::Result<()> {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "clientConnection": { "kubeconfig": pki.path("proxy.kubeconfig").display().to_string() },
        "hostnameOverride": machine.name,
        // The limit of connection tracking applies to the whole kernel.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    });
    let file = machine.dir().join("kube-proxy.json");
    fs::write(&file, config.to_string())?;
    let arguments = [format!("--config={}", file.display())];
    machine.start("kube-proxy", "kube-proxy", &arguments)
}
