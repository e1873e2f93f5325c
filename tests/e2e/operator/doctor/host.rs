//! Findings on the host's disk.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use vpc_sim::SimConfig;

use super::ward::Ward;
use crate::suite::{Outcome, trials};

trials!(
    a_kernel_without_what_pods_need_is_found,
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
    let ward = Ward::start("m5.large", SimConfig::default())?;
    let (path, good) = (ward.conflist(), fs::read_to_string(ward.conflist())?);
    let rival = ward.root.join("net.d/05-other.conflist");
    fs::write(&rival, "{}")?;
    ward.finds("conflist", "another network configuration comes first")?;
    fs::remove_file(&rival)?;
    for broken in [
        "{",
        "{\"plugins\": [{\"type\": \"bridge\"}]}",
        "{\"plugins\": [{\"type\": \"hawser\", \"socket\": \"/elsewhere\"}]}",
    ] {
        fs::write(&path, broken)?;
        ward.finds("conflist", "cannot be used")?;
    }
    fs::remove_file(&path)?;
    ward.finds("conflist", "there is no 10-hawser.conflist")?;
    fs::write(&path, good)?;
    ward.healthy()?;
    fs::remove_dir_all(ward.root.join("net.d"))?;
    ward.finds("conflist", "directory cannot be read")
}

fn the_plugin_must_be_there_and_executable() -> Outcome {
    let ward = Ward::start("m5.large", SimConfig::default())?;
    let plugin = ward.root.join("bin/hawser");
    let mode = |mode| fs::set_permissions(&plugin, fs::Permissions::from_mode(mode));
    mode(0o644)?;
    ward.finds("plugin", "cannot be executed")?;
    mode(0o777)?;
    ward.finds("plugin", "others than its owner")?;
    fs::remove_file(&plugin)?;
    ward.finds("plugin", "is not there")
}

fn kubelet_that_takes_too_many_pods_is_found() -> Outcome {
    let ward = Ward::start("m5.large", SimConfig::default())?;
    let config = ward.root.join("var/lib/kubelet/config.yaml");
    put(&config, "kind: KubeletConfiguration\nmaxPods: 29\n")?;
    ward.healthy()?;
    put(&config, "kind: KubeletConfiguration\nmaxPods: 110\n")?;
    ward.finds("max-pods", "more pods than there are addresses")
}

fn network_managers_are_found() -> Outcome {
    let ward = Ward::start("m5.large", SimConfig::default())?;
    let links = ward.root.join("run/systemd/netif/links");
    put(&links.join("2"), "ADMIN_STATE=configured\n")?;
    put(&links.join("3"), "ADMIN_STATE=unmanaged\n")?;
    ward.healthy()?;
    put(&links.join("3"), "ADMIN_STATE=configured\n")?;
    ward.finds("interference", "systemd-networkd configures more than one")?;
    fs::remove_dir_all(&links)?;
    let policy = ward.root.join("usr/lib/systemd/network/99-default.link");
    put(
        &policy,
        "[Match]\nOriginalName=*\n[Link]\nMACAddressPolicy=persistent\n",
    )?;
    ward.finds("interference", "udev gives pods' links")?;
    let ours = ward.root.join("etc/systemd/network/10-pods.link");
    put(
        &ours,
        "[Match]\nOriginalName=eni*\n[Link]\nMACAddressPolicy=none\n",
    )?;
    ward.healthy()?;
    put(
        &ward.root.join("run/NetworkManager/NetworkManager.pid"),
        "1\n",
    )?;
    ward.finds("interference", "NetworkManager runs")
}

fn a_kernel_without_what_pods_need_is_found() -> Outcome {
    let ward = Ward::start("m5.large", SimConfig::default())?;
    ward.healthy()?;
    let (path, whole) = ward.kernel_config()?;
    fs::write(&path, whole.replace("CONFIG_NFT_NAT=m\n", ""))?;
    ward.finds("kernel", "the kernel lacks 1 features")
}
