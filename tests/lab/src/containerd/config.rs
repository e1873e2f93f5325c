//! containerd's configuration file.

use std::path::Path;

use super::{CniDirs, image, socket};

/// Copies layers instead of mounting them: this works where overlayfs does not (a build container), and the image has 2
/// MB.
pub(super) const SNAPSHOTTER: &str = "native";

/// Version 2 of the format, for containerd 1.x. Everything that containerd can place elsewhere is in `dir`.
///
/// `opt` would create a directory in /opt. AppArmor is off because the CRI would load its profile into the machine's
/// kernel.
pub(super) fn toml(dir: &Path, cni: &CniDirs) -> String {
    // `{:?}` quotes and escapes like a basic string in TOML.
    format!(
        r#"version = 2
root = {root:?}
state = {state:?}
required_plugins = ["io.containerd.grpc.v1.cri"]
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart", "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.overlayfs",
]
[grpc]
address = {socket:?}
[ttrpc]
address = {ttrpc:?}
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = {sandbox_image:?}
restrict_oom_score_adj = true
disable_apparmor = true
cni = {{ bin_dir = {bin:?}, conf_dir = {conf:?} }}
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = {SNAPSHOTTER:?}
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
options = {{ Root = {runc:?} }}
"#,
        root = dir.join("root"),
        state = dir.join("state"),
        runc = dir.join("runc"),
        socket = socket(dir),
        ttrpc = dir.join("ttrpc.sock"),
        sandbox_image = image::NAME,
        bin = cni.bin,
        conf = cni.conf,
    )
}
