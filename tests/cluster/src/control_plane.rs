//! etcd, the API server, the controller manager and the scheduler, on one machine of the VPC.

use std::{
    io,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use crate::{command::run, machine::Machine, pki::Pki};

pub const SERVICES: &str = "10.96.0.0/16";
/// The address of the service `kubernetes`.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub const API_PORT: u16 = 6443;

const READY_LIMIT: Duration = Duration::from_secs(180);

/// Starts all four and waits until the API server is ready.
///
/// # Errors
/// If one cannot be started, or the API server is not ready in time. The error contains its log.
pub fn start(machine: &mut Machine, pki: &Pki) -> io::Result<()> {
    let address = machine.instance.address;
    sign(pki, address)?;
    start_etcd(machine)?;
    start_api_server(machine, pki, address)?;
    wait_ready(machine, pki)?;
    // Both exit if they are started before the API server is ready, because their roles do not exist yet.
    start_controllers(machine, pki)?;
    start_scheduler(machine, pki)
}

/// Starts the API server again, with a new certificate, and waits until it is ready.
///
/// # Errors
/// If it is not ready in time. The error contains its log.
pub fn resume(machine: &mut Machine, pki: &Pki) -> io::Result<()> {
    let address = machine.instance.address;
    sign_api_server(pki, address)?;
    start_api_server(machine, pki, address)?;
    wait_ready(machine, pki)
}

fn sign_api_server(pki: &Pki, address: Ipv4Addr) -> io::Result<()> {
    let names = format!(
        "IP:{address},IP:{API_SERVICE},IP:127.0.0.1,DNS:kubernetes,DNS:kubernetes.default,\
         DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    );
    pki.sign("apiserver", "/CN=kube-apiserver", &names)
}

fn sign(pki: &Pki, address: Ipv4Addr) -> io::Result<()> {
    sign_api_server(pki, address)?;
    pki.sign("kubelet-client", "/O=system:masters/CN=kube-apiserver", "")?;
    let server = format!("https://{address}:{API_PORT}");
    for (name, subject) in [
        ("admin", "/O=system:masters/CN=admin"),
        ("controllers", "/CN=system:kube-controller-manager"),
        ("scheduler", "/CN=system:kube-scheduler"),
        ("proxy", "/CN=system:kube-proxy"),
    ] {
        pki.sign(name, subject, "")?;
        pki.kubeconfig(name, &server, &pki.path(&format!("{name}.kubeconfig")))?;
    }
    Ok(())
}

fn start_etcd(machine: &mut Machine) -> io::Result<()> {
    let data = machine.dir().join("etcd").display().to_string();
    let client = "http://127.0.0.1:2379";
    let arguments = [
        ("data-dir", data.as_str()),
        ("listen-client-urls", client),
        ("advertise-client-urls", client),
        ("listen-peer-urls", "http://127.0.0.1:2380"),
        ("unsafe-no-fsync", "true"),
    ];
    machine.start("etcd", "etcd", &flags(&arguments))
}

fn start_api_server(machine: &mut Machine, pki: &Pki, address: Ipv4Addr) -> io::Result<()> {
    let file = |name: &str| pki.path(name).display().to_string();
    let (address, port) = (address.to_string(), API_PORT.to_string());
    let arguments = [
        ("etcd-servers", "http://127.0.0.1:2379"),
        ("secure-port", &port),
        // Also on the loopback address, for access from outside the VPC.
        ("bind-address", "0.0.0.0"),
        ("advertise-address", &address),
        ("allow-privileged", "true"),
        ("authorization-mode", "Node,RBAC"),
        ("enable-admission-plugins", "NodeRestriction"),
        ("service-cluster-ip-range", SERVICES),
        ("kubelet-preferred-address-types", "InternalIP"),
        ("client-ca-file", &file("ca.crt")),
        ("tls-cert-file", &file("apiserver.crt")),
        ("tls-private-key-file", &file("apiserver.key")),
        ("kubelet-client-certificate", &file("kubelet-client.crt")),
        ("kubelet-client-key", &file("kubelet-client.key")),
        ("service-account-issuer", "https://kubernetes.default.svc"),
        ("service-account-key-file", &file("sa.key")),
        ("service-account-signing-key-file", &file("sa.key")),
    ];
    machine.start("kube-apiserver", "kube-apiserver", &flags(&arguments))
}

#[expect(clippy::disallowed_methods, reason = "tests wait in real time")]
fn wait_ready(machine: &Machine, pki: &Pki) -> io::Result<()> {
    let admin = pki.path("admin.kubeconfig");
    let begun = Instant::now();
    loop {
        let mut ask = machine.command("kubectl")?;
        ask.arg("--kubeconfig").arg(&admin);
        match run(ask.args(["get", "--raw", "/readyz"])) {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > READY_LIMIT => {
                let log = machine.log("kube-apiserver");
                let text = format!("the API server is not ready: {error}\n{log}");
                return Err(io::Error::other(text));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn start_controllers(machine: &mut Machine, pki: &Pki) -> io::Result<()> {
    let (ca, key) = (pki.path("ca.crt"), pki.path("sa.key"));
    let (ca, key) = (ca.display().to_string(), key.display().to_string());
    let mut arguments = flags(&[
        ("root-ca-file", &ca),
        ("service-account-private-key-file", &key),
        ("use-service-account-credentials", "true"),
    ]);
    arguments.extend(client_flags(pki, "controllers"));
    machine.start(
        "kube-controller-manager",
        "kube-controller-manager",
        &arguments,
    )
}

fn start_scheduler(machine: &mut Machine, pki: &Pki) -> io::Result<()> {
    machine.start(
        "kube-scheduler",
        "kube-scheduler",
        &client_flags(pki, "scheduler"),
    )
}

fn client_flags(pki: &Pki, name: &str) -> Vec<String> {
    let kubeconfig = pki.path(&format!("{name}.kubeconfig"));
    let kubeconfig = kubeconfig.display().to_string();
    flags(&[
        ("kubeconfig", &kubeconfig),
        ("authentication-kubeconfig", &kubeconfig),
        ("authorization-kubeconfig", &kubeconfig),
        ("leader-elect", "false"),
        ("bind-address", "127.0.0.1"),
    ])
}

fn flags(pairs: &[(&str, &str)]) -> Vec<String> {
    let flag = |(name, value): &(&str, &str)| format!("--{name}={value}");
    pairs.iter().map(flag).collect()
}
