//! The HTTP server: waits as long as EC2 would, applies injected faults, and logs every call.

use std::sync::Arc;

use axum::{
    Form, Router,
    extract::{ConnectInfo, FromRequest as _, Request, State},
    http::{HeaderName, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};

use crate::{
    action::Action,
    error::ApiError,
    http::serve::Peer,
    state::{
        Shared,
        calls::{Call, Outcome, digest},
        faults::FaultKind,
    },
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// The API as a service, on any path: the real one uses `/`.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new().fallback(handle).with_state(shared)
}

/// One request in progress.
struct Exchange {
    shared: Arc<Shared>,
    id: String,
    action: String,
    form: Vec<(String, String)>,
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    // Only for matching log lines: a running number in the form of a request id.
    let id = format!("00000000-0000-4000-8000-{:012x}", shared.calls().len());
    let form = match Form::<Vec<(String, String)>>::from_request(request, &()).await {
        Ok(Form(form)) => form,
        Err(e) => return refuse(&ApiError::Malformed { why: e.to_string() }, &id),
    };
    let action = form
        .iter()
        .find(|(k, _)| k == "Action")
        .map(|(_, v)| v.clone())
        .unwrap_or_default();
    let exchange = Exchange {
        shared,
        id,
        action,
        form,
    };
    match check(&exchange) {
        Ok(action) => exchange.run(action, &peer).await,
        Err(e) => exchange.refused(&e),
    }
}

fn check(exchange: &Exchange) -> Result<Action, ApiError> {
    let version = exchange
        .form
        .iter()
        .find(|(k, _)| k == "Version")
        .map(|(_, v)| v.as_str());
    if exchange.action.is_empty() {
        return Err(ApiError::MissingParameter {
            name: "Action".into(),
        });
    }
    match version {
        None => Err(ApiError::MissingParameter {
            name: "Version".into(),
        }),
        Some(super::VERSION) => {
            Action::parse(&exchange.action).ok_or_else(|| ApiError::InvalidAction {
                action: exchange.action.clone(),
            })
        }
        Some(other) => Err(ApiError::NoSuchVersion {
            version: other.to_owned(),
        }),
    }
}

impl Exchange {
    async fn run(self, action: Action, peer: &Peer) -> Response {
        let latency = self.shared.world().draw_call_latency(action);
        let fault = self.shared.faults().take(action);
        tokio::time::sleep(latency / 2).await;
        match &fault {
            Some(FaultKind::Error { code }) => {
                let message = "A scripted fault.".to_owned();
                return self.refused(&ApiError::Scripted {
                    code: code.clone(),
                    message,
                });
            }
            Some(FaultKind::Hang) => {
                self.log(Outcome::Hung);
                return std::future::pending().await;
            }
            Some(FaultKind::Delay(more)) => tokio::time::sleep(*more).await,
            Some(FaultKind::LoseReply) | None => {}
        }
        let answer = self.apply(action);
        let lost = fault == Some(FaultKind::LoseReply);
        self.log(match &answer {
            _ if lost => Outcome::ReplyLost,
            Ok(_) => Outcome::Answered,
            Err(e) => Outcome::Refused(e.code().to_owned()),
        });
        tokio::time::sleep(latency / 2).await;
        if lost {
            peer.hang_up();
        }
        match answer {
            Ok(body) => respond(StatusCode::OK, body, &self.id),
            Err(e) => refuse(&e, &self.id),
        }
    }

    fn apply(&self, action: Action) -> Result<String, ApiError> {
        let control = |k: &str| k == "Action" || k == "Version";
        let form = self
            .form
            .iter()
            .filter(|(k, _)| !control(k))
            .cloned()
            .collect();
        let now = self.shared.now();
        if action.is_read()
            && let Some(old) = self.shared.frozen().as_mut()
        {
            return super::call(old, action, form, &self.id, now);
        }
        let answer = super::call(&mut self.shared.world(), action, form, &self.id, now);
        self.shared.touch();
        answer
    }

    fn log(&self, outcome: Outcome) {
        let at = self.shared.now();
        tracing::debug!(action = self.action, ?outcome, "ec2 call");
        self.shared.calls().push(Call {
            action: self.action.clone(),
            params: digest(&self.form),
            at,
            outcome,
        });
    }

    fn refused(&self, error: &ApiError) -> Response {
        self.log(Outcome::Refused(error.code().to_owned()));
        refuse(error, &self.id)
    }
}

fn refuse(error: &ApiError, id: &str) -> Response {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    respond(status, super::error_document(error, id), id)
}

fn respond(status: StatusCode, body: String, id: &str) -> Response {
    (
        status,
        [(CONTENT_TYPE, "text/xml;charset=UTF-8"), (REQUEST_ID, id)],
        body,
    )
        .into_response()
}
