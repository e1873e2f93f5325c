//! A real API server without nodes.

use std::{
    fs, io,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use cluster::{
    command::{feed, run},
    pki::Pki,
    programs,
};

pub const URL: &str = "https://127.0.0.1:6443";

/// etcd and an API server on the loopback address of the network namespace in which it is started.
pub struct Server {
    directory: PathBuf,
    running: Vec<Child>,
}

impl Server {
    pub fn start() -> io::Result<Self> {
        let directory =
            std::env::temp_dir().join(format!("hawser-eniconfig-{}", std::process::id()));
        // In a new namespace it is down.
        run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        let pki = Pki::create(&directory)?;
        pki.sign("apiserver", "/CN=kube-apiserver", "IP:127.0.0.1")?;
        pki.sign("admin", "/O=system:masters/CN=admin", "")?;
        let file = directory.join("kubeconfig");
        pki.kubeconfig("admin", URL, &file)?;
        let mut server = Self {
            directory,
            running: Vec::new(),
        };
        let path = |name: &str| pki.path(name).display().to_string();
        server.spawn(
            "etcd",
            &[("data-dir", &path("etcd")), ("unsafe-no-fsync", "true")],
        )?;
        server.spawn(
            "kube-apiserver",
            &[
                ("etcd-servers", "http://127.0.0.1:2379"),
                ("bind-address", "127.0.0.1"),
                ("advertise-address", "127.0.0.1"),
                ("endpoint-reconciler-type", "none"),
                ("authorization-mode", "RBAC"),
                ("service-cluster-ip-range", "10.96.0.0/16"),
                ("client-ca-file", &path("ca.crt")),
                ("tls-cert-file", &path("apiserver.crt")),
                ("tls-private-key-file", &path("apiserver.key")),
                ("service-account-issuer", "https://kubernetes.default.svc"),
                ("service-account-key-file", &path("sa.key")),
                ("service-account-signing-key-file", &path("sa.key")),
            ],
        )?;
        for _ in 0..600 {
            if server.kubectl(&["get", "--raw", "/readyz"]).is_ok() {
                return Ok(server);
            }
            sleep(Duration::from_millis(200));
        }
        let log = fs::read_to_string(server.directory.join("kube-apiserver.log"));
        Err(io::Error::other(log.unwrap_or_default()))
    }

    fn spawn(&mut self, name: &str, flags: &[(&str, &str)]) -> io::Result<()> {
        let log = fs::File::create(self.directory.join(format!("{name}.log")))?;
        let mut command = Command::new(programs::directory()?.join(name));
        command
            .args(
                flags
                    .iter()
                    .map(|(flag, value)| format!("--{flag}={value}")),
            )
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.running.push(command.spawn()?);
        Ok(())
    }

    fn program(&self, name: &str) -> io::Result<Command> {
        let mut command = Command::new(programs::directory()?.join(name));
        command
            .env("PATH", programs::search_path()?)
            .env("HOME", &self.directory)
            .env("KUBECONFIG", self.directory.join("kubeconfig"));
        Ok(command)
    }

    /// The certificate of the authority that signed the server's own.
    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    pub fn kubectl(&self, arguments: &[&str]) -> io::Result<String> {
        run(self.program("kubectl")?.args(arguments))
    }

    /// The same with this token instead of the administrator's certificate.
    pub fn kubectl_as(&self, token: &str, arguments: &[&str]) -> io::Result<String> {
        let mut kubectl = self.program("kubectl")?;
        kubectl
            .env("KUBECONFIG", "/dev/null")
            .args(["--server", URL, "--token", token, "--certificate-authority"])
            .arg(self.authority());
        run(kubectl.args(arguments))
    }

    pub fn apply(&self, object: &str) -> io::Result<String> {
        feed(self.program("kubectl")?.args(["apply", "-f", "-"]), object)
    }

    pub fn helm(&self, verb: &str, rest: &[&str]) -> io::Result<String> {
        let mut helm = self.program("helm")?;
        run(helm
            .args([verb, "hawser"])
            .args(rest)
            .args(["--namespace", "kube-system"]))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in self.running.iter_mut().rev() {
            drop(child.kill());
            drop(child.wait());
        }
        drop(fs::remove_dir_all(&self.directory));
    }
}
