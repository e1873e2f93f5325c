//! The connection to the API server: a client with the configuration of a kubeconfig or of the pod's own service account.
//!
//! Certificates, keys and tokens are replaced while the daemon runs. The library reads those of a kubeconfig once, and
//! those of a service account once a minute. Here the configuration is read again after every failed request.

use std::{
    error::Error,
    iter::successors,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use kube::{Client, client::Body, config::InferConfigError};
use proto::error_chain::chain;
use tokio::sync::Mutex;

use crate::config::Kubernetes;

/// The maximum silence on a connection. The library renews a watch sooner (290 s), so only an unanswered list or a
/// vanished peer reaches this limit.
const SILENCE: Duration = Duration::from_secs(300);

/// Why the Node is not watched. All of these are valid ways to run, not faults.
#[derive(Debug, thiserror::Error)]
pub enum NotFollowed {
    #[error("MY_NODE_NAME is not set")]
    NoName,
    #[error("no cluster is configured")]
    NoCluster(#[source] Box<InferConfigError>),
    #[error("CLUSTER_ENDPOINT={endpoint} is not a URL")]
    Endpoint { endpoint: String },
    #[error("no client can be created for {url}")]
    Client {
        url: String,
        #[source]
        source: Box<kube::Error>,
    },
}

/// An error of a request with its causes. The library prints the API server's answer in debug syntax.
pub(super) fn told(error: &(dyn Error + 'static)) -> String {
    let causes = successors(Some(error), |&error| error.source());
    for cause in causes {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            return format!("the API server answers {}: {}", status.code, status.message);
        }
    }
    chain(error)
}

/// A client for the configured cluster, and the name of this Node.
pub(super) async fn open(settings: Kubernetes) -> Result<(Client, String), NotFollowed> {
    let node = settings.node.ok_or(NotFollowed::NoName)?;
    let client = connect(settings.endpoint.as_deref()).await?;
    let namespace = client.default_namespace().to_owned();
    let renewed = Arc::new(Renewed {
        endpoint: settings.endpoint,
        client: Mutex::new(client),
        failed: AtomicBool::new(false),
    });
    let service = tower::service_fn(move |request| Arc::clone(&renewed).send(request));
    Ok((Client::new(service, namespace), node))
}

/// A client that is replaced when it fails.
struct Renewed {
    endpoint: Option<String>,
    client: Mutex<Client>,
    /// The last request had no answer, or its credentials were refused.
    failed: AtomicBool,
}

impl Renewed {
    async fn send(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let answer = self.client().await.send(request).await;
        let refused = |answer: &Response<Body>| answer.status() == StatusCode::UNAUTHORIZED;
        let failed = answer.as_ref().map_or(true, refused);
        self.failed.store(failed, Ordering::Relaxed);
        answer
    }

    /// Reading a few files is cheap compared with a request, and failed requests are repeated at most every 0.8 s.
    async fn client(&self) -> Client {
        let mut client = self.client.lock().await;
        if self.failed.load(Ordering::Relaxed) {
            match connect(self.endpoint.as_deref()).await {
                Ok(new) => *client = new,
                // For example between two writes of a file. The next request tries again.
                Err(error) => {
                    let error = chain(&error);
                    tracing::debug!(
                        error,
                        "the configuration of the cluster cannot be read again"
                    );
                }
            }
        }
        client.clone()
    }
}

/// A client with the configuration as it is now.
async fn connect(endpoint: Option<&str>) -> Result<Client, NotFollowed> {
    let mut config = kube::Config::infer()
        .await
        .map_err(|e| NotFollowed::NoCluster(Box::new(e)))?;
    // The Service's address works only when kube-proxy runs, which may itself wait for the pod network (upstream
    // v1.12.1).
    if let Some(endpoint) = endpoint {
        let invalid = || NotFollowed::Endpoint {
            endpoint: endpoint.to_owned(),
        };
        config.cluster_url = endpoint.parse().map_err(|_| invalid())?;
    }
    client(config)
}

/// A client with a time limit for a silent peer.
///
/// # Errors
/// [`NotFollowed::Client`] if the configuration's certificates or credentials are invalid.
pub fn client(mut config: kube::Config) -> Result<Client, NotFollowed> {
    config.read_timeout = Some(SILENCE);
    // Otherwise the idle time of a pooled connection would count as silence of the peer.
    config.reset_reader_on_write = true;
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| NotFollowed::Client {
        url,
        source: Box::new(source),
    })
}
