//! Records what happens to requests, for humans: in metrics, in the history, in spans, and refusals in the log. All of
//! them are written here, so that they are consistent. Makes no decisions and waits for nothing.

use std::{sync::Arc, time::Duration};

use planner::{Mono, Sandbox};
use proto::refusal::Refusal;

use crate::telemetry::{
    history::History,
    metrics::Metrics,
    spans::{Request, Spans},
};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    pub metrics: Arc<Metrics>,
    pub history: Arc<History>,
    pub spans: Spans,
}

impl Recorder {
    /// A stage of a request has ended.
    pub fn stage(
        &self,
        verb: &'static str,
        stage: &'static str,
        sandbox: &Sandbox,
        begun: Mono,
        ended: Mono,
    ) {
        let (container, took) = (&sandbox.container_id, ended.since(begun));
        self.metrics.stage(verb, stage, took);
        self.history.stage(ended, container, verb, stage, took);
        self.spans.stage(stage, container, begun, ended);
    }

    /// An ADD has waited for its address: the result, and what it waited for.
    pub fn waited(&self, outcome: &'static str, reason: &'static str, took: Duration) {
        self.metrics.waited(outcome, reason, took);
        self.spans.set_attribute("hawser.waited_for", reason);
    }

    /// A request was refused before any work. It is not in the history, because many of them would replace everything
    /// else.
    pub fn turned_away(&self, verb: &'static str, container: &str, at: Mono, refusal: &Refusal) {
        let reason = log_refusal(verb, container, refusal);
        self.metrics.request(verb, reason, Duration::ZERO);
        if let Some(request) = self.spans.request(verb, container, at) {
            request.answered(at, Some(refusal));
        }
    }

    /// A request was answered or refused.
    pub fn answered(
        &self,
        verb: &'static str,
        container: &str,
        (begun, ended): (Mono, Mono),
        refusal: Option<&Refusal>,
        request: Option<Request>,
    ) {
        let result = refusal.map_or("ok", |refusal| log_refusal(verb, container, refusal));
        let took = ended.since(begun);
        self.metrics.request(verb, result, took);
        self.history.stage(ended, container, verb, result, took);
        if let Some(request) = request {
            request.answered(ended, refusal);
        }
    }
}

/// Logs a refusal; returns the name under which it is counted.
fn log_refusal(verb: &'static str, container: &str, refusal: &Refusal) -> &'static str {
    let reason = refusal.reason.as_str_name();
    let Refusal { cause, remedy, .. } = refusal;
    let retry_ms = refusal
        .retry_after
        .and_then(|after| u64::try_from(after.as_millis()).ok());
    tracing::warn!(verb, reason, container, cause, remedy, retry_ms, "refused");
    reason
}
