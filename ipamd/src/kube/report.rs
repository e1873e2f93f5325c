//! Writes to the daemon's own Node what operators and schedulers need to know: conditions, events, and the end of the
//! startup taint. Each is a setting of its own, and off by default, since each needs a right.
//!
//! Never on the path of an ADD: this task follows the pool's changes and writes at most once in [`PERIOD`]. While the API
//! server is away nothing is lost: the next write has the state of then.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Node, Taint};
use kube::{
    Api,
    api::{ApiResource, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    conditions::{self, Announced, Condition},
    connection::{open, told},
    node::{OwnNode, Uid},
};
use crate::{config::Kubernetes, pool::driver::Pool, runtime::clock};

/// The least time between two writes.
const PERIOD: Duration = Duration::from_secs(5);
/// Between two looks at what does not change with the pool: the runtime's directory.
const LOOK: Duration = Duration::from_secs(30);

/// Reports until the pool ends. Returns at once if nothing is to be reported, or without `announced`, which looks what the
/// runtime knows of this network. `uid`: the Node's, as [`super::follow`] reads it.
pub async fn report(
    settings: Kubernetes,
    announced: Option<impl Fn() -> Announced>,
    mut uid: watch::Receiver<Uid>,
    pool: Pool,
) {
    let reports = settings.conditions || settings.events || settings.startup_taint.is_some();
    let (true, Some(announced)) = (reports, announced) else {
        return;
    };
    // The task that watches the Node logs why there is no cluster.
    let Ok((client, node)) = open(settings.clone()).await else {
        return;
    };
    let mut reporter = Reporter {
        nodes: Api::all_with(client.clone(), &ApiResource::erase::<Node>(&())),
        events: Api::namespaced(client, "default"),
        node,
        settings,
        written: Written::default(),
        failed: false,
    };
    let mut changes = pool.changes();
    while let Ok(snapshot) = pool.snapshot().await {
        reporter.written.now_to(uid.borrow_and_update().as_deref());
        let announced = announced();
        let mut wanted = vec![
            conditions::network(&announced),
            conditions::pressure(&snapshot, clock::wall()),
        ];
        let subnet = conditions::subnet(&snapshot);
        if subnet.is_true || reporter.written.last(subnet.kind).is_some() {
            wanted.push(subnet);
        }
        let reported = reporter
            .write(wanted, announced == Announced::Yes && snapshot.inventoried)
            .await;
        reporter.note(reported.err());
        sleep(PERIOD).await;
        // Pods wait for it.
        if announced != Announced::Yes {
            continue;
        }
        let news = async {
            tokio::select! {
                changed = changes.changed() => changed,
                Ok(()) = uid.changed() => Ok(()),
            }
        };
        if matches!(timeout(LOOK, news).await, Ok(Err(_))) {
            return;
        }
    }
}

/// What was written to the Node.
#[derive(Debug, Default)]
struct Written {
    uid: Uid,
    /// The last of each kind, with the time of its last transition.
    conditions: Vec<(Condition, String)>,
    taint_removed: bool,
}

impl Written {
    /// A Node that is registered anew has another uid, the startup taint, and no condition of ours.
    fn now_to(&mut self, uid: Option<&str>) {
        let Some(uid) = uid else { return };
        if self.uid.as_deref().is_some_and(|before| before != uid) {
            *self = Self::default();
        }
        self.uid = Some(uid.to_owned());
    }

    fn last(&self, kind: &str) -> Option<&(Condition, String)> {
        self.conditions.iter().find(|(last, _)| last.kind == kind)
    }

    fn keep(&mut self, condition: Condition, since: String) {
        self.conditions
            .retain(|(last, _)| last.kind != condition.kind);
        self.conditions.push((condition, since));
    }
}

struct Reporter {
    nodes: Api<OwnNode>,
    events: Api<Event>,
    node: String,
    settings: Kubernetes,
    written: Written,
    /// The last write failed; logged once.
    failed: bool,
}

impl Reporter {
    async fn write(&mut self, wanted: Vec<Condition>, serving: bool) -> Result<(), kube::Error> {
        let now = clock::wall_rfc3339();
        for condition in wanted {
            let kind = condition.kind;
            let last = self.written.last(kind);
            if last.is_some_and(|(last, _)| !condition.differs(last)) {
                continue;
            }
            let changed = match last {
                Some((last, since)) if last.is_true == condition.is_true => since.clone(),
                _ => now.clone(),
            };
            // A pool that has had addresses from the start is no news.
            let news = last.is_some() || condition.is_true;
            if self.settings.conditions {
                let status =
                    json!({ "status": { "conditions": [condition.to_json(&now, &changed)] } });
                let patch = Patch::Strategic(&status);
                let parameters = PatchParams::default();
                self.nodes
                    .patch_status(&self.node, &parameters, &patch)
                    .await?;
            }
            if self.settings.events && news && kind != conditions::NETWORK_UNAVAILABLE {
                self.send_event(&condition, &now).await?;
            }
            self.written.keep(condition, changed);
        }
        match self.settings.startup_taint.clone() {
            Some(key) if serving && !self.written.taint_removed => {
                self.remove_taint(&key).await?;
                self.written.taint_removed = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn send_event(&self, condition: &Condition, now: &str) -> Result<(), kube::Error> {
        let event = conditions::event(condition, &self.node, now);
        let event = serde_json::from_value(event).map_err(kube::Error::SerdeError)?;
        let parameters = PostParams::default();
        self.events.create(&parameters, &event).await.map(drop)
    }

    /// Pods may come. With the version that was read, so that a taint that somebody adds meanwhile is not lost.
    async fn remove_taint(&self, key: &str) -> Result<(), kube::Error> {
        let node = self.nodes.get(&self.node).await?;
        let taints: &[Taint] = node.spec.taints.as_deref().unwrap_or_default();
        let kept: Vec<_> = taints.iter().filter(|taint| taint.key != key).collect();
        if kept.len() == taints.len() {
            return Ok(());
        }
        let patch = json!({
            "metadata": { "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": kept },
        });
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
        self.nodes.patch(&self.node, &parameters, &patch).await?;
        tracing::info!(key, "removed the startup taint: pods may be scheduled here");
        Ok(())
    }

    fn note(&mut self, error: Option<kube::Error>) {
        let failed = error.is_some();
        let before = std::mem::replace(&mut self.failed, failed);
        match error {
            Some(error) if !before => {
                let error = told(&error);
                tracing::warn!(
                    error,
                    "the Node could not be written; the next change tries again"
                );
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Written {
        let mut written = Written::default();
        written.keep(conditions::network(&Announced::Yes), "then".to_owned());
        written.taint_removed = true;
        written
    }

    #[test]
    fn a_node_that_is_registered_anew_has_nothing_of_what_was_written() {
        let mut written = written();
        written.now_to(Some("first"));
        assert!(written.taint_removed, "the first uid is no news");
        written.now_to(None);
        written.now_to(Some("first"));
        assert!(written.last(conditions::NETWORK_UNAVAILABLE).is_some());
        written.now_to(Some("second"));
        assert!(!written.taint_removed);
        assert!(written.last(conditions::NETWORK_UNAVAILABLE).is_none());
        written.taint_removed = true;
        written.now_to(Some("second"));
        assert!(written.taint_removed);
    }
}
