//! A collector of spans, by OpenTelemetry's protocol: it receives them over HTTP or gRPC at an address that the caller
//! has bound, so that it can run in a node's namespace, and keeps them.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1,
};
use prost::Message as _;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Status, transport::Server};

const PROTOBUF: &str = "application/x-protobuf";

/// The collector's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Grpc,
}

/// See the module. Dropping it closes the port and all connections.
#[derive(Debug)]
pub struct Collector {
    pub address: SocketAddr,
    inbox: Arc<Inbox>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A span with its resource.
#[derive(Clone, Debug)]
pub struct Span {
    pub resource: Vec<KeyValue>,
    pub span: v1::Span,
}

#[derive(Debug, Default)]
struct Inbox {
    spans: Mutex<Vec<Span>>,
    /// The `authorization` of each request.
    secrets: Mutex<Vec<String>>,
    /// Every request is refused with a server error.
    broken: bool,
}

impl Collector {
    /// Receives spans on `listener`.
    ///
    /// # Errors
    /// If the server's thread or runtime cannot be created.
    pub fn start(listener: TcpListener, protocol: Protocol) -> io::Result<Self> {
        Self::serve(listener, protocol, Inbox::default())
    }

    /// Answers every request on `listener` with status 500.
    ///
    /// # Errors
    /// As [`Collector::start`].
    pub fn broken(listener: TcpListener) -> io::Result<Self> {
        let inbox = Inbox {
            broken: true,
            ..Inbox::default()
        };
        Self::serve(listener, Protocol::Http, inbox)
    }

    fn serve(listener: TcpListener, protocol: Protocol, inbox: Inbox) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (address, inbox) = (listener.local_addr()?, Arc::new(inbox));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let taking = inbox.clone();
        let serve = async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                return;
            };
            // Told to stop, or the sender is gone.
            tokio::select! {
                _ = stopped => {}
                () = take(listener, protocol, taking) => {}
            }
        };
        let thread = std::thread::Builder::new()
            .name("collector".to_owned())
            .spawn(move || runtime.block_on(serve))?;
        Ok(Self {
            address,
            inbox,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The spans so far, in the order of arrival.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        kept(&self.inbox.spans)
    }

    /// The spans with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.span.name == name);
        spans
    }

    /// The `authorization` of each request so far.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        kept(&self.inbox.secrets)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended already.
            stop.send(()).unwrap_or_default();
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Span {
    /// An attribute as text.
    #[must_use]
    pub fn told(&self, key: &str) -> Option<String> {
        attribute(&self.span.attributes, key)
    }

    /// An attribute of the resource as text.
    #[must_use]
    pub fn from(&self, key: &str) -> Option<String> {
        attribute(&self.resource, key)
    }

    /// The span's error, if it has one.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        let status = self.span.status.as_ref()?;
        (status.code() == v1::status::StatusCode::Error).then_some(status.message.as_str())
    }
}

fn attribute(all: &[KeyValue], key: &str) -> Option<String> {
    let found = all.iter().find(|a| a.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

fn kept<T: Clone>(of: &Mutex<Vec<T>>) -> Vec<T> {
    of.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Inbox {
    fn take(&self, secret: Option<&str>, request: ExportTraceServiceRequest) {
        let secrets = self.secrets.lock();
        let mut secrets = secrets.unwrap_or_else(PoisonError::into_inner);
        secrets.extend(secret.map(str::to_owned));
        let spans = self.spans.lock();
        let mut spans = spans.unwrap_or_else(PoisonError::into_inner);
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.unwrap_or_default().attributes;
            let all = of_resource.scope_spans.into_iter();
            spans.extend(all.flat_map(|scope| scope.spans).map(|span| Span {
                resource: resource.clone(),
                span,
            }));
        }
    }
}

async fn take(listener: tokio::net::TcpListener, protocol: Protocol, inbox: Arc<Inbox>) {
    match protocol {
        Protocol::Http => {
            let router = Router::new()
                .route("/v1/traces", post(over_http))
                .with_state(inbox);
            drop(axum::serve(listener, router).await);
        }
        Protocol::Grpc => {
            let served = Server::builder()
                .add_service(TraceServiceServer::from_arc(inbox))
                .serve_with_incoming(TcpListenerStream::new(listener));
            drop(served.await);
        }
    }
}

async fn over_http(State(inbox): State<Arc<Inbox>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if inbox.broken {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    match ExportTraceServiceRequest::decode(body) {
        Ok(request) if text("content-type") == Some(PROTOBUF) => {
            inbox.take(text("authorization"), request);
            let answer = ExportTraceServiceResponse::default().encode_to_vec();
            ([(CONTENT_TYPE, PROTOBUF)], answer).into_response()
        }
        _ => StatusCode::BAD_REQUEST.into_response(),
    }
}

#[tonic::async_trait]
impl TraceService for Inbox {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let secret = request.metadata().get("authorization").cloned();
        let secret = secret.as_ref().and_then(|secret| secret.to_str().ok());
        self.take(secret, request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}
