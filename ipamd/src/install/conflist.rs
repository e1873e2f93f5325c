//! The network configuration that tells the runtime of the plugin. Its appearance makes the node Ready, so it is written
//! once the daemon can serve, and not before; afterwards it stays, for a restart must not make the node NotReady. What
//! somebody deletes or cuts short is written again. Another network's file that sorts before ours is told of, and left
//! alone: whoever put it there means it.

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

/// Sorts before what distributions install: a runtime takes the first file by name.
pub const NAME: &str = "10-hawser.conflist";
/// How often the pool is asked whether it can serve yet.
const PERIOD: Duration = Duration::from_millis(100);
/// How often the file is looked at afterwards.
const LOOK: Duration = Duration::from_secs(5);
/// What a runtime loads.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// Where the configuration goes and what it says.
#[derive(Clone, Debug)]
pub struct Conflist {
    pub directory: PathBuf,
    pub socket: PathBuf,
    pub network: Network,
    /// The address family of pods.
    pub family: Family,
}

impl Conflist {
    /// Waits until the pool can serve an ADD; from then on sees to it that the file says what it should.
    pub async fn publish(self, pool: Pool) {
        loop {
            match pool.snapshot().await {
                Ok(pool) if pool.totals.free > 0 || pool.inventoried => break,
                Ok(_) => tokio::time::sleep(PERIOD).await,
                Err(_) => return,
            }
        }
        let mut told = None;
        loop {
            self.look(&mut told);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// `told`: the rival that was told of last.
    fn look(&self, told: &mut Option<OsString>) {
        let path = self.directory.join(NAME);
        match self.write(&path) {
            Ok(true) => tracing::info!(
                ?path,
                "wrote the network configuration: the runtime may send pods"
            ),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(?path, %error, "could not write the network configuration");
            }
        }
        let rival = self.rival().unwrap_or_default();
        if rival != *told {
            match &rival {
                Some(name) => tracing::error!(
                    ?name,
                    "another network's configuration sorts before ours: the runtime sends new pods there"
                ),
                None => {
                    tracing::info!("no other network's configuration sorts before ours any more")
                }
            }
            *told = rival;
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

    /// True if the file had to be written.
    fn write(&self, path: &Path) -> io::Result<bool> {
        let text = format!("{:#}\n", self.content());
        if fs::read_to_string(path).is_ok_and(|known| known == text) {
            // Each reload holds up every ADD of the node (containerd takes a write lock): none without need.
            return Ok(false);
        }
        // In the same directory: containerd does not see a file that is moved in from another one. And under a name
        // that it does not load, for it reads a file the moment it is written.
        let unfinished = path.with_extension("tmp");
        let mut file = File::create(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        Ok(true)
    }

    /// `cniVersion` is what containerd 1.7 can read, `cniVersions` what later ones choose from.
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

    /// A directory of this test's own, gone with the value.
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
    fn the_plugin_is_told_of_ipv6_and_of_nothing_else() {
        let mut scratch = Scratch::new("ipv6");
        let four = scratch.0.content();
        assert_eq!(four["plugins"][0].get("ipv6"), None);
        scratch.0.family = Family::V6;
        assert_eq!(scratch.0.content()["plugins"][0]["ipv6"], true);
    }

    #[test]
    fn fault_47_what_is_deleted_or_cut_short_is_written_again() {
        let scratch = Scratch::new("again");
        let (path, mut told) = (scratch.path(), None);
        scratch.0.look(&mut told);
        let whole = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        scratch.0.look(&mut told);
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        fs::write(&path, &whole[..20]).unwrap();
        scratch.0.look(&mut told);
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
    }

    #[test]
    fn fault_47_a_file_that_sorts_before_ours_is_told_of_and_left_alone() {
        let scratch = Scratch::new("rival");
        let mut told = None;
        for name in [
            "05-other.conflist",
            "06-another.conf",
            "00-notes.txt",
            "99-later.conflist",
        ] {
            fs::write(scratch.0.directory.join(name), "{}").unwrap();
        }
        scratch.0.look(&mut told);
        assert_eq!(told, Some("05-other.conflist".into()));
        let rival = scratch.0.directory.join("05-other.conflist");
        assert_eq!(fs::read_to_string(&rival).unwrap(), "{}");
        fs::remove_file(rival).unwrap();
        scratch.0.look(&mut told);
        assert_eq!(told, Some("06-another.conf".into()));
        fs::remove_file(scratch.0.directory.join("06-another.conf")).unwrap();
        scratch.0.look(&mut told);
        assert_eq!(told, None);
    }
}
