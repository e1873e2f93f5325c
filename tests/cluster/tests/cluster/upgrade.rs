//! A rolling upgrade of the DaemonSet while pods come and go.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use cluster::{cluster::Cluster, images};

use crate::{
    Outcome, daemon,
    setup::{PATIENCE, TIMEOUT},
};

const CHURN: &str = "churn";
/// Pods that are there at any time.
const REPLICAS: usize = 10;
/// Between two replacements of all of them.
const PAUSE: Duration = Duration::from_millis(500);

/// No sandbox fails, no node is NotReady, and every pod runs in the end.
pub fn loses_no_pod(cluster: &mut Cluster) -> Outcome {
    let image = images::PAUSE;
    cluster.apply(&format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {CHURN} }}
spec:
  replicas: {REPLICAS}
  strategy: {{ rollingUpdate: {{ maxUnavailable: 50%, maxSurge: 50% }} }}
  selector: {{ matchLabels: {{ app: {CHURN} }} }}
  template:
    metadata: {{ labels: {{ app: {CHURN} }} }}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{ name: pause, image: {image} }}]
"
    ))?;
    let rollout = ["rollout", "status", "deployment/churn", TIMEOUT];
    cluster.kubectl(&rollout)?;
    cluster.kubectl(&["delete", "events", "--all", "--all-namespaces"])?;
    let finished = AtomicBool::new(false);
    let (rolled, replacements) = thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut replacements = 0;
            while !finished.load(Ordering::Relaxed) {
                cluster.kubectl(&["rollout", "restart", "deployment/churn"])?;
                cluster.kubectl(&rollout)?;
                replacements += 1;
                thread::sleep(PAUSE);
            }
            Ok::<_, std::io::Error>(replacements)
        });
        let rolled = cluster
            .install(&["podAnnotations.upgrade=again"])
            .map_err(Into::into)
            .and_then(|_| daemon::rolled_out(cluster));
        finished.store(true, Ordering::Relaxed);
        (rolled, churn.join())
    });
    rolled?;
    let replacements = replacements.map_err(|_| "the churn panicked")??;
    stdout::errln!("          {replacements} times {REPLICAS} pods were replaced meanwhile");
    cluster.await_kubectl(PATIENCE, &["get", "deployment", CHURN], |text| {
        text.contains(&format!("{REPLICAS}/{REPLICAS}"))
    })?;
    for reason in ["FailedCreatePodSandBox", "NodeNotReady"] {
        let selector = format!("reason={reason}");
        let events = [
            "get",
            "events",
            "-A",
            "--field-selector",
            &selector,
            "-o",
            "wide",
        ];
        let told = cluster.kubectl(&events)?;
        assert_eq!(told, "", "{reason}");
    }
    cluster.kubectl(&["delete", "deployment", CHURN, "--wait"])?;
    Ok(())
}
