//! The gRPC interface: checks the request, starts the verb in a detached task, and converts the answer.
//!
//! A handler's future is dropped when its caller disconnects (for example a killed plugin), and a verb must never stop
//! half-way: so each verb runs in its own task, and the handler only waits for it.

use std::{net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use datapath::{constants::gateway, netlink::Family};
use nettypes::Asked;
use planner::{Pod, Sandbox};
use proto::{
    address, asked,
    handover::Handed,
    names::{self, PodIdentity, SandboxKey, VethPrefix},
    refusal::Refusal,
    v1::{self, Reason, node_server::Node},
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::{
    config::notices::Notice,
    node::identity::Identity,
    pool::driver::Pool,
    rpc::{
        listener::{self, ConnectionContext, admission::InFlight},
        snapshot, status,
    },
    runtime::{clock, supervise::Detached},
    sandbox::{
        refusals,
        sandboxes::{Add, Sandboxes},
    },
    state::store::Record,
    telemetry::{recorder::Recorder, spans},
};

/// The maximum wait of an ADD. A longer deadline is reduced to it.
const ADD_LIMIT: Duration = Duration::from_secs(60);
/// Subtracted from the caller's deadline, so that a refusal still arrives in time.
const ANSWER_MARGIN: Duration = Duration::from_millis(250);

/// The minimum time between two snapshots of one stream.
const REDRAW: Duration = Duration::from_millis(200);

/// The service. One clone per connection.
#[derive(Clone, Debug)]
pub struct Service {
    pub sandboxes: Sandboxes,
    pub pool: Pool,
    pub detached: Detached,
    pub me: Arc<Identity>,
    pub recorder: Recorder,
    /// What `inspect` shows about the settings.
    pub notices: Arc<[Notice]>,
    /// Permits for requests in progress. A request continues when its caller is gone, so the number of connections does
    /// not limit it.
    pub room: Arc<Semaphore>,
}

impl Service {
    async fn snapshot(&self) -> Option<v1::Snapshot> {
        let pool = self.pool.snapshot().await.ok()?;
        let (instance, kind) = (&self.me.instance, &self.me.instance_type);
        let extras = self.sandboxes.extras();
        Some(snapshot::to_wire(
            &pool,
            &extras,
            instance,
            kind,
            &self.notices,
        ))
    }

    /// Sends the node again after every change, until the caller or the pool is gone.
    async fn watch(
        self,
        first: v1::Snapshot,
        mut changes: watch::Receiver<()>,
        send: mpsc::Sender<Result<v1::Snapshot, Status>>,
    ) {
        let mut next = Some(first);
        while let Some(snapshot) = next {
            if send.send(Ok(snapshot)).await.is_err() {
                return;
            }
            // Both arms are cancel-safe: neither takes anything out of a queue.
            tokio::select! {
                () = send.closed() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            // A burst of pods is hundreds of events, and no reader needs more updates.
            tokio::time::sleep(REDRAW).await;
            changes.mark_unchanged();
            next = self.snapshot().await;
        }
    }

    async fn detach<T: Send + 'static>(
        &self,
        name: &'static str,
        container: String,
        verb: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let begun = clock::now();
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            return Err(self.turned_down(name, &container, refusals::busy()));
        };
        let recorder = self.recorder.clone();
        let asker = container.clone();
        let counted = async move {
            let request = recorder.spans.request(name, &asker, begun);
            let result = spans::within(request.as_ref(), verb).await;
            drop(permit);
            let times = (begun, clock::now());
            recorder.answered(name, &asker, times, result.as_ref().err(), request);
            result
        };
        match self.detached.spawn(counted).await {
            Ok(Ok(reply)) => Ok(Response::new(reply)),
            Ok(Err(refusal)) => Err(refusal.into()),
            Err(died) => Err(self.turned_down(name, &container, refusals::defect(&died))),
        }
    }

    /// A request that was refused before any work; it is counted and logged too.
    fn turned_down(&self, verb: &'static str, container: &str, refusal: Refusal) -> Status {
        self.recorder
            .turned_away(verb, container, clock::now(), &refusal);
        refusal.into()
    }
}

type Snapshots = Pin<Box<dyn Stream<Item = Result<v1::Snapshot, Status>> + Send>>;

#[tonic::async_trait]
impl Node for Service {
    async fn add(
        &self,
        request: Request<v1::AddRequest>,
    ) -> Result<Response<v1::AddReply>, Status> {
        let _under_way = listener::under_way(&request);
        let handed = handed(&request);
        let add = read_add(request.into_inner(), handed)
            .map_err(|refusal| self.turned_down("add", "", refusal))?;
        let sandboxes = self.sandboxes.clone();
        let container = add.sandbox.container_id.clone();
        self.detach("add", container, async move {
            sandboxes.add(add).await.map(|record| reply(&record))
        })
        .await
    }

    async fn del(
        &self,
        request: Request<v1::DelRequest>,
    ) -> Result<Response<v1::DelReply>, Status> {
        let _under_way = listener::under_way(&request);
        let handed = handed(&request);
        let sandbox = read_sandbox(request.into_inner().sandbox)
            .map_err(|refusal| self.turned_down("del", "", refusal))?;
        let sandboxes = self.sandboxes.clone();
        self.detach("del", sandbox.container_id.clone(), async move {
            let done = sandboxes.del(&sandbox, handed).await;
            done.map(|()| v1::DelReply {})
        })
        .await
    }

    async fn check(
        &self,
        request: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckReply>, Status> {
        let _under_way = listener::under_way(&request);
        let handed = handed(&request);
        let Check {
            sandbox,
            address,
            handed,
        } = read_check(request.into_inner(), handed)
            .map_err(|refusal| self.turned_down("check", "", refusal))?;
        let sandboxes = self.sandboxes.clone();
        self.detach("check", sandbox.container_id.clone(), async move {
            sandboxes
                .check(&sandbox, address, handed)
                .await
                .map(|()| v1::CheckReply {})
        })
        .await
    }

    async fn gc(&self, request: Request<v1::GcRequest>) -> Result<Response<v1::GcReply>, Status> {
        let _under_way = listener::under_way(&request);
        let v1::GcRequest { network, valid } = request.into_inner();
        let valid: Vec<_> = valid
            .into_iter()
            .map(|a| (a.container_id, a.ifname))
            .collect();
        let sandboxes = self.sandboxes.clone();
        self.detach("gc", String::new(), async move {
            sandboxes
                .gc(&network, &valid)
                .await
                .map(|released| v1::GcReply { released })
        })
        .await
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let _under_way = listener::under_way(&request);
        let pool = self
            .pool
            .snapshot()
            .await
            .map_err(|_| refusals::stopping(Reason::Stopping))?;
        // Not logged: a runtime calls this every few seconds.
        let refusal = status::not_serving(&pool);
        let result = refusal
            .as_ref()
            .map_or("ok", |refusal| refusal.reason.as_str_name());
        let metrics = &self.recorder.metrics;
        metrics.request("status", result, Duration::ZERO);
        match refusal {
            None => Ok(Response::new(v1::StatusReply {})),
            Some(refusal) => Err(refusal.into()),
        }
    }

    type InspectStream = Snapshots;

    async fn inspect(
        &self,
        request: Request<v1::InspectRequest>,
    ) -> Result<Response<Snapshots>, Status> {
        let under_way = listener::under_way(&request);
        // Subscribed before the first snapshot, so that no change in between is missed.
        let changes = self.pool.changes();
        let first = self
            .snapshot()
            .await
            .ok_or_else(|| refusals::stopping(Reason::Stopping))?;
        if !request.into_inner().watch {
            return Ok(in_use(under_way, tokio_stream::once(Ok(first))));
        }
        let (send, snapshots) = mpsc::channel(1);
        let service = self.clone();
        drop(
            self.detached
                .spawn_idle(service.watch(first, changes, send)),
        );
        Ok(in_use(under_way, ReceiverStream::new(snapshots)))
    }
}

/// A stream whose connection is in use as long as it exists.
fn in_use(
    under_way: Option<InFlight>,
    snapshots: impl Stream<Item = Result<v1::Snapshot, Status>> + Send + 'static,
) -> Response<Snapshots> {
    Response::new(Box::pin(snapshots.map(move |snapshot| {
        // Moved into the closure, which lives as long as the stream.
        let _ = &under_way;
        snapshot
    })))
}

fn handed<T>(request: &Request<T>) -> Option<Handed> {
    request
        .extensions()
        .get::<ConnectionContext>()
        .and_then(ConnectionContext::take)
}

fn no_descriptors() -> Refusal {
    refusals::invalid(&"the connection did not pass the sandbox's file descriptors")
}

fn read_sandbox(sandbox: Option<v1::Sandbox>) -> Result<Sandbox, Refusal> {
    let key =
        SandboxKey::try_from(sandbox.unwrap_or_default()).map_err(|e| refusals::invalid(&e))?;
    Ok(Sandbox {
        network: key.network.into(),
        container_id: key.container_id.into(),
        ifname: key.ifname.into(),
    })
}

/// A CHECK request, already validated.
struct Check {
    sandbox: Sandbox,
    address: Option<IpAddr>,
    handed: Handed,
}

fn read_check(request: v1::CheckRequest, handed: Option<Handed>) -> Result<Check, Refusal> {
    let address = match request.address.as_slice() {
        [] => None,
        bytes => Some(address::ip("address", bytes).map_err(|e| refusals::invalid(&e))?),
    };
    Ok(Check {
        sandbox: read_sandbox(request.sandbox)?,
        address,
        handed: handed.ok_or_else(no_descriptors)?,
    })
}

fn read_add(request: v1::AddRequest, handed: Option<Handed>) -> Result<Add, Refusal> {
    let sandbox = read_sandbox(request.sandbox)?;
    let pod = PodIdentity::from(request.pod.unwrap_or_default());
    let veth_prefix: Option<VethPrefix> =
        names::optional(&request.veth_prefix).map_err(|e| refusals::invalid(&e))?;
    let mtu = match request.mtu {
        0 => None,
        mtu if (names::MTU_MIN..=names::MTU_MAX).contains(&mtu) => Some(mtu),
        mtu => return Err(refusals::invalid(&format!("mtu {mtu} is out of range"))),
    };
    let asked = Asked {
        ports: asked::host_ports(&request.port_mappings).map_err(|e| refusals::invalid(&e))?,
        bandwidth: asked::bandwidth(request.bandwidth).map_err(|e| refusals::invalid(&e))?,
    };
    let wait = Duration::from_millis(request.deadline_ms.into())
        .saturating_sub(ANSWER_MARGIN)
        .min(ADD_LIMIT);
    Ok(Add {
        sandbox,
        pod: Pod {
            namespace: pod.namespace.map(Into::into),
            name: pod.name.map(Into::into),
            uid: pod.uid.map(Into::into),
        },
        deadline: clock::now() + wait,
        veth_prefix: veth_prefix.map(Into::into),
        mtu,
        asked,
        handed: handed.ok_or_else(no_descriptors)?,
    })
}

fn reply(record: &Record) -> v1::AddReply {
    let link = |name: &str, mac: Option<planner::Mac>| v1::Link {
        name: name.to_owned(),
        mac: mac.unwrap_or_default().0.into(),
        mtu: record.mtu.unwrap_or_default(),
    };
    v1::AddReply {
        address: address::octets(record.address),
        gateway: address::octets(gateway(Family::of(record.address))),
        host: Some(link(&record.host_name, record.host_mac)),
        pod: Some(link(&record.sandbox.ifname, record.pod_mac)),
        eni: record.eni.0.clone(),
        secondary: record.secondary,
    }
}
