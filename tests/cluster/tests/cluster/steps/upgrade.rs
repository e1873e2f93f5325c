//! A rolling upgrade of the DaemonSet, from the previous version of the chart, while pods come and go.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use cluster::{
    cluster::{CHART, Cluster},
    images, worker,
};
use lab::node::binaries;

use crate::{
    Outcome, hawser,
    setup::{PATIENCE, TIMEOUT},
    streams,
};

const CHURN: &str = "churn";
/// Pods that are there at any time.
const REPLICAS: usize = 10;
/// With these settings, a drained node gives ENIs back, as a later step shows. By default, a cordoned node keeps all.
const FREES_ENIS: [&str; 2] = [
    "env.WARM_ENI_TARGET=1",
    "env.AWS_MANAGE_ENIS_NON_SCHEDULABLE=true",
];
/// No sandbox fails, no node is NotReady, no packet of running pods is lost, and every pod runs in the end.
pub fn loses_no_pod(cluster: &mut Cluster) -> Outcome {
    install_earlier(cluster)?;
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
    // kubectl would delete hundreds of events one by one, which takes more than a minute.
    for namespace in ["default", "kube-system"] {
        let events = format!("/api/v1/namespaces/{namespace}/events");
        cluster.kubectl(&["delete", "--raw", &events])?;
    }
    let streams = streams::start(cluster)?;
    let finished = AtomicBool::new(false);
    #[expect(clippy::disallowed_methods, reason = "the test tells real times")]
    let begun = Instant::now();
    let (rolled, replacements) = thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut replacements = 0;
            while !finished.load(Ordering::Relaxed) {
                cluster.kubectl(&["rollout", "restart", "deployment/churn"])?;
                cluster.kubectl(&rollout)?;
                replacements += 1;
            }
            Ok::<_, std::io::Error>(replacements)
        });
        let rolled = cluster
            .install_from(CHART.as_ref(), &FREES_ENIS)
            .map_err(Into::into)
            .and_then(|_| hawser::rolled_out(cluster));
        finished.store(true, Ordering::Relaxed);
        (rolled, churn.join())
    });
    let delivered = streams.finish(cluster, 0);
    rolled?;
    delivered?;
    assert!(has_plugin(cluster)?, "the plugin was not replaced");
    let replacements = replacements.map_err(|_| "the churn panicked")??;
    let replaced = replacements * REPLICAS;
    stdout::errln!(
        "          {replaced} pods were replaced meanwhile, {:.1} per second",
        replaced as f64 / begun.elapsed().as_secs_f64()
    );
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

/// The previous version of the chart, with an image whose plugin is another one.
fn install_earlier(cluster: &Cluster) -> Outcome {
    let directory = cluster.lab.dir().join("images");
    let archive = images::earlier(&directory, &binaries::ipamd(), &binaries::plugin())?;
    for node in &cluster.nodes {
        worker::import(node, &archive)?;
    }
    let tag = format!("image.tag={}", images::EARLIER);
    cluster.install_from(&previous_chart()?, &[&tag])?;
    hawser::rolled_out(cluster)?;
    assert!(!has_plugin(cluster)?, "it is not another plugin");
    Ok(())
}

/// Whether the plugin on every node is the one of this checkout.
fn has_plugin(cluster: &Cluster) -> io::Result<bool> {
    let wanted = fs::read(binaries::plugin())?;
    let installed = cluster
        .nodes
        .iter()
        .map(|node| fs::read(node.path("opt/cni/bin/hawser")));
    let installed: Vec<_> = installed.collect::<io::Result<_>>()?;
    Ok(installed.iter().all(|plugin| *plugin == wanted))
}

/// `make` unpacks it.
fn previous_chart() -> Result<PathBuf, String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests are configured by make, through the environment"
    )]
    let path = env::var("HAWSER_PREVIOUS_CHART").unwrap_or_default();
    if Path::new(&path).join("Chart.yaml").is_file() {
        return Ok(path.into());
    }
    Err(format!(
        "HAWSER_PREVIOUS_CHART names no chart ({path}): run `make cluster-test`"
    ))
}
