//! The network configuration that tells the runtime of the plugin. Its appearance makes the node Ready, so it is written
//! once the daemon can serve, and not before; afterwards it stays, for a restart must not make the node NotReady.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{config::Network, pool::Pool};

/// Sorts before what distributions install: a runtime takes the first file by name.
pub const NAME: &str = "10-hawser.conflist";
/// How often the pool is asked whether it can serve yet.
const PERIOD: Duration = Duration::from_millis(100);

/// Where the configuration goes and what it says.
#[derive(Clone, Debug)]
pub struct Conflist {
    pub directory: PathBuf,
    pub socket: PathBuf,
    pub network: Network,
}

impl Conflist {
    /// Waits until the pool can serve an ADD, then writes the file if it does not say so already.
    pub async fn publish(self, pool: Pool) {
        loop {
            match pool.snapshot().await {
                Ok(pool) if pool.totals.free > 0 || pool.inventoried => break,
                Ok(_) => tokio::time::sleep(PERIOD).await,
                Err(_) => return,
            }
        }
        let path = self.directory.join(NAME);
        match self.write(&path) {
            Ok(true) => tracing::info!(
                ?path,
                "wrote the network configuration: the runtime may send pods"
            ),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(?path, %error, "could not write the network configuration")
            }
        }
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
        json!({
            "cniVersion": "1.0.0",
            "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
            "name": "hawser",
            "plugins": [{
                "type": "hawser",
                "socket": self.socket,
                "vethPrefix": self.network.veth_prefix,
                "mtu": self.network.pod_mtu,
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_written_once_and_whole() {
        let directory =
            std::env::temp_dir().join(format!("hawser-conflist-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let network = Network {
            eni_mtu: 9001,
            pod_mtu: 1500,
            veth_prefix: "eni".into(),
            block_pod_imds: false,
        };
        let conflist = Conflist {
            directory: directory.clone(),
            socket: "/run/hawser/ipamd.sock".into(),
            network,
        };
        let path = directory.join(NAME);
        assert!(conflist.write(&path).unwrap());
        assert!(!conflist.write(&path).unwrap(), "unchanged: not touched");
        let read: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(read["plugins"][0]["mtu"], 1500);
        fs::write(&path, "{").unwrap();
        assert!(conflist.write(&path).unwrap(), "a truncated file is mended");
        let names: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, [NAME]);
        fs::remove_dir_all(directory).unwrap();
    }
}
