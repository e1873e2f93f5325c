//! Findings on the host's disk.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use vpc_sim::SimConfig;

use super::doctor_node::DoctorNode;
use crate::suite::{Outcome, trials};

trials!(
    missing_kernel_features_are_found,
    kubelet_that_takes_too_many_pods_is_found,
    network_managers_are_found,
    the_plugin_must_be_there_and_executable,
    the_runtimes_configuration_is_checked
);

fn put(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, text)
}

fn the_runtimes_configuration_is_checked() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    let (path, good) = (
        examined.conflist(),
        fs::read_to_string(examined.conflist())?,
    );
    let rival = examined.root.join("net.d/05-other.conflist");
    fs::write(&rival, "{}")?;
    examined.finds("conflist", "another network configuration comes first")?;
    fs::remove_file(&rival)?;
    for broken in [
        "{",
        "{\"plugins\": [{\"type\": \"bridge\"}]}",
        "{\"plugins\": [{\"type\": \"hawser\", \"socket\": \"/elsewhere\"}]}",
    ] {
        fs::write(&path, broken)?;
        examined.finds("conflist", "cannot be used")?;
    }
    fs::remove_file(&path)?;
    examined.finds("conflist", "there is no 10-aws.conflist")?;
    fs::write(&path, good)?;
    examined.healthy()?;
    fs::remove_dir_all(examined.root.join("net.d"))?;
    examined.finds("conflist", "directory cannot be read")
}

fn the_plugin_must_be_there_and_executable() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    let plugin = examined.root.join("bin/hawser");
    let mode = |mode| fs::set_permissions(&plugin, fs::Permissions::from_mode(mode));
    mode(0o644)?;
    examined.finds("plugin", "cannot be executed")?;
    mode(0o777)?;
    examined.finds("plugin", "users other than its owner")?;
    fs::remove_file(&plugin)?;
    examined.finds("plugin", "is missing")
}

fn kubelet_that_takes_too_many_pods_is_found() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    let config = examined.root.join("var/lib/kubelet/config.yaml");
    put(&config, "kind: KubeletConfiguration\nmaxPods: 29\n")?;
    examined.healthy()?;
    put(&config, "kind: KubeletConfiguration\nmaxPods: 110\n")?;
    examined.finds("max-pods", "more pods than there are addresses")
}

fn network_managers_are_found() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    let links = examined.root.join("run/systemd/netif/links");
    put(&links.join("2"), "ADMIN_STATE=configured\n")?;
    put(&links.join("3"), "ADMIN_STATE=unmanaged\n")?;
    examined.healthy()?;
    put(&links.join("3"), "ADMIN_STATE=configured\n")?;
    examined.finds("interference", "systemd-networkd configures more than one")?;
    fs::remove_dir_all(&links)?;
    let policy = examined
        .root
        .join("usr/lib/systemd/network/99-default.link");
    put(
        &policy,
        "[Match]\nOriginalName=*\n[Link]\nMACAddressPolicy=persistent\n",
    )?;
    examined.finds("interference", "udev gives pods' links")?;
    let ours = examined.root.join("etc/systemd/network/10-pods.link");
    put(
        &ours,
        "[Match]\nOriginalName=eni*\n[Link]\nMACAddressPolicy=none\n",
    )?;
    examined.healthy()?;
    put(
        &examined.root.join("run/NetworkManager/NetworkManager.pid"),
        "1\n",
    )?;
    examined.finds("interference", "NetworkManager runs")
}

fn missing_kernel_features_are_found() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    examined.healthy()?;
    let (path, whole) = examined.kernel_config()?;
    fs::write(&path, whole.replace("CONFIG_NFT_NAT=m\n", ""))?;
    examined.finds("kernel", "the kernel lacks 1 features")
}
