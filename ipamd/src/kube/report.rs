//! Writes to the daemon's own Node what operators and schedulers need to know: conditions, events, and the end of the
//! startup taint. Each is a setting of its own, and off by default, since each needs a right.
//!
//! Never on the path of an ADD: this task follows the pool's changes and writes at most once in [`PERIOD`]. While the API
//! server is away nothing is lost: the next write has the state of then.

use std::{path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1::{Event, Node, Taint};
use kube::{
    Api,
    api::{ApiResource, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{
    conditions::{self, Condition},
    connection::{open, told},
    node::OwnNode,
};
use crate::{config::Kubernetes, pool::driver::Pool, runtime::clock};

/// The least time between two writes.
const PERIOD: Duration = Duration::from_secs(5);
/// Between two looks at what does not change with the pool: the runtime's directory, a Node that was registered anew.
const LOOK: Duration = Duration::from_secs(30);

/// Reports until the pool ends. Returns at once if nothing is to be reported. `conflist`: the file whose presence tells
/// the runtime of this network.
pub async fn report(settings: Kubernetes, conflist: Option<PathBuf>, pool: Pool) {
    let reports = settings.conditions || settings.events || settings.startup_taint.is_some();
    let (true, Some(conflist)) = (reports, conflist) else {
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
        written: Vec::new(),
        taint_removed: false,
        failed: false,
    };
    let mut changes = pool.changes();
    while let Ok(snapshot) = pool.snapshot().await {
        let announced = conflist.exists();
        let mut wanted = vec![
            conditions::network(announced),
            conditions::pressure(&snapshot, clock::wall()),
        ];
        let subnet = conditions::subnet(&snapshot);
        if subnet.is_true || reporter.has_written(subnet.kind) {
            wanted.push(subnet);
        }
        let reported = reporter
            .write(wanted, announced && snapshot.inventoried)
            .await;
        reporter.note(reported.err());
        sleep(PERIOD).await;
        if matches!(timeout(LOOK, changes.changed()).await, Ok(Err(_))) {
            return;
        }
    }
}

struct Reporter {
    nodes: Api<OwnNode>,
    events: Api<Event>,
    node: String,
    settings: Kubernetes,
    /// What was written last, with the time of its last transition.
    written: Vec<(Condition, String)>,
    taint_removed: bool,
    /// The last write failed; logged once.
    failed: bool,
}

impl Reporter {
    fn has_written(&self, kind: &str) -> bool {
        self.written.iter().any(|(last, _)| last.kind == kind)
    }

    async fn write(&mut self, wanted: Vec<Condition>, serving: bool) -> Result<(), kube::Error> {
        let now = clock::wall_rfc3339();
        for condition in wanted {
            let kind = condition.kind;
            let last = self.written.iter().find(|(last, _)| last.kind == kind);
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
            self.written.retain(|(last, _)| last.kind != kind);
            self.written.push((condition, changed));
        }
        match self.settings.startup_taint.clone() {
            Some(key) if serving && !self.taint_removed => {
                self.remove_taint(&key).await?;
                self.taint_removed = true;
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
