//! A daemon that implements the external interface (socket, preamble, gRPC) and records calls instead of configuring a
//! network.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use nettypes::netns::{NetnsId, identify};
use proto::handover::{Preamble, receive};
use proto::refusal::Refusal;
use proto::v1;
use proto::v1::node_server::{Node, NodeServer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// A directory that is deleted with the test.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hawser-conformance-{}-{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // A remaining directory must not hide the cause of a test failure.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Everything that the daemon received.
#[derive(Default)]
pub struct Seen {
    /// One entry per connection: the namespace that was passed with it.
    pub preambles: Vec<Option<NetnsId>>,
    pub add: Vec<v1::AddRequest>,
    pub del: Vec<v1::DelRequest>,
    pub check: Vec<v1::CheckRequest>,
    pub gc: Vec<v1::GcRequest>,
    pub status: usize,
}

#[derive(Default)]
struct State {
    seen: Mutex<Seen>,
    /// The refusal to return instead of success.
    refusal: Mutex<Option<Refusal>>,
    /// Never answer.
    mute: bool,
}

/// A running daemon. Its thread ends with the test's process.
pub struct Daemon {
    dir: Dir,
    state: Arc<State>,
}

impl Daemon {
    pub fn start() -> Self {
        Self::with(State::default())
    }

    pub fn refusing(refusal: Refusal) -> Self {
        Self::with(State {
            refusal: Mutex::new(Some(refusal)),
            ..State::default()
        })
    }

    pub fn mute() -> Self {
        Self::with(State {
            mute: true,
            ..State::default()
        })
    }

    fn with(state: State) -> Self {
        let dir = Dir::new();
        let state = Arc::new(state);
        // Bound before the thread starts: connections from now on wait in the queue.
        let listener = StdListener::bind(dir.join("ipamd.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let served = Arc::clone(&state);
        std::thread::spawn(move || serve(listener, served));
        Self { dir, state }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("ipamd.sock")
    }

    pub fn refuse(&self, refusal: Option<Refusal>) {
        *self.state.refusal.lock().unwrap() = refusal;
    }

    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.state.seen.lock().unwrap())
    }

    /// Whether no connection was made.
    pub fn untouched(&self) -> bool {
        self.seen(|seen| seen.preambles.is_empty())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve(listener: StdListener, state: Arc<State>) {
    let listener = UnixListener::from_std(listener).unwrap();
    let (streams, incoming) = mpsc::channel::<Result<UnixStream, std::io::Error>>(64);
    let accept = async {
        while let Ok((stream, _)) = listener.accept().await {
            let preamble = preamble(&stream).await;
            state.seen.lock().unwrap().preambles.push(preamble);
            if streams.send(Ok(stream)).await.is_err() {
                break;
            }
        }
    };
    let node = NodeServer::new(Recorder(Arc::clone(&state)));
    let server = tonic::transport::Server::builder()
        .add_service(node)
        .serve_with_incoming(ReceiverStream::new(incoming));
    let (_, served) = tokio::join!(accept, server);
    served.unwrap();
}

async fn preamble(stream: &UnixStream) -> Option<NetnsId> {
    let read = || receive(stream.as_fd());
    let preamble = stream.async_io(tokio::io::Interest::READABLE, read).await;
    match preamble.expect("the plugin keeps the contract") {
        Preamble::Bare => None,
        Preamble::Handed(handed) => Some(identify(handed.netns.as_fd()).unwrap()),
    }
}

struct Recorder(Arc<State>);

impl Recorder {
    async fn answer<T>(
        &self,
        record: impl FnOnce(&mut Seen),
        reply: T,
    ) -> Result<Response<T>, Status> {
        record(&mut self.0.seen.lock().unwrap());
        if self.0.mute {
            std::future::pending::<()>().await;
        }
        match self.0.refusal.lock().unwrap().clone() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(Response::new(reply)),
        }
    }
}

fn granted(request: &v1::AddRequest) -> v1::AddReply {
    let link = |name: &str, last| {
        Some(v1::Link {
            name: name.to_owned(),
            mac: vec![2, 0, 0, 0, 0, last],
            mtu: 9001,
        })
    };
    let sandbox = request.sandbox.clone().unwrap();
    v1::AddReply {
        address: vec![10, 0, 3, 7],
        gateway: vec![169, 254, 1, 1],
        host: link("eni0123456789a", 1),
        pod: link(&sandbox.ifname, 2),
        eni: "eni-1".to_owned(),
        secondary: false,
    }
}

#[tonic::async_trait]
impl Node for Recorder {
    async fn add(&self, r: Request<v1::AddRequest>) -> Result<Response<v1::AddReply>, Status> {
        let r = r.into_inner();
        let reply = granted(&r);
        self.answer(|seen| seen.add.push(r), reply).await
    }

    async fn del(&self, r: Request<v1::DelRequest>) -> Result<Response<v1::DelReply>, Status> {
        let record = |seen: &mut Seen| seen.del.push(r.into_inner());
        self.answer(record, v1::DelReply {}).await
    }

    async fn check(
        &self,
        r: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckReply>, Status> {
        let record = |seen: &mut Seen| seen.check.push(r.into_inner());
        self.answer(record, v1::CheckReply {}).await
    }

    async fn gc(&self, r: Request<v1::GcRequest>) -> Result<Response<v1::GcReply>, Status> {
        let record = |seen: &mut Seen| seen.gc.push(r.into_inner());
        self.answer(record, v1::GcReply { released: 0 }).await
    }

    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        self.answer(|seen| seen.status += 1, v1::StatusReply {})
            .await
    }

    type InspectStream = tokio_stream::Empty<Result<v1::Snapshot, Status>>;

    async fn inspect(
        &self,
        _: Request<v1::InspectRequest>,
    ) -> Result<Response<Self::InspectStream>, Status> {
        Err(Status::unimplemented("the plugin never inspects"))
    }
}

/// A socket path without a listener.
pub fn nobody(dir: &Dir) -> PathBuf {
    let socket = dir.join("nobody.sock");
    assert!(!Path::exists(&socket));
    socket
}
