//! `/metrics` over HTTP, on its own runtime, so that a scrape cannot delay a pod's start, or the reverse.

use std::{net::SocketAddr, sync::Arc, thread};

use axum::{
    Router, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing::get,
};
use tokio::net::TcpListener;

use super::limited_listener::LimitedListener;
use crate::{
    ec2::executor::Executor,
    pool::driver::Pool,
    telemetry::metrics::{self, Metrics},
};

/// The maximum number of simultaneous scrapes.
const CONNECTIONS: usize = 32;

#[derive(Clone)]
struct Shared {
    pool: Pool,
    executor: Executor,
    metrics: Arc<Metrics>,
}

/// Binds `address` and serves from its own thread until the process ends. Returns the bound address.
///
/// # Errors
/// The operating system's error for the address or the thread.
pub fn start(
    address: SocketAddr,
    pool: Pool,
    executor: Executor,
    metrics: Arc<Metrics>,
) -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let routes = Router::new()
        .route("/metrics", get(text))
        .with_state(Shared {
            pool,
            executor,
            metrics,
        });
    thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            let served = runtime.block_on(async move {
                let listener = TcpListener::from_std(listener)?;
                axum::serve(LimitedListener::new(listener, CONNECTIONS), routes).await
            });
            if let Err(error) = served {
                tracing::error!(%error, "metrics are no longer served");
            }
        })?;
    Ok(bound)
}

async fn text(State(shared): State<Shared>) -> impl IntoResponse {
    // Gauges are calculated when they are scraped: between scrapes they cost nothing.
    if let Ok(pool) = shared.pool.snapshot().await {
        shared.metrics.pool(&pool);
    }
    for bucket in shared.executor.pace() {
        shared
            .metrics
            .pace(bucket.action, bucket.rate, bucket.pause);
    }
    (
        [(CONTENT_TYPE, metrics::CONTENT_TYPE)],
        shared.metrics.text(),
    )
}
