//! Where what happens to requests is written down for people: in figures, in words, in spans, and refusals in the log. One
//! door for all of them, so that nothing is in one of them only. Decides nothing and waits for nobody.

use std::{sync::Arc, time::Duration};

use planner::{Mono, Sandbox};
use proto::refusal::Refusal;

use crate::telemetry::{
    history::History,
    metrics::Metrics,
    spans::{Request, Traces},
};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Books {
    pub metrics: Arc<Metrics>,
    pub history: Arc<History>,
    pub traces: Traces,
}

impl Books {
    /// A stage of a request is over.
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
        self.traces.stage(stage, container, begun, ended);
    }

    /// An ADD has waited for its address: what became of it, and what it waited for.
    pub fn waited(&self, outcome: &'static str, reason: &'static str, took: Duration) {
        self.metrics.waited(outcome, reason, took);
        self.traces.tell("hawser.waited_for", reason);
    }

    /// A request was refused at the door. Of a flood of them the history would hold nothing else.
    pub fn turned_away(&self, verb: &'static str, container: &str, at: Mono, refusal: &Refusal) {
        let reason = told(verb, container, refusal);
        self.metrics.request(verb, reason, Duration::ZERO);
        if let Some(request) = self.traces.request(verb, container, at) {
            request.answered(at, Some(refusal));
        }
    }

    /// A request is answered, or turned down.
    pub fn answered(
        &self,
        verb: &'static str,
        container: &str,
        (begun, ended): (Mono, Mono),
        refusal: Option<&Refusal>,
        request: Option<Request>,
    ) {
        let result = refusal.map_or("ok", |refusal| told(verb, container, refusal));
        let took = ended.since(begun);
        self.metrics.request(verb, result, took);
        self.history.stage(ended, container, verb, result, took);
        if let Some(request) = request {
            request.answered(ended, refusal);
        }
    }
}

/// Tells the log of a refusal; answers the name under which it is counted.
fn told(verb: &'static str, container: &str, refusal: &Refusal) -> &'static str {
    let reason = refusal.reason.as_str_name();
    let Refusal { cause, remedy, .. } = refusal;
    let retry_ms = refusal
        .retry_after
        .and_then(|after| u64::try_from(after.as_millis()).ok());
    tracing::warn!(verb, reason, container, cause, remedy, retry_ms, "refused");
    reason
}
