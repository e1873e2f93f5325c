//! `make conformance [ONLY=TEXT]`: runs the network conformance specs and records their results, or with a text the specs
//! whose names contain it, without a record.

#![forbid(unsafe_code)]

use std::{
    env, fs, io,
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

use cluster::{
    cluster::Cluster,
    command::run,
    conformance::{
        critest,
        kubernetes::{Suite, fresh},
        page,
        record::{Record, Spec},
    },
    images,
    worker::{PROXY_MODES, Settings},
};
use lab::{node::binaries, sandbox};
use stdout::{errln, outln};

const CRATE: &str = env!("CARGO_MANIFEST_DIR");
/// In the current directory, which is the checkout.
const LOGS: &str = "target/conformance";
const NODES: usize = 2;
/// 58 pod addresses, for several specs at once.
const KIND: &str = "m5.xlarge";
const READY_LIMIT: Duration = Duration::from_secs(240);

fn main() -> ExitCode {
    let only = env::args().nth(1).unwrap_or_default();
    let entered = sandbox::enter().map_err(io::Error::other);
    stdout::ended("conformance", entered.and_then(|()| conform(&only)))
}

fn conform(only: &str) -> io::Result<ExitCode> {
    fresh(LOGS.as_ref())?;
    let logs = fs::canonicalize(LOGS)?;
    let (mut cluster, busybox) = start()?;
    let mut record = Record {
        facts: facts(&cluster)?,
        specs: Vec::new(),
    };
    let mut names = suite(&cluster, &logs).names()?;
    let found = names.len();
    names.retain(|name| name.contains(only));
    for mode in PROXY_MODES {
        cluster.set_proxy_mode(mode)?;
        let specs = suite(&cluster, &logs).run(mode, &names, &tell)?;
        record.specs.extend(specs);
    }
    // Nothing of the cluster is used after this: critest needs the node's container runtime for itself.
    cluster.nodes[0].stop("kubelet", "KILL")?;
    let specs = critest::run(&cluster.nodes[0], &logs, &busybox)?;
    specs.iter().for_each(tell);
    record.specs.extend(specs);
    drop(cluster);
    if only.is_empty() {
        if found != page::SPECS {
            let text = format!("there are {found} specs instead of {}", page::SPECS);
            return Err(io::Error::other(text));
        }
        save(&record)?;
    }
    Ok(judge(&record, &logs))
}

fn suite<'a>(cluster: &'a Cluster, logs: &Path) -> Suite<'a> {
    Suite {
        cluster,
        logs: logs.to_owned(),
    }
}

fn start() -> io::Result<(Cluster, String)> {
    let mut cluster = Cluster::start()?;
    let directory = cluster.lab.dir().join("images");
    let hawser = images::hawser(&directory, &binaries::ipamd(), &binaries::plugin())?;
    cluster.preload(hawser);
    let mut names = Suite::images()?;
    names.retain(|name| {
        ["/agnhost:", "/busybox:", "/jessie-dnsutils:"]
            .iter()
            .any(|part| name.contains(part))
    });
    let busybox = names.iter().find(|name| name.contains("/busybox:"));
    let busybox = busybox.ok_or_else(|| io::Error::other("the specs use no busybox"))?;
    cluster.preload(images::test_tools(&directory, &names)?);
    for _ in 0..NODES {
        cluster.add_node(KIND, &Settings::default())?;
    }
    cluster.install(&[])?;
    let ready = |text: &str| text.matches(" Ready ").count() == NODES;
    cluster.await_kubectl(READY_LIMIT, &["get", "nodes"], ready)?;
    Ok((cluster, busybox.clone()))
}

fn facts(cluster: &Cluster) -> io::Result<Vec<(String, String)>> {
    let version = cluster.kubectl(&["version", "-o", "json"])?;
    let version: serde_json::Value = serde_json::from_str(&version)?;
    let version = version["serverVersion"]["gitVersion"].as_str();
    let containerd = run(cluster
        .control_plane
        .command("containerd")?
        .arg("--version"))?;
    let containerd = containerd.split_whitespace().nth(2).unwrap_or_default();
    let date = run(Command::new("date").args(["-u", "+%F"]))?;
    let facts = [
        ("Kubernetes", version.unwrap_or_default()),
        ("containerd", containerd),
        ("date", date.trim()),
    ];
    Ok(facts
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec())
}

fn tell(spec: &Spec) {
    let Spec {
        suite,
        name,
        outcome,
        seconds,
    } = spec;
    errln!("{suite:9} {seconds:4} s  {outcome:12}  {name}");
}

fn save(record: &Record) -> io::Result<()> {
    let here = Path::new(CRATE);
    fs::write(here.join("conformance.txt"), record.to_string())?;
    let page = here.join("../../docs/kubernetes-conformance.md");
    fs::write(page, page::render(record))
}

/// Fails if a spec failed.
fn judge(record: &Record, logs: &Path) -> ExitCode {
    let failed = page::failed(record).count();
    for Spec { suite, name, .. } in page::failed(record) {
        errln!("failed: {name} in {suite}");
    }
    let ran = record.specs.len();
    // A closed standard output is no failure of the specs.
    outln!("{ran} specs, {failed} failed; logs in {}", logs.display()).unwrap_or_default();
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
