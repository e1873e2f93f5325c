//! The world with its two HTTP APIs, on listeners that the caller bound: on loopback, or in a namespace.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, MutexGuard},
};

use tokio::runtime::Runtime;

use crate::{
    dns, ec2,
    http::serve::serve,
    ids::InstanceId,
    imds,
    state::{Names, Shared, WorldGuard, calls::Call, faults::Faults, imds_faults::ImdsScript},
    world::World,
};

/// The servers, on their own runtime. They end when the value is dropped.
#[derive(Debug)]
pub struct Api {
    pub(crate) shared: Arc<Shared>,
    ec2: SocketAddr,
    imds: SocketAddr,
    /// Taken on drop: a runtime cannot be awaited inside another one.
    runtime: Option<Runtime>,
}

impl Api {
    /// Serves `world`, and IMDS on each of its listeners; the first one is the reported endpoint. `fixed`: the instance
    /// of all IMDS callers; without it, the caller's address determines the instance.
    ///
    /// # Errors
    /// If the runtime cannot be created or a listener is not usable.
    pub fn start(
        world: World,
        ec2: TcpListener,
        imds: Vec<TcpListener>,
        fixed: Option<InstanceId>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(world));
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder
            .worker_threads(1)
            .thread_name("vpc-sim-http")
            .enable_all()
            .build()?;
        let first = imds.first().ok_or(io::ErrorKind::InvalidInput)?;
        let (at_ec2, at_imds) = (ec2.local_addr()?, first.local_addr()?);
        runtime.spawn(logged("ec2", serve(ec2, ec2::router(Arc::clone(&shared)))));
        for listener in imds {
            let router = imds::router(Arc::clone(&shared), fixed.clone());
            runtime.spawn(logged("imds", serve(listener, router)));
        }
        Ok(Self {
            shared,
            ec2: at_ec2,
            imds: at_imds,
            runtime: Some(runtime),
        })
    }

    /// Answers DNS queries on this socket too.
    pub fn resolve_on(&self, socket: UdpSocket) {
        if let Some(runtime) = &self.runtime {
            let shared = Arc::clone(&self.shared);
            runtime.spawn(logged("dns", dns::serve(socket, shared)));
        }
    }

    /// The names for DNS queries.
    pub fn names(&self) -> MutexGuard<'_, Names> {
        self.shared.names()
    }

    /// The world, locked, for reading and for scripting. No request is answered while the guard exists.
    #[must_use]
    pub fn world(&self) -> WorldGuard<'_> {
        self.shared.watched_world()
    }

    /// The time for the world's methods.
    #[must_use]
    pub fn now(&self) -> std::time::Duration {
        self.shared.now()
    }

    /// Scripted faults of EC2 calls.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.shared.faults()
    }

    /// While `frozen`, lists show the state of this moment, as if EC2's lists lagged behind; with false, they are current
    /// again.
    pub fn freeze_lists(&self, frozen: bool) {
        let present = frozen.then(|| self.shared.watched_world().clone());
        *self.shared.frozen() = present;
    }

    /// Scripted faults of IMDS.
    pub fn imds(&self) -> MutexGuard<'_, ImdsScript> {
        self.shared.imds()
    }

    /// All EC2 calls so far, in the order in which they took effect.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls().clone()
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        self.shared.calls().clear();
    }

    /// The value for `AWS_ENDPOINT_URL_EC2`.
    #[must_use]
    pub fn ec2_endpoint(&self) -> String {
        format!("http://{}", self.ec2)
    }

    /// The value for `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    #[must_use]
    pub fn imds_endpoint(&self) -> String {
        format!("http://{}", self.imds)
    }
}

async fn logged(name: &'static str, server: impl Future<Output = io::Result<()>>) {
    if let Err(error) = server.await {
        tracing::error!(name, %error, "server ended");
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // Not awaited: an injected hang never ends.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
