//! Calls the daemon like the plugin does, but without starting a process each time: for measurements with very many
//! calls.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use datapath::{netlink::Socket, netns::Netns};
use hyper_util::rt::TokioIo;
use proto::{
    handover,
    v1::{AddRequest, DelRequest, Pod, Sandbox, node_client::NodeClient},
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A sandbox that is added and deleted repeatedly.
#[derive(Debug)]
pub struct Caller {
    socket: PathBuf,
    netns: Arc<Netns>,
}

impl Caller {
    /// Creates a namespace for it.
    ///
    /// # Errors
    /// If that fails.
    pub fn new(socket: &Path) -> io::Result<Self> {
        Ok(Self {
            socket: socket.to_owned(),
            netns: Arc::new(Netns::create()?),
        })
    }

    /// One ADD and its DEL.
    ///
    /// # Errors
    /// If either is refused or the connection fails.
    pub async fn cycle(&self, id: &str) -> Result<(), Failure> {
        let sandbox = Some(Sandbox {
            network: "hawser".to_owned(),
            container_id: id.to_owned(),
            ifname: "eth0".to_owned(),
        });
        let mut client = NodeClient::new(self.connect(true).await?);
        client
            .add(AddRequest {
                sandbox: sandbox.clone(),
                pod: Some(Pod {
                    namespace: "bench".to_owned(),
                    name: id.to_owned(),
                    ..Pod::default()
                }),
                deadline_ms: 60_000,
                ..AddRequest::default()
            })
            .await?;
        let mut client = NodeClient::new(self.connect(false).await?);
        client.del(DelRequest { sandbox }).await?;
        Ok(())
    }

    async fn connect(&self, with_descriptors: bool) -> Result<Channel, Failure> {
        let (path, netns) = (self.socket.clone(), Arc::clone(&self.netns));
        let connector = tower::service_fn(move |_: Uri| {
            let (path, netns) = (path.clone(), Arc::clone(&netns));
            async move {
                let stream = UnixStream::connect(path).await?;
                if with_descriptors {
                    let socket = Socket::open_in(&netns).map_err(io::Error::other)?;
                    handover::send(stream.as_fd(), Some((netns.as_fd(), socket.as_fd())))?;
                } else {
                    handover::send(stream.as_fd(), None)?;
                }
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        // The name is never resolved: the connector uses the socket.
        let endpoint = Endpoint::from_static("http://ipamd.invalid");
        Ok(endpoint.connect_with_connector(connector).await?)
    }
}
