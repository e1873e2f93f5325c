//! The endpoints for kubelet's probes, `/healthz` and `/readyz`, on their own thread.
//!
//! Neither depends on EC2 or the API server: restarting the daemon would not help if these fail.

use std::{io, net::SocketAddr, thread, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use planner::Snapshot;
use proto::error_chain::chain;
use tokio::net::TcpListener;

use super::limited_listener::LimitedListener;
use crate::{pool::driver::Pool, rpc::status};

/// The task that owns the pool normally answers within microseconds.
const LIMIT: Duration = Duration::from_secs(3);
/// The most concurrent probes.
const CONNECTIONS: usize = 8;

/// Binds `address` and serves until the process ends.
///
/// # Errors
/// If the address cannot be bound or the thread cannot be started.
pub fn start(address: SocketAddr, pool: Pool) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(pool);
    thread::Builder::new()
        .name("probes".to_owned())
        .spawn(move || {
            let served = runtime.block_on(async move {
                let listener = TcpListener::from_std(listener)?;
                axum::serve(LimitedListener::new(listener, CONNECTIONS), routes).await
            });
            if let Err(error) = served {
                tracing::error!(%error, "probes are no longer served");
            }
        })?;
    Ok(())
}

/// Answers every probe with success, for a command that keeps running after it has finished its work.
///
/// # Errors
/// If the address cannot be bound.
pub async fn serve_success(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let routes = Router::new().fallback(|| async { "ok\n" });
    axum::serve(LimitedListener::new(listener, CONNECTIONS), routes).await
}

/// Whether the daemon works: its pool answers.
async fn healthz(State(pool): State<Pool>) -> (StatusCode, String) {
    match snapshot(&pool).await {
        Ok(_) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Whether the daemon serves ADDs. A node without free addresses is ready: an ADD gets its own error there.
async fn readyz(State(pool): State<Pool>) -> (StatusCode, String) {
    let why = match snapshot(&pool).await {
        Ok(pool) => not_ready(&pool),
        Err(why) => Some(why.to_owned()),
    };
    match why {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn snapshot(pool: &Pool) -> Result<Snapshot, &'static str> {
    match tokio::time::timeout(LIMIT, pool.snapshot()).await {
        Ok(Ok(snapshot)) => Ok(snapshot),
        Ok(Err(_)) => Err("the address pool has shut down"),
        Err(_) => Err("the address pool does not answer"),
    }
}

fn not_ready(pool: &Snapshot) -> Option<String> {
    if pool.totals.free == 0 && !pool.inventoried {
        return Some("the node's ENIs are not known yet".to_owned());
    }
    status::not_serving(pool).map(|refusal| chain(&refusal))
}
