//! The network configuration that makes the runtime use the plugin. The file makes the node Ready, so it is written
//! when the daemon can serve, and not before. It stays afterwards, because a restart must not make the node NotReady.
//! If it is deleted or truncated, it is written again. If a file of another network sorts before ours, this is reported
//! and the file is not changed, because it may be intended.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use planner::Family;
use serde_json::{Value, json};

use crate::{config::Network, pool::driver::Pool};

/// Sorts before the names that distributions use: a runtime takes the first file by name.
pub const NAME: &str = "10-hawser.conflist";
/// How often the pool is checked until it can serve.
const READY_PERIOD: Duration = Duration::from_millis(100);
/// How often the file is checked afterwards.
const CHECK_PERIOD: Duration = Duration::from_secs(5);
/// The extensions that a runtime loads.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// The directory and contents of the configuration.
#[derive(Clone, Debug)]
pub struct Conflist {
    pub directory: PathBuf,
    pub socket: PathBuf,
    pub network: Network,
    /// The address family of pods.
    pub family: Family,
}

impl Conflist {
    /// Waits until the pool can serve an ADD; from then on, keeps the contents of the file correct.
    pub async fn publish(self, pool: Pool) {
        loop {
            match pool.snapshot().await {
                Ok(pool) if pool.totals.free > 0 || pool.inventoried => break,
                Ok(_) => tokio::time::sleep(READY_PERIOD).await,
                Err(_) => return,
            }
        }
        let mut reported = None;
        loop {
            self.check_file(&mut reported);
            tokio::time::sleep(CHECK_PERIOD).await;
        }
    }

    /// `reported`: the last reported file of another network.
    fn check_file(&self, reported: &mut Option<OsString>) {
        let path = self.directory.join(NAME);
        match self.write(&path) {
            Ok(true) => tracing::info!(
                ?path,
                "wrote the network configuration: the runtime can start pods"
            ),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(?path, %error, "could not write the network configuration");
            }
        }
        let rival = self.rival().unwrap_or_default();
        if rival != *reported {
            match &rival {
                Some(name) => tracing::error!(
                    ?name,
                    "another network's configuration sorts before ours: the runtime uses it for new pods"
                ),
                None => {
                    tracing::info!("no other network's configuration sorts before ours any more")
                }
            }
            *reported = rival;
        }
    }

    /// The file that the runtime prefers to ours.
    fn rival(&self) -> io::Result<Option<OsString>> {
        let mut first = None;
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let loaded = Path::new(&name)
                .extension()
                .is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
            if loaded && name.as_os_str() < NAME && first.as_ref().is_none_or(|best| name < *best) {
                first = Some(name);
            }
        }
        Ok(first)
    }

    /// True if the file was written.
    fn write(&self, path: &Path) -> io::Result<bool> {
        let text = format!("{:#}\n", self.content());
        if fs::read_to_string(path).is_ok_and(|known| known == text) {
            // Each reload blocks every ADD of the node (containerd takes a write lock), so the file is not written
            // without need.
            return Ok(false);
        }
        // In the same directory: containerd does not see a file that is moved in from another one. With a name that it
        // does not load, because it reads a file immediately when it is written.
        let unfinished = path.with_extension("tmp");
        let mut file = File::create(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        Ok(true)
    }

    /// `cniVersion` is the version that containerd 1.7 can read; later versions choose from `cniVersions`.
    fn content(&self) -> Value {
        let mut plugin = json!({
            "type": "hawser",
            "socket": self.socket,
            "vethPrefix": self.network.veth_prefix,
            "mtu": self.network.pod_mtu,
        });
        if self.family == Family::V6 {
            plugin["ipv6"] = true.into();
        }
        json!({
            "cniVersion": "1.0.0",
            "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
            "name": "hawser",
            "plugins": [plugin],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory for this test, which is deleted with the value.
    struct Scratch(Conflist);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("hawser-conflist-{name}-{}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            fs::create_dir_all(&directory).unwrap();
            let network = Network {
                eni_mtu: 9001,
                pod_mtu: 1500,
                veth_prefix: "eni".into(),
                block_pod_imds: false,
            };
            Self(Conflist {
                directory,
                socket: "/run/hawser/ipamd.sock".into(),
                network,
                family: Family::V4,
            })
        }

        fn path(&self) -> PathBuf {
            self.0.directory.join(NAME)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0.directory).unwrap();
        }
    }

    #[test]
    fn the_file_is_written_once_and_whole() {
        let scratch = Scratch::new("whole");
        let (conflist, path) = (&scratch.0, scratch.path());
        assert!(conflist.write(&path).unwrap());
        assert!(!conflist.write(&path).unwrap(), "unchanged: not touched");
        let read: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(read["plugins"][0]["mtu"], 1500);
        fs::write(&path, "{").unwrap();
        assert!(conflist.write(&path).unwrap(), "a truncated file is mended");
        let names: Vec<_> = fs::read_dir(&conflist.directory)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, [NAME]);
    }

    #[test]
    fn the_network_configuration_contains_only_ipv6() {
        let mut scratch = Scratch::new("ipv6");
        let four = scratch.0.content();
        assert_eq!(four["plugins"][0].get("ipv6"), None);
        scratch.0.family = Family::V6;
        assert_eq!(scratch.0.content()["plugins"][0]["ipv6"], true);
    }

    #[test]
    fn fault_47_a_deleted_or_truncated_file_is_written_again() {
        let scratch = Scratch::new("again");
        let (path, mut reported) = (scratch.path(), None);
        scratch.0.check_file(&mut reported);
        let whole = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        scratch.0.check_file(&mut reported);
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        fs::write(&path, &whole[..20]).unwrap();
        scratch.0.check_file(&mut reported);
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
    }

    #[test]
    fn fault_47_a_file_that_sorts_first_is_reported_and_not_changed() {
        let scratch = Scratch::new("rival");
        let mut reported = None;
        for name in [
            "05-other.conflist",
            "06-another.conf",
            "00-notes.txt",
            "99-later.conflist",
        ] {
            fs::write(scratch.0.directory.join(name), "{}").unwrap();
        }
        scratch.0.check_file(&mut reported);
        assert_eq!(reported, Some("05-other.conflist".into()));
        let rival = scratch.0.directory.join("05-other.conflist");
        assert_eq!(fs::read_to_string(&rival).unwrap(), "{}");
        fs::remove_file(rival).unwrap();
        scratch.0.check_file(&mut reported);
        assert_eq!(reported, Some("06-another.conf".into()));
        fs::remove_file(scratch.0.directory.join("06-another.conf")).unwrap();
        scratch.0.check_file(&mut reported);
        assert_eq!(reported, None);
    }
}
