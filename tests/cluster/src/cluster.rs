//! The cluster: a VPC with a control plane, nodes, and CoreDNS. Dropping the value stops everything.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use lab::{Lab, error::with_causes, wait::eventually};
use vpc_sim::{LaunchInstance, SimConfig};

use crate::{
    command::{feed, run},
    control_plane::{self, API_PORT},
    images,
    machine::Machine,
    pki::Pki,
    programs,
    worker::{self, Settings},
};

/// Hawser's chart.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/chart/hawser");

/// The interval between two requests to the API server.
const PERIOD: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Machine>,
    pub control_plane: Machine,
    pki: Pki,
    archives: Vec<PathBuf>,
    /// Must be dropped last, because it contains the machines' directories and network namespaces.
    pub lab: Lab,
}

impl Cluster {
    /// Starts a VPC and a control plane in it. There are no nodes yet.
    ///
    /// # Errors
    /// Without root, without the built programs, or if the API server does not come up.
    pub fn start() -> io::Result<Self> {
        programs::directory()?;
        let lab = Lab::start(SimConfig::default())?;
        let pki = Pki::create(&lab.dir().join("pki"))?;
        let archive = images::archive(&lab.dir().join("images"))?;
        let mut control_plane = boot(&lab, "m5.large")?;
        control_plane::start(&mut control_plane, &pki)?;
        let cluster = Self {
            nodes: Vec::new(),
            control_plane,
            pki,
            archives: vec![archive],
            lab,
        };
        cluster.apply(include_str!("../manifests/coredns.yaml"))?;
        Ok(cluster)
    }

    /// Imports the images of this archive into nodes that are added later.
    pub fn preload(&mut self, archive: PathBuf) {
        self.archives.push(archive);
    }

    /// Adds a node and returns its index. The node becomes ready when a CNI plugin is installed.
    ///
    /// # Errors
    /// If the instance cannot be launched or a service cannot be started.
    pub fn add_node(&mut self, kind: &str, settings: &Settings) -> io::Result<usize> {
        let mut machine = boot(&self.lab, kind)?;
        let api_server = self.api_server();
        worker::start(
            &mut machine,
            &self.pki,
            api_server,
            &self.archives,
            settings,
        )?;
        self.nodes.push(machine);
        Ok(self.nodes.len() - 1)
    }

    /// Starts kube-proxy on all nodes again, in one of [`worker::PROXY_MODES`].
    ///
    /// # Errors
    /// If it is not running or cannot be started.
    pub fn set_proxy_mode(&mut self, mode: &str) -> io::Result<()> {
        for node in &mut self.nodes {
            node.stop("kube-proxy", "TERM")?;
            worker::start_proxy(node, &self.pki, mode)?;
        }
        Ok(())
    }

    /// Starts a node's kubelet, which was stopped, with a new certificate.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_kubelet(&mut self, number: usize) -> io::Result<()> {
        let (node, api_server) = (number, self.api_server());
        let settings = Settings::default();
        worker::start_kubelet(&mut self.nodes[node], &self.pki, api_server, &settings)
    }

    /// Starts a node's containerd, which was stopped.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn start_containerd(&mut self, number: usize) -> io::Result<()> {
        worker::start_containerd(&mut self.nodes[number])
    }

    /// Starts a node's kube-proxy, which does not run.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_proxy(&mut self, number: usize) -> io::Result<()> {
        worker::start_proxy(&mut self.nodes[number], &self.pki, worker::PROXY_MODES[0])
    }

    /// Reboots a node. The script runs on it before the services start, as the boot of an operating system that resets its disk.
    ///
    /// # Errors
    /// If the machine does not boot, the script fails, or a service cannot be started.
    pub fn reboot(&mut self, number: usize, script: &str) -> io::Result<()> {
        self.nodes[number].reboot()?;
        self.nodes[number].shell(script)?;
        self.start_containerd(number)?;
        self.start_kubelet(number)?;
        self.start_proxy(number)
    }

    /// Ends a node's machine and terminates its instance. Its Node object stays.
    ///
    /// # Errors
    /// EC2's error.
    pub fn terminate(&mut self, number: usize) -> io::Result<()> {
        let id = self.nodes.remove(number).instance.id.clone();
        let terminated = self.lab.sim.terminate_instance(&id);
        terminated.map_err(|e| with_causes(&e))
    }

    /// Starts the API server, which was stopped, with a new certificate, and waits until it is ready.
    ///
    /// # Errors
    /// If it is not ready in time.
    pub fn resume_api_server(&mut self) -> io::Result<()> {
        control_plane::resume(&mut self.control_plane, &self.pki)
    }

    /// The API server's address in the VPC.
    #[must_use]
    pub fn api_server(&self) -> Ipv4Addr {
        self.control_plane.instance.address
    }

    /// The administrator's kubeconfig file, for use within the VPC.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.pki.path("admin.kubeconfig")
    }

    /// Writes a self-contained kubeconfig file for another address of the API server.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn export_kubeconfig(&self, server: &str, file: &Path) -> io::Result<()> {
        self.pki.kubeconfig("admin", server, file)?;
        let flat = ["config", "view", "--flatten"];
        let text = run(self.kubectl_command()?.args(flat).env("KUBECONFIG", file))?;
        fs::write(file, text)
    }

    /// Runs `kubectl` and returns its output.
    ///
    /// # Errors
    /// If it fails. The error contains its output.
    pub fn kubectl(&self, arguments: &[&str]) -> io::Result<String> {
        run(self.kubectl_command()?.args(arguments))
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// If the API server refuses them.
    pub fn apply(&self, manifests: &str) -> io::Result<String> {
        let mut command = self.kubectl_command()?;
        feed(command.args(["apply", "-f", "-"]), manifests)
    }

    /// Runs `helm` and returns its output.
    ///
    /// # Errors
    /// If it fails. The error contains its output.
    pub fn helm(&self, arguments: &[&str]) -> io::Result<String> {
        let mut command = self.control_plane.command("helm")?;
        let home = self.lab.dir().join("helm");
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", &home)
            .args(arguments);
        run(&mut command)
    }

    /// Installs the chart, or upgrades it to these values, in the format of `--set`. The EC2 API is the simulated one.
    ///
    /// # Errors
    /// If helm fails.
    pub fn install(&self, values: &[&str]) -> io::Result<String> {
        self.install_from(CHART.as_ref(), values)
    }

    /// The same with another chart.
    ///
    /// # Errors
    /// If helm fails.
    pub fn install_from(&self, chart: &Path, values: &[&str]) -> io::Result<String> {
        let ec2 = format!("env.AWS_ENDPOINT_URL_EC2={}", self.lab.sim.ec2_endpoint());
        let api = format!(
            "env.CLUSTER_ENDPOINT=https://{}:{API_PORT}",
            self.api_server()
        );
        let chart = chart.display().to_string();
        let mut arguments = vec!["upgrade", "--install", "hawser", &chart];
        arguments.extend(["--namespace", "kube-system", "--set", &ec2, "--set", &api]);
        arguments.extend(values.iter().flat_map(|value| ["--set", value]));
        self.helm(&arguments)
    }

    /// Waits until `kubectl` with these arguments prints something that `holds`.
    ///
    /// # Errors
    /// If that does not happen within `limit`. The error contains the last output.
    pub fn await_kubectl(
        &self,
        limit: Duration,
        arguments: &[&str],
        holds: impl Fn(&str) -> bool,
    ) -> io::Result<String> {
        let mut last = Ok(String::new());
        let came = eventually(limit, || {
            last = self.kubectl(arguments);
            let holds = last.as_ref().is_ok_and(|text| holds(text));
            if !holds {
                // Each kubectl uses 0.1 s of processor time.
                std::thread::sleep(PERIOD);
            }
            holds
        });
        match (came, last) {
            (true, last) => last,
            (false, Ok(text)) => Err(io::Error::other(format!(
                "after {limit:?} kubectl {arguments:?} still says:\n{text}"
            ))),
            (false, Err(error)) => Err(error),
        }
    }

    /// A `kubectl` that knows the API server but has no identity.
    ///
    /// # Errors
    /// If the cluster's programs are not built.
    pub fn anonymous_kubectl(&self) -> io::Result<Command> {
        let mut command = self.control_plane.command("kubectl")?;
        let server = format!("--server=https://{}:{API_PORT}", self.api_server());
        let authority = self.pki.path("ca.crt");
        command
            .env("KUBECONFIG", "/dev/null")
            .env("HOME", self.lab.dir())
            .arg(server)
            .arg(format!("--certificate-authority={}", authority.display()));
        Ok(command)
    }

    /// A `kubectl` of the administrator.
    ///
    /// # Errors
    /// As [`Cluster::anonymous_kubectl`].
    pub fn kubectl_command(&self) -> io::Result<Command> {
        let mut command = self.control_plane.command("kubectl")?;
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.lab.dir());
        Ok(command)
    }
}

/// Launches an instance and boots a machine on it. Its name is the one in the VPC's DNS.
fn boot(lab: &Lab, kind: &str) -> io::Result<Machine> {
    let launch = LaunchInstance {
        instance_type: kind.to_owned(),
        ..LaunchInstance::default()
    };
    let instance = lab
        .sim
        .launch_instance(launch)
        .map_err(|e| with_causes(&e))?;
    let region = lab.sim.world().region().to_owned();
    let address = instance.address.to_string().replace('.', "-");
    let name = format!("ip-{address}.{region}.compute.internal");
    let dir = lab.dir().join(&name);
    Machine::boot(name, instance, dir)
}
