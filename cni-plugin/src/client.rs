//! Owns the conversation with the daemon: connect, preamble, one gRPC call, all of it within one deadline, tried again
//! while trying again makes sense. Knows no verb.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::handover;
use proto::refusal::{Reason, Refusal};
use proto::v1::node_client::NodeClient;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, Uri};
use tonic::{Code, Status};
use tower::Service;

use crate::error::{Failure, code};
use crate::netns::Descriptors;

/// First and longest pause between two attempts. A daemon that restarts is back within a fraction of a second, and
/// there is nothing to wait on that would exist before its socket does.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// Why the daemon gave no answer of use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("ipamd cannot be reached at {}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("the connection to ipamd at {} broke", socket.display())]
    Broken {
        socket: PathBuf,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("ipamd at {} did not answer within {within:?}", socket.display())]
    Late { socket: PathBuf, within: Duration },
    #[error("ipamd refused")]
    Refused { refusal: Refusal },
    #[error("the runtime for the call could not be set up")]
    Runtime { source: io::Error },
}

const REMEDY: &str = "check that the hawser pod on this node is running and ready, and see its log";

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused { refusal } => refusal.into(),
            ClientError::Runtime { .. } => Self::new(code::INTERNAL, &error, ""),
            error => Self::new(code::TRY_AGAIN, &error, REMEDY),
        }
    }
}

impl ClientError {
    /// Whether no daemon answered: nobody said no.
    pub const fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Broken { .. } | Self::Late { .. }
        )
    }

    /// When to try again by itself within the deadline; `None` for an answer that has to be given through.
    fn retry_after(&self, pause: Duration) -> Option<Duration> {
        match self {
            // Not there yet; there, but nobody listens; there, but the queue of connections is full.
            Self::Connect { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::Interrupted
            )
            .then_some(pause),
            // Every request is idempotent per sandbox, so a broken connection costs nothing but another one.
            Self::Broken { .. } => Some(pause),
            // A daemon on its way up or down says itself when its successor is worth asking.
            Self::Refused { refusal } => match refusal.reason {
                Reason::Starting | Reason::Stopping => {
                    refusal.retry_after.map(|after| after.max(pause))
                }
                _ => None,
            },
            Self::Late { .. } | Self::Runtime { .. } => None,
        }
    }
}

/// One call's worth of the daemon.
#[derive(Debug)]
pub struct Daemon<'a> {
    pub socket: &'a Path,
    /// From now.
    pub within: Duration,
    /// Sent ahead of the call.
    pub descriptors: Option<&'a Descriptors>,
}

impl Daemon<'_> {
    /// Makes one call. `request` is told how many milliseconds are left, and is repeated on a new connection while that
    /// makes sense.
    pub fn call<T, F>(&self, request: impl Fn(Client, u32) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|source| ClientError::Runtime { source })?;
        runtime.block_on(self.attempts(request))
    }

    async fn attempts<T, F>(&self, request: impl Fn(Client, u32) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.within;
        let mut pause = PAUSES.0;
        // What to blame if the deadline cuts the last attempt short: the evidence before it says more than a timeout.
        let mut last = None;
        loop {
            let error = match timeout_at(deadline, self.attempt(deadline, &request)).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => error,
                Err(_elapsed) => return Err(last.unwrap_or_else(|| self.late())),
            };
            match error.retry_after(pause) {
                Some(after) if Instant::now() + after < deadline => sleep(after).await,
                _ => return Err(error),
            }
            last = Some(error);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn attempt<T, F>(
        &self,
        deadline: Instant,
        request: &impl Fn(Client, u32) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let stream = self.connect().await?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        let client = NodeClient::with_origin(Connection(sender), Uri::from_static("http://ipamd"));
        let left = deadline.saturating_duration_since(Instant::now());
        let mut reply = std::pin::pin!(request(client, answer_within(left)));
        let mut connection = std::pin::pin!(connection);
        // Biased: an answer that is there counts even if the connection has ended behind it.
        let outcome = tokio::select! {
            biased;
            outcome = &mut reply => outcome,
            _ended = &mut connection => reply.await,
        };
        outcome
            .map(tonic::Response::into_inner)
            .map_err(|status| self.classify(status))
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let socket = || self.socket.to_owned();
        let stream =
            UnixStream::connect(self.socket)
                .await
                .map_err(|source| ClientError::Connect {
                    socket: socket(),
                    source,
                })?;
        let descriptors = self
            .descriptors
            .map(|d| (d.netns.as_fd(), d.netlink.as_fd()));
        handover::send(stream.as_fd(), descriptors).map_err(|error| self.broken(error))?;
        Ok(stream)
    }

    /// Tells an answer of the daemon from one that tonic made up because the connection failed: only the latter has a
    /// cause.
    fn classify(&self, status: Status) -> ClientError {
        if status.source().is_some() {
            return self.broken(status);
        }
        if status.code() == Code::DeadlineExceeded && status.details().is_empty() {
            return self.late();
        }
        ClientError::Refused {
            refusal: Refusal::from_status(&status),
        }
    }

    fn broken(&self, source: impl Into<Box<dyn Error + Send + Sync>>) -> ClientError {
        ClientError::Broken {
            socket: self.socket.to_owned(),
            source: source.into(),
        }
    }

    fn late(&self) -> ClientError {
        ClientError::Late {
            socket: self.socket.to_owned(),
            within: self.within,
        }
    }
}

/// The milliseconds a daemon may take, so that its refusal, which names a cause, arrives before our own deadline, which
/// knows none.
fn answer_within(left: Duration) -> u32 {
    let margin = (left / 10).min(Duration::from_millis(500));
    u32::try_from((left - margin).as_millis())
        .unwrap_or(u32::MAX)
        .max(1)
}

/// The generated client over one connection.
pub type Client = NodeClient<Connection>;

/// One HTTP/2 connection as the service that the generated client wants.
#[derive(Clone)]
pub struct Connection(SendRequest<Body>);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_gets_less_time_than_is_left() {
        assert_eq!(answer_within(Duration::from_secs(60)), 59_500);
        assert_eq!(answer_within(Duration::from_secs(1)), 900);
        assert_eq!(answer_within(Duration::ZERO), 1);
        assert_eq!(answer_within(Duration::MAX), u32::MAX);
    }

    #[test]
    fn only_passing_trouble_is_tried_again() {
        let pause = PAUSES.0;
        let connect = |kind: io::ErrorKind| ClientError::Connect {
            socket: "/s".into(),
            source: kind.into(),
        };
        for (kind, again) in [
            (io::ErrorKind::NotFound, true),
            (io::ErrorKind::ConnectionRefused, true),
            (io::ErrorKind::WouldBlock, true),
            (io::ErrorKind::PermissionDenied, false),
        ] {
            assert_eq!(connect(kind).retry_after(pause).is_some(), again, "{kind}");
        }
        let refused = |reason, after| ClientError::Refused {
            refusal: Refusal::new(reason, "x", "", after),
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(refused(Reason::Starting, second).retry_after(pause), second);
        assert_eq!(refused(Reason::Starting, None).retry_after(pause), None);
        assert_eq!(refused(Reason::PodLimit, second).retry_after(pause), None);
    }

    #[test]
    fn no_message_of_an_absent_socket_is_swallowed_by_a_runtime() {
        let failure = Failure::from(ClientError::Connect {
            socket: "/run/hawser/ipamd.sock".into(),
            source: io::Error::from_raw_os_error(2),
        });
        assert_eq!(failure.code, 11);
        assert!(!failure.msg.to_lowercase().contains("no such file"));
        assert!(failure.msg.contains("/run/hawser/ipamd.sock"));
    }
}
