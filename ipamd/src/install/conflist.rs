//! The network configuration that makes the runtime use the plugin. The file makes the node Ready, so it is written
//! when the daemon can serve, and not before. It stays afterwards, because a restart must not make the node NotReady.
//!
//! Owns the file; [`super::chain`] decides its contents. A damaged file is repaired and reported. If another program
//! repeats the same damage, it is repaired at most once a minute. If a file of another network sorts before ours, this is
//! reported and the file is not changed, because it may be intended.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use planner::{Family, Mono};
use serde_json::{Map, Value, json};

use super::chain::{self, Damage, Wanted};
use crate::{
    config::{Network, PodSettings},
    host::predecessor::Seen,
    pool::driver::Pool,
    runtime::clock,
    telemetry::metrics::Metrics,
};

/// The AWS VPC CNI's own name: tools that look for its file find ours. Sorts before the names that distributions use.
pub const NAME: &str = "10-aws.conflist";
/// The file of earlier releases.
pub const FORMER_NAME: &str = "10-hawser.conflist";
/// The extension under which the AWS VPC CNI's file is kept: not one that a runtime loads.
pub const OF_AWS_NODE: &str = "conflist.aws-node";
/// How often the pool is checked until it can serve.
const READY_PERIOD: Duration = Duration::from_millis(100);
/// How often the file is checked afterwards.
const LOOK: Duration = Duration::from_secs(5);
/// Between two repairs of the same damage.
const PATIENCE: Duration = Duration::from_secs(60);
/// The extensions that a runtime loads.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// The directory and contents of the configuration.
#[derive(Clone, Debug)]
pub struct Conflist {
    pub directory: PathBuf,
    /// Where the runtime's plugins are, as this process sees it. Standard plugins are called only if they are there.
    pub plugins: PathBuf,
    pub pods: PodSettings,
    pub socket: PathBuf,
    pub network: Network,
    /// The address family of pods.
    pub family: Family,
    pub metrics: Arc<Metrics>,
}

impl Conflist {
    /// Waits until the pool can serve an ADD; from then on, keeps Hawser's part of the file correct.
    pub async fn publish(self, pool: Pool) {
        loop {
            match pool.snapshot().await {
                Ok(pool) if pool.totals.free > 0 || pool.inventoried => break,
                Ok(_) => tokio::time::sleep(READY_PERIOD).await,
                Err(_) => return,
            }
        }
        let mut keeper = self.keeper();
        loop {
            keeper.look(clock::now());
            tokio::time::sleep(LOOK).await;
        }
    }

    fn keeper(self) -> Keeper {
        if self.pods.disable_ipv6 && self.has("tuning") != Some(true) {
            tracing::warn!(
                plugin = "tuning",
                "a standard plugin is not in HOST_CNI_BIN_PATH: pods do without what it does"
            );
        }
        Keeper {
            wanted: self.wanted(),
            aws_node_runs: || Seen::here().aws_node.is_some(),
            directory: self.directory,
            metrics: self.metrics,
            written: false,
            repaired: None,
            told: None,
            rival: None,
        }
    }

    /// Whether the runtime has this standard plugin; `None` if its directory cannot be seen.
    fn has(&self, kind: &str) -> Option<bool> {
        let seen = self.plugins.is_dir();
        seen.then(|| self.plugins.join(kind).is_file())
    }

    fn wanted(&self) -> Wanted {
        let mut plugin = Map::new();
        plugin.insert("type".to_owned(), chain::PLUGIN.into());
        plugin.insert("socket".to_owned(), json!(self.socket));
        plugin.insert("vethPrefix".to_owned(), json!(self.network.veth_prefix));
        plugin.insert("mtu".to_owned(), self.network.pod_mtu.into());
        if self.family == Family::V6 {
            plugin.insert("ipv6".to_owned(), true.into());
        }
        let PodSettings {
            limit_bandwidth,
            disable_ipv6,
        } = self.pods;
        let capabilities = [
            (chain::PORT_MAPPINGS, true),
            (chain::BANDWIDTH, limit_bandwidth),
        ];
        let standard = [
            (chain::portmap(), true, false),
            (chain::bandwidth(), limit_bandwidth, false),
            (chain::tuning(), disable_ipv6, disable_ipv6),
        ];
        let (mut companions, mut unwanted) = (Vec::new(), Vec::new());
        for (entry, may_stay, added) in standard {
            let there = entry["type"].as_str().and_then(|kind| self.has(kind));
            if added && there == Some(true) {
                companions.push(entry);
            } else if !may_stay || there == Some(false) {
                unwanted.push(entry);
            }
        }
        let asked_for = capabilities.into_iter().filter(|(_, wanted)| *wanted);
        Wanted {
            plugin,
            capabilities: asked_for.map(|(capability, _)| capability).collect(),
            companions,
            unwanted,
        }
    }
}

/// Keeps the file, and knows what it has done to it.
#[derive(Debug)]
struct Keeper {
    directory: PathBuf,
    wanted: Wanted,
    /// Whether the AWS VPC CNI runs. Its directory need not be mounted.
    aws_node_runs: fn() -> bool,
    metrics: Arc<Metrics>,
    /// Whether this process has written the file.
    written: bool,
    /// What was found damaged last, and when it was repaired.
    repaired: Option<(Option<String>, Mono)>,
    /// What was reported last and has not changed since.
    told: Option<&'static str>,
    /// The last reported file of another network.
    rival: Option<OsString>,
}

impl Keeper {
    fn look(&mut self, now: Mono) {
        if let Err(error) = self.keep(now) {
            let path = self.directory.join(NAME);
            tracing::error!(path = %path.display(), %error, "could not write the network configuration");
        }
        self.look_for_rivals();
    }

    fn keep(&mut self, now: Mono) -> io::Result<()> {
        let path = self.directory.join(NAME);
        let former = self.directory.join(FORMER_NAME);
        let (found, at) = match read(&path)? {
            Some(text) => (Some(text), &path),
            None => (read(&former)?, &former),
        };
        let outcome = chain::merge(found.as_deref(), &self.wanted);
        let Some(text) = &outcome.text else {
            self.told = None;
            self.written = true;
            return self.remove_former(&path, &former);
        };
        if let Some(damage) = outcome.damage {
            let again = self
                .repaired
                .as_ref()
                .is_some_and(|(before, at)| *before == found && now.since(*at) < PATIENCE);
            if damage == Damage::OfAwsNode && (self.aws_node_runs)() {
                self.report(
                    "the network configuration is the AWS VPC CNI's, which runs: it is left alone",
                );
                return Ok(());
            }
            if again {
                self.report("another program undoes the repair of the network configuration: it is left alone for a minute");
                return Ok(());
            }
            self.told = None;
            // The first file of all is no repair.
            if self.written || found.is_some() {
                self.repaired = Some((found.clone(), now));
            }
        }
        if outcome.damage == Some(Damage::OfAwsNode) {
            // Not under a name that a runtime loads.
            fs::copy(at, path.with_extension(OF_AWS_NODE))?;
        }
        write(at, text)?;
        if *at != path && at.exists() {
            // A rename at once: at each moment there is one of the two files, and never none or both.
            fs::rename(at, &path)?;
        }
        self.tell_written(&path, outcome.damage, self.written || found.is_some());
        self.written = true;
        Ok(())
    }

    fn tell_written(&self, path: &Path, damage: Option<Damage>, again: bool) {
        if let Some(damage) = damage.filter(|_| again) {
            self.metrics.repaired("conflist", 1);
            tracing::warn!(
                path = %path.display(),
                damage = damage.name(),
                "repaired the network configuration"
            );
        }
        tracing::info!(
            path = %path.display(),
            "wrote the network configuration: the runtime may send pods"
        );
    }

    /// Reports once, until it changes.
    fn report(&mut self, what: &'static str) {
        if self.told != Some(what) {
            tracing::error!(path = %self.directory.join(NAME).display(), "{what}");
            self.told = Some(what);
        }
    }

    /// A rollback to an earlier release and back leaves both files.
    fn remove_former(&self, path: &Path, former: &Path) -> io::Result<()> {
        let Some(text) = read(former)?.filter(|_| path.exists()) else {
            return Ok(());
        };
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        let plugins = list["plugins"].as_array().cloned().unwrap_or_default();
        if plugins.iter().all(|plugin| plugin["type"] == chain::PLUGIN) {
            fs::remove_file(former)?;
            tracing::info!(path = %former.display(), "removed the configuration of an earlier release");
        }
        Ok(())
    }

    fn look_for_rivals(&mut self) {
        let rival = rival(&self.directory).unwrap_or_default();
        if rival != self.rival {
            match &rival {
                Some(name) => tracing::error!(
                    name = %name.display(),
                    "another network's configuration sorts before ours: the runtime uses it for new pods"
                ),
                None => {
                    tracing::info!("no other network's configuration sorts before ours any more")
                }
            }
            self.rival = rival;
        }
    }
}

/// The file that the runtime prefers to ours. Meta-plugins have such a file too, and it leads to our network: it names our
/// file or our plugin.
///
/// # Errors
/// If the directory cannot be read.
pub fn rival(directory: &Path) -> io::Result<Option<OsString>> {
    let mut first = None;
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let loaded = Path::new(&name)
            .extension()
            .is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
        if loaded && name.as_os_str() < NAME && first.as_ref().is_none_or(|best| name < *best) {
            first = Some(name);
        }
    }
    Ok(first.filter(|name| !leads_here(&directory.join(name))))
}

fn leads_here(path: &Path) -> bool {
    let plugin = format!("\"{}\"", chain::PLUGIN);
    let text = fs::read_to_string(path).unwrap_or_default();
    text.contains(NAME) || text.contains(&plugin)
}

/// `None` if there is no such file. Bytes that are no UTF-8 make a text that is no JSON either.
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Each reload blocks every ADD of the node (containerd takes a write lock), so the file is not written without need.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    // In the same directory: containerd does not see a file that is moved in from another one. With a name that it does
    // not load, because it reads a file immediately when it is written.
    let unfinished = path.with_extension("tmp");
    let mut file = File::create(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests;
