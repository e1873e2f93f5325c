//! The world with its two HTTP faces, on listeners that the caller bound: on loopback, or inside a namespace.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, MutexGuard},
};

use tokio::runtime::Runtime;

use crate::{
    calls::Call,
    dns::{self, Names},
    ec2,
    faults::Faults,
    ids::InstanceId,
    imds::{self, ImdsScript},
    serve::serve,
    shared::{Shared, WorldGuard},
    world::World,
};

/// The servers, on a runtime of their own. They end when the value is dropped.
#[derive(Debug)]
pub struct Api {
    pub(crate) shared: Arc<Shared>,
    ec2: SocketAddr,
    imds: SocketAddr,
    /// Taken on drop: a runtime cannot be waited for inside another one.
    runtime: Option<Runtime>,
}

impl Api {
    /// Serves `world`; IMDS on each of its listeners, of which the first is the endpoint that is told. `fixed`: the instance that every caller of IMDS is taken for; without it the caller's address
    /// decides.
    ///
    /// # Errors
    /// If the runtime cannot be built or a listener not be used.
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

    /// The names that DNS queries are answered with.
    pub fn names(&self) -> MutexGuard<'_, Names> {
        self.shared.names()
    }

    /// The world, locked: for looking and for scripting. Nothing is answered while the guard lives.
    #[must_use]
    pub fn world(&self) -> WorldGuard<'_> {
        self.shared.watched_world()
    }

    /// The time that goes with the world's methods.
    #[must_use]
    pub fn now(&self) -> std::time::Duration {
        self.shared.now()
    }

    /// Scripted faults of EC2 calls.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.shared.faults()
    }

    /// Has lists show the present for as long as this lasts, as EC2's lag behind; false lets them catch up.
    pub fn freeze_lists(&self, frozen: bool) {
        let present = frozen.then(|| self.shared.watched_world().clone());
        *self.shared.frozen() = present;
    }

    /// Scripted faults of IMDS.
    pub fn imds(&self) -> MutexGuard<'_, ImdsScript> {
        self.shared.imds()
    }

    /// Every EC2 call so far, in the order in which they took effect.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls().clone()
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        self.shared.calls().clear();
    }

    /// What to put into `AWS_ENDPOINT_URL_EC2`.
    #[must_use]
    pub fn ec2_endpoint(&self) -> String {
        format!("http://{}", self.ec2)
    }

    /// What to put into `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
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
        // Not waited for: a scripted hang never ends by itself.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
