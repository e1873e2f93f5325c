//! The pause image: busybox with sleep, as an archive that containerd imports. Nothing is downloaded.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use super::{RuntimeError, failed, run};

/// The image's name. It cannot be resolved, so that a failed lookup cannot become a download.
pub(super) const NAME: &str = "pause.invalid/hawser/pause:1";

/// The path of Debian's busybox-static, with and without a merged /usr.
const BUSYBOX: [&str; 2] = ["/usr/bin/busybox", "/bin/busybox"];

/// Creates the image in `dir` and returns the archive's path.
pub(super) fn build(dir: &Path) -> Result<PathBuf, RuntimeError> {
    let busybox = BUSYBOX.iter().find(|path| Path::new(path).is_file());
    let busybox = busybox.ok_or_else(|| RuntimeError::Machine {
        hint: "busybox is missing: run `make tools` (package busybox-static)".to_owned(),
    })?;
    let rootfs = dir.join("rootfs");
    fs::create_dir_all(rootfs.join("bin"))
        .and_then(|()| fs::copy(busybox, rootfs.join("bin/busybox")))
        .map_err(failed(format!("copy {busybox} to {}", rootfs.display())))?;
    tar(&rootfs, &dir.join("layer.tar"), &["bin"])?;
    let digest = run(Command::new("sha256sum").arg(dir.join("layer.tar")))?;
    let digest = digest.split_whitespace().next().unwrap_or_default();
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": { "Entrypoint": ["/bin/busybox", "sleep", "86400"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    // The layout of `docker save`: unlike an OCI layout, it needs no digest except the layer's.
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"] }]);
    for (name, content) in [("config.json", config), ("manifest.json", manifest)] {
        fs::write(dir.join(name), content.to_string()).map_err(failed(format!("write {name}")))?;
    }
    let archive = dir.join("image.tar");
    tar(
        dir,
        &archive,
        &["manifest.json", "config.json", "layer.tar"],
    )?;
    Ok(archive)
}

fn tar(from: &Path, archive: &Path, names: &[&str]) -> Result<(), RuntimeError> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--owner=0", "--group=0", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(from);
    run(tar.args(names)).map(drop)
}

/// This machine's architecture, by its name in images.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
