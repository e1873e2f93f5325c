//! Pods through the CRI: one method per call, with a deadline that is passed to the runtime, like the kubelet does.

use std::{collections::HashMap, net::IpAddr, path::PathBuf, time::Duration};

use serde_json::Value;
use tokio::time::Instant;
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    Containerd, RuntimeError,
    cri::{
        ImageSpec, ImageStatusRequest, LinuxPodSandboxConfig, ListPodSandboxRequest,
        PodSandboxConfig, PodSandboxMetadata, PodSandboxState, PodSandboxStatusRequest,
        PortMapping, Protocol, RemovePodSandboxRequest, RunPodSandboxRequest, StatusRequest,
        StopPodSandboxRequest, VersionRequest, image_service_client::ImageServiceClient,
        runtime_service_client::RuntimeServiceClient,
    },
    image,
};

/// The deadline of every call: longer than the plugin's own for ADD (60 s), so that a slow plugin fails with its own
/// error.
const CALL_LIMIT: Duration = Duration::from_secs(90);

/// Namespace of every pod.
const POD_NAMESPACE: &str = "lab";

/// What a pod asks for in its manifest.
#[derive(Clone, Debug, Default)]
pub struct PodAsks {
    /// All ports of its containers, also those without a port of the node.
    pub ports: Vec<PortMapping>,
    /// Of the pod.
    pub annotations: HashMap<String, String>,
}

impl PodAsks {
    /// Adds the port of a container; `host_port` is 0 for none.
    #[must_use]
    pub fn port(mut self, protocol: Protocol, container_port: u16, host_port: u16) -> Self {
        self.ports.push(PortMapping {
            protocol: protocol.into(),
            container_port: container_port.into(),
            host_port: host_port.into(),
            host_ip: String::new(),
        });
        self
    }
}

/// A running sandbox.
#[derive(Clone, Debug)]
pub struct PodSandbox {
    /// Assigned by the runtime, new for each attempt; the plugin's container id.
    pub id: String,
    /// From the call to its answer.
    pub took: Duration,
}

/// The runtime's state of a sandbox.
#[derive(Clone, Debug)]
pub struct PodStatus {
    /// Whether its process runs and its network exists.
    pub ready: bool,
    /// The address from the plugin. None after it is stopped.
    pub ip: Option<IpAddr>,
    /// Its network namespace, bound to a path that this process sees. The path outlasts the namespace.
    pub netns_path: Option<PathBuf>,
}

impl Containerd {
    /// The runtime's name and version.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`], also if nothing listens.
    pub fn version(&self) -> Result<String, RuntimeError> {
        let request = VersionRequest {
            version: "v1".to_owned(),
        };
        let answer = self.call("Version", async |mut cri| cri.version(timed(request)).await)?;
        Ok(format!(
            "{} {}",
            answer.runtime_name, answer.runtime_version
        ))
    }

    /// Whether the runtime would report to the kubelet that pods can have a network.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`].
    pub fn network_ready(&self) -> Result<bool, RuntimeError> {
        let request = StatusRequest { verbose: false };
        let answer = self.call("Status", async |mut cri| cri.status(timed(request)).await)?;
        let conditions = answer.status.unwrap_or_default().conditions;
        Ok(conditions
            .iter()
            .any(|condition| condition.r#type == "NetworkReady" && condition.status))
    }

    /// Creates a sandbox: network namespace, ADD, pause container. Can be called from several threads at once.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] with the message of the plugin or of runc. If the DEL that follows fails too, the
    /// sandbox stays in [`list`](Self::list) until it is stopped and removed.
    pub fn run_pod(&self, name: &str, uid: &str) -> Result<PodSandbox, RuntimeError> {
        self.run_pod_asking(name, uid, &PodAsks::default())
    }

    /// The same, for a pod that asks for more of its network.
    ///
    /// # Errors
    /// As [`Containerd::run_pod`].
    pub fn run_pod_asking(
        &self,
        name: &str,
        uid: &str,
        asks: &PodAsks,
    ) -> Result<PodSandbox, RuntimeError> {
        let metadata = PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: POD_NAMESPACE.to_owned(),
            attempt: 0,
        };
        let linux = LinuxPodSandboxConfig {
            cgroup_parent: self.cgroup_parent.clone(),
        };
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            hostname: name.to_owned(),
            port_mappings: asks.ports.clone(),
            annotations: asks.annotations.clone(),
            linux: Some(linux),
        };
        let request = RunPodSandboxRequest {
            config: Some(config),
        };
        let begun = Instant::now();
        let answer = self.call("RunPodSandbox", async |mut cri| {
            cri.run_pod_sandbox(timed(request)).await
        })?;
        Ok(PodSandbox {
            id: answer.pod_sandbox_id,
            took: begun.elapsed(),
        })
    }

    /// The runtime's state of a sandbox.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] if the sandbox is unknown.
    pub fn status(&self, id: &str) -> Result<PodStatus, RuntimeError> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        let answer = self.call("PodSandboxStatus", async |mut cri| {
            cri.pod_sandbox_status(timed(request)).await
        })?;
        let info: Value = answer
            .info
            .get("info")
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let status = answer.status.unwrap_or_default();
        Ok(PodStatus {
            ready: status.state() == PodSandboxState::SandboxReady,
            ip: status.network.and_then(|network| network.ip.parse().ok()),
            netns_path: netns_path(&info),
        })
    }

    /// Stops a sandbox: kills its process, DEL, removes its namespace. Stopping again is not an error.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`], with the plugin's message if DEL failed.
    pub fn stop_pod(&self, id: &str) -> Result<(), RuntimeError> {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        self.call("StopPodSandbox", async |mut cri| {
            cri.stop_pod_sandbox(timed(request)).await
        })
        .map(drop)
    }

    /// Removes a sandbox. This is the kubelet's second step and stops it once more, so a second DEL runs.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`].
    pub fn remove_pod(&self, id: &str) -> Result<(), RuntimeError> {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        self.call("RemovePodSandbox", async |mut cri| {
            cri.remove_pod_sandbox(timed(request)).await
        })
        .map(drop)
    }

    /// Ids of all sandboxes, including stopped ones.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`].
    pub fn list(&self) -> Result<Vec<String>, RuntimeError> {
        let request = ListPodSandboxRequest {};
        let answer = self.call("ListPodSandbox", async |mut cri| {
            cri.list_pod_sandbox(timed(request)).await
        })?;
        Ok(answer.items.into_iter().map(|sandbox| sandbox.id).collect())
    }

    pub(super) fn has_pause_image(&self) -> Result<bool, RuntimeError> {
        let image = ImageSpec {
            image: image::NAME.to_owned(),
        };
        let request = timed(ImageStatusRequest { image: Some(image) });
        let mut images = ImageServiceClient::new(self.channel.clone());
        let answer = self.runtime.block_on(images.image_status(request));
        Ok(answer
            .map_err(refused("ImageStatus"))?
            .into_inner()
            .image
            .is_some())
    }

    fn call<T>(
        &self,
        call: &'static str,
        make: impl AsyncFnOnce(RuntimeServiceClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, RuntimeError> {
        let cri = RuntimeServiceClient::new(self.channel.clone());
        let answer = self.runtime.block_on(make(cri));
        answer.map(Response::into_inner).map_err(refused(call))
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_LIMIT);
    request
}

fn refused(call: &'static str) -> impl FnOnce(Status) -> RuntimeError {
    move |status| RuntimeError::Refused {
        call,
        code: status.code(),
        message: status.message().to_owned(),
    }
}

/// The path of the network namespace in the container's specification.
fn netns_path(info: &Value) -> Option<PathBuf> {
    let namespaces = info.pointer("/runtimeSpec/linux/namespaces")?.as_array()?;
    let network = namespaces
        .iter()
        .find(|namespace| namespace["type"] == "network")?;
    network["path"].as_str().map(PathBuf::from)
}
