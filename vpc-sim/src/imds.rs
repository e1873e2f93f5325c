//! IMDSv2: tokens, and the keys that a CNI plugin reads. The caller's address determines the instance.
//!
//! Owns the protocol; `keys` owns the tree. May use `state` and `world`. Must not know EC2's API. Its contents lag behind EC2 as configured in the world
//! ([`crate::world::ImdsLag`]). IMDSv1 (no token) is disabled, as on current AMIs.

mod keys;

#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    http::{
        HeaderMap, HeaderName, Method, StatusCode,
        header::{CONTENT_TYPE, DATE},
    },
    response::{IntoResponse as _, Response},
};

use self::keys::lookup;
pub use self::keys::{INTERFACE_KEYS, KEYS};
pub use crate::state::imds_faults::{ImdsFault, ImdsScript};
use crate::{
    http::serve::Peer,
    ids::InstanceId,
    state::{Shared, imds_tokens::MAX_TTL},
    world::World,
};

const TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const FORWARDED: &str = "x-forwarded-for";
const TOKEN_PATH: &str = "/latest/api/token";

/// The API as a service. `fixed`: the instance of all callers; otherwise the owner of the caller's address.
pub(crate) fn router(shared: Arc<Shared>, fixed: Option<InstanceId>) -> Router {
    Router::new()
        .fallback(handle)
        .with_state(Imds { shared, fixed })
}

#[derive(Clone, Debug)]
struct Imds {
    shared: Arc<Shared>,
    fixed: Option<InstanceId>,
}

async fn handle(
    State(imds): State<Imds>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let path = request.uri().path().to_owned();
    let fault = imds.shared.imds().take_fault(&path);
    if let Some(fault) = fault {
        tokio::time::sleep(fault.delay).await;
        if let Some(status) = fault.status {
            return plain(
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            );
        }
    }
    // Only instances can reach the real service.
    let Some(instance) = imds.instance(peer.addr.ip()) else {
        return plain(StatusCode::NOT_FOUND);
    };
    match *request.method() {
        Method::PUT => imds.put(&path, request.headers(), instance),
        Method::GET | Method::HEAD => imds.get(&path, request.headers(), &instance),
        _ => plain(StatusCode::METHOD_NOT_ALLOWED),
    }
}

impl Imds {
    fn instance(&self, from: IpAddr) -> Option<InstanceId> {
        self.fixed
            .clone()
            .or_else(|| instance_at(&self.shared.world(), from))
    }

    fn put(&self, path: &str, headers: &HeaderMap, instance: InstanceId) -> Response {
        // A version-specific path returns "forbidden" and not "not found": EC2 distinguishes an old client from a wrong
        // one.
        if headers.contains_key(FORWARDED) || (path != TOKEN_PATH && path.ends_with("/api/token")) {
            return plain(StatusCode::FORBIDDEN);
        }
        if path != TOKEN_PATH {
            return plain(StatusCode::NOT_FOUND);
        }
        let ttl = headers
            .get(TTL)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse::<u64>().ok());
        let Some(ttl) = ttl.filter(|t| (1..=MAX_TTL).contains(t)) else {
            return plain(StatusCode::BAD_REQUEST);
        };
        let mut imds = self.shared.imds();
        let Some(token) = imds.issue(instance, ttl, self.shared.now()) else {
            return plain(StatusCode::TOO_MANY_REQUESTS);
        };
        let date = imds.date().and_then(|date| date.parse().ok());
        let head = [
            (CONTENT_TYPE, "text/plain".to_owned()),
            (TTL, ttl.to_string()),
        ];
        let mut response = (head, token).into_response();
        if let Some(date) = date {
            response.headers_mut().insert(DATE, date);
        }
        response
    }

    fn get(&self, path: &str, headers: &HeaderMap, instance: &InstanceId) -> Response {
        let now = self.shared.now();
        let token = headers.get(TOKEN).and_then(|v| v.to_str().ok());
        {
            let mut imds = self.shared.imds();
            if !token.is_some_and(|t| imds.accepts(t, instance, now)) {
                return plain(StatusCode::UNAUTHORIZED);
            }
            if !imds.admit(instance, now) {
                return plain(StatusCode::TOO_MANY_REQUESTS);
            }
        }
        match lookup(&mut self.shared.world(), instance, path, now) {
            Some(value) => ([(CONTENT_TYPE, "text/plain")], value).into_response(),
            None => plain(StatusCode::NOT_FOUND),
        }
    }
}

/// The instance that owns `from` on any of its interfaces: a pod's request comes from the pod's own address.
fn instance_at(world: &World, from: IpAddr) -> Option<InstanceId> {
    world
        .owner_of(from)?
        .attachment
        .as_ref()
        .map(|a| a.instance.clone())
}

/// The error page of the real service, which is XHTML although its other contents are plain text.
fn plain(status: StatusCode) -> Response {
    let title = format!(
        "{} - {}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default()
    );
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n\
         <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n \
         <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n </body>\n</html>\n"
    );
    (status, [(CONTENT_TYPE, "text/html")], body).into_response()
}
