//! Opens the sockets, and writes the runtime's configuration when pods can be served.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{
    Semaphore,
    watch::{self, Sender},
};

use super::{DaemonError, prepare::Node, serve_error};
use crate::{
    http::{introspection, metrics_server, probes},
    install::conflist::Conflist,
    pool::driver::Pool,
    rpc::{
        listener::{
            self,
            admission::{self, ConnectionSlots},
        },
        presence,
        service::Service,
    },
    runtime::{
        clock,
        supervise::{Detached, Supervisor},
    },
    sandbox::{recovery::RecoveryError, sandboxes::Sandboxes},
};

impl Node {
    /// Opens the socket and the metrics port. Sending on the result closes the socket.
    pub(super) async fn serve(
        &mut self,
        pool: &Pool,
        supervisor: &mut Supervisor,
        detached: &Detached,
    ) -> Result<Sender<()>, DaemonError> {
        let (recorder, socket) = (self.recorder.clone(), self.config.paths.socket());
        let sandboxes = Sandboxes::new(
            pool.clone(),
            self.host.clone(),
            self.store.clone(),
            self.agreed.pods.clone(),
            &self.config,
            recorder.clone(),
            detached.clone(),
        );
        let reserved = sandboxes.reserve_egress().await;
        reserved.map_err(RecoveryError::from)?;
        let tombstones = proto::tombstone::directory(&socket);
        // Before anything is served: an ADD must not meet the remains of a deleted sandbox.
        sandboxes.honour_tombstones(&tombstones).await;
        let ended = self.watch(pool, supervisor, detached);
        supervisor.critical("sweep", sandboxes.clone().sweep(tombstones, ended));
        let shown = sandboxes.clone();
        let slots =
            ConnectionSlots::new(admission::Limits::within(listener::raise_descriptor_limit()));
        let service = Service {
            sandboxes,
            pool: pool.clone(),
            detached: detached.clone(),
            me: self.me.clone(),
            recorder: recorder.clone(),
            notices: self.config.notices.clone().into(),
            room: Arc::new(Semaphore::new(slots.count())),
        };
        let stop = listen(&socket, service, slots, supervisor, detached.clone())?;
        if let Some(address) = self.config.metrics {
            let bound = metrics_server::start(
                address,
                pool.clone(),
                self.executor.clone(),
                recorder.metrics.clone(),
            )
            .map_err(|e| serve_error("metrics", e))?;
            tracing::info!(%bound, "serving metrics");
        }
        self.serve_probes(pool);
        self.introspect(pool, shown, detached);
        let (marked, served) = (socket.clone(), pool.clone());
        supervisor.restarted("presence", move || {
            presence::keep(marked.clone(), served.clone())
        });
        self.announce(pool, socket.clone(), supervisor);
        recorder.metrics.ready(clock::now().since(self.begun));
        tracing::info!(socket = %socket.display(), "ready");
        Ok(stop)
    }

    /// Opens the live page. If its port is in use, the node serves pods anyway.
    fn introspect(&self, pool: &Pool, sandboxes: Sandboxes, detached: &Detached) {
        let Some(bind) = &self.config.introspection else {
            return;
        };
        let sources = introspection::Sources {
            pool: pool.clone(),
            sandboxes,
            me: self.me.clone(),
            config: Arc::new(self.config.clone()),
            history: self.recorder.history.clone(),
            detached: detached.clone(),
        };
        match introspection::start(bind, sources) {
            Ok(()) => tracing::info!(%bind, "serving introspection"),
            Err(error) => tracing::error!(%bind, %error, "introspection cannot be served"),
        }
    }

    /// If the port is in use, the daemon serves pods nevertheless.
    fn serve_probes(&self, pool: &Pool) {
        let address = self.config.probes;
        if let Err(error) = probes::start(address, pool.clone()) {
            tracing::error!(%address, %error, "cannot serve probes");
        }
    }

    /// Writes the runtime's configuration as soon as pods can be served.
    fn announce(&self, pool: &Pool, socket: PathBuf, supervisor: &mut Supervisor) {
        let Some(directory) = self.config.paths.cni_conf_dir.clone() else {
            return;
        };
        let conflist = Conflist {
            directory,
            plugins: self.config.paths.cni_bin_dir.clone(),
            pods: self.config.pods,
            socket,
            network: self.config.network.clone(),
            family: self.config.pool.family,
            metrics: self.recorder.metrics.clone(),
        };
        let pool = pool.clone();
        supervisor.restarted("conflist", move || conflist.clone().publish(pool.clone()));
    }
}

fn listen(
    path: &Path,
    service: Service,
    slots: ConnectionSlots,
    supervisor: &mut Supervisor,
    detached: Detached,
) -> Result<Sender<()>, DaemonError> {
    let listener = listener::bind(path)
        .map_err(|source| serve_error(&format!("\"{}\"", path.display()), source))?;
    let (stop, stopped) = watch::channel(());
    let served = listener::serve(listener, slots, service, stopped, detached);
    supervisor.critical("listener", served);
    Ok(stop)
}
