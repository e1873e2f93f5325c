//! Files on the host's disk: the runtime's configuration, the plugin, the kubelet's settings, and network managers'.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Check, Finding, Places, failure, warning};
use crate::{
    config::Config,
    install::{chain, conflist},
    rpc::view::View,
};

const STUCK: &str = "the node is not ready, or its pods stay in ContainerCreating";

/// Which network configuration the runtime uses, and whether it is Hawser's and complete.
pub(super) fn conflist(places: &Places, config: &Config) -> Check {
    let directory = places.host(&places.cni_conf_dir);
    let all = match candidates(&directory) {
        Ok(all) => all,
        Err(error) => {
            let finding = failure(
                "the runtime's network configuration directory cannot be read",
                format!("{}: {error}", directory.display()),
                STUCK,
                "create it, or set HOST_CNI_CONFDIR_PATH to the directory that the runtime is configured with",
            );
            return Check::new("conflist", "", vec![finding]);
        }
    };
    let ours = |path: &&PathBuf| path.file_name().is_some_and(|name| name == conflist::NAME);
    let Some(path) = all.iter().find(ours) else {
        let finding = failure(
            format!("there is no {}", conflist::NAME),
            format!("{} has {} configurations", directory.display(), all.len()),
            STUCK,
            "ipamd writes it when it can serve: check the daemon and HOST_CNI_CONFDIR_PATH",
        );
        return Check::new("conflist", "", vec![finding]);
    };
    let mut findings: Vec<_> = content(path, config).into_iter().collect();
    findings.extend(companion(places, config));
    if let Ok(Some(first)) = conflist::rival(&directory) {
        findings.push(failure(
            "another network configuration comes first",
            format!("{} sorts before {}", first.display(), conflist::NAME),
            "the runtime uses the other plugin for every new pod",
            "remove the other file, or the program that writes it",
        ));
    }
    let seen = format!(
        "{} is in use; network configurations: {}",
        conflist::NAME,
        all.len()
    );
    Check::new("conflist", seen, findings)
}

/// The standard plugin that is asked for and would not be called.
fn companion(places: &Places, config: &Config) -> Option<Finding> {
    let bin = places.host(&places.cni_bin_dir);
    let absent = config.pods.disable_ipv6 && !bin.join("tuning").is_file();
    absent.then(|| {
        warning(
            "the plugin tuning is not there",
            format!("{} has none", bin.display()),
            "pods keep IPv6",
            "install the standard CNI plugins, and set HOST_CNI_BIN_PATH to their directory",
        )
    })
}

/// The files that a runtime would load, in its order.
fn candidates(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let known = path
            .extension()
            .is_some_and(|ext| ext == "conf" || ext == "conflist" || ext == "json");
        if known {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn content(path: &Path, config: &Config) -> Option<Finding> {
    let broken = |evidence: String| {
        failure(
            "the network configuration cannot be used",
            evidence,
            STUCK,
            "find the program that writes it; ipamd repairs it once a minute, unless the AWS VPC CNI runs",
        )
    };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Some(broken(format!("{}: {error}", path.display()))),
    };
    let value: Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(error) => return Some(broken(format!("{}: {error}", path.display()))),
    };
    let plugins = value["plugins"].as_array().cloned().unwrap_or_default();
    let mut entries = plugins
        .iter()
        .filter(|plugin| plugin["type"] == chain::PLUGIN);
    let Some(ours) = entries.next() else {
        return Some(broken(format!(
            "{} has no plugin \"hawser\"",
            path.display()
        )));
    };
    if entries.next().is_some() {
        return Some(broken(format!(
            "{} names the plugin \"hawser\" twice",
            path.display()
        )));
    }
    let socket = config.paths.socket();
    let named = ours["socket"].as_str().unwrap_or_default();
    (named != socket.to_string_lossy()).then(|| {
        broken(format!(
            "it names the socket \"{named}\", and the daemon's is \"{}\"",
            socket.display()
        ))
    })
}

/// Whether the runtime finds an executable plugin.
pub(super) fn plugin(places: &Places) -> Check {
    let path = places.host(&places.cni_bin_dir).join("hawser");
    let missing = |evidence| {
        let remedy = "let the daemon set's init container install it, or set --cni-bin-dir to where the runtime looks";
        vec![failure("the plugin is missing", evidence, STUCK, remedy)]
    };
    let about = match fs::metadata(&path) {
        Ok(about) => about,
        Err(error) => {
            return Check::new(
                "plugin",
                "",
                missing(format!("{}: {error}", path.display())),
            );
        }
    };
    let mode = about.permissions().mode() & 0o7777;
    let mut findings = Vec::new();
    if !about.is_file() || mode & 0o100 == 0 {
        findings.push(failure(
            "the plugin cannot be executed",
            format!("{} has mode {mode:04o}", path.display()),
            STUCK,
            "chmod 0755, and find out who changed it",
        ));
    } else if mode & 0o022 != 0 {
        findings.push(warning(
            "users other than its owner can replace the plugin",
            format!("{} has mode {mode:04o}", path.display()),
            "a program that replaces it runs as root at the next pod's start",
            "chmod 0755",
        ));
    }
    let seen = format!("{}, {} bytes", path.display(), about.len());
    Check::new("plugin", seen, findings)
}

/// Whether the kubelet accepts more pods than there are addresses.
pub(super) fn kubelet(places: &Places, view: Option<&View>) -> Check {
    const NAME: &str = "max-pods";
    const FILES: [&str; 3] = [
        "/etc/kubernetes/kubelet/config.json",
        "/etc/kubernetes/kubelet/kubelet-config.json",
        "/var/lib/kubelet/config.yaml",
    ];
    let Some(limit) = view.map(|view| view.pod_limit).filter(|limit| *limit > 0) else {
        return Check::skipped(NAME, "only the daemon knows the limit");
    };
    let read = |path: &'static str| {
        let text = fs::read_to_string(places.host(Path::new(path))).ok()?;
        Some((path, max_pods_in(&text)?))
    };
    let Some((path, max_pods)) = FILES.into_iter().find_map(read) else {
        return Check::skipped(NAME, "no kubelet configuration with maxPods was found");
    };
    // Two host-network pods count for the kubelet and need no address.
    let wanted = limit + 2;
    let findings = if max_pods > wanted {
        vec![warning(
            "the kubelet accepts more pods than there are addresses",
            format!(
                "maxPods is {max_pods} in {path}; {limit} pod addresses and two pods of the host's network are {wanted}"
            ),
            "the last pods scheduled to this node stay in ContainerCreating",
            "set maxPods to the value that `ipamd max-pods --from-imds` prints",
        )]
    } else {
        Vec::new()
    };
    Check::new(
        NAME,
        format!("maxPods {max_pods}, {limit} pod addresses"),
        findings,
    )
}

/// `maxPods` of a kubelet configuration, JSON or YAML: in both, the key is one word with a number.
fn max_pods_in(text: &str) -> Option<u32> {
    let rest = text.split("maxPods").nth(1)?;
    let digits = rest.trim_start_matches(['"', ':', ' ']);
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Programs that may change the ENIs or the pods' links.
pub(super) fn managers(places: &Places) -> Check {
    let mut findings = Vec::new();
    let links = places.host(Path::new("/run/systemd/netif/links"));
    let managed: Vec<_> = fs::read_dir(&links)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            fs::read_to_string(entry.path())
                .is_ok_and(|text| text.contains("ADMIN_STATE=configured"))
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    // On every node, some program configures the primary interface.
    if managed.len() > 1 {
        findings.push(warning(
            "systemd-networkd configures more than one interface",
            format!("link indices {} in {}", managed.join(", "), links.display()),
            "when it restarts it removes rules and routes of secondary ENIs; ipamd puts them back, after a gap",
            "set ManageForeignRoutes=no and ManageForeignRoutingPolicyRules=no, and Unmanaged=yes for ENIs but the first",
        ));
    }
    findings.extend(mac_policy(places));
    if places
        .host(Path::new("/run/NetworkManager/NetworkManager.pid"))
        .exists()
    {
        findings.push(warning(
            "NetworkManager runs on this node",
            "/run/NetworkManager/NetworkManager.pid is there",
            "it may take over pods' links and secondary ENIs as they appear",
            "keep it from them: unmanaged-devices=interface-name:eni*;interface-name:ens* in its configuration",
        ));
    }
    let seen = "no network manager and no MAC policy in the way";
    Check::new("interference", seen, findings)
}

/// udev changes a veth's MAC if the first matching `.link` file has `persistent`.
fn mac_policy(places: &Places) -> Option<Finding> {
    const DIRECTORIES: [&str; 3] = [
        "/etc/systemd/network",
        "/run/systemd/network",
        "/usr/lib/systemd/network",
    ];
    let mut files: Vec<_> = DIRECTORIES
        .iter()
        .flat_map(|directory| {
            fs::read_dir(places.host(Path::new(directory)))
                .into_iter()
                .flatten()
        })
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "link"))
        .collect();
    files.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    let policy = files.iter().find_map(|path| {
        let text = fs::read_to_string(path).ok()?;
        let about_veths = text.lines().any(|line| {
            line.split_once('=').is_some_and(|(key, value)| {
                (key.trim() == "OriginalName" && matches!(value.trim(), "*" | "eni*"))
                    || (key.trim() == "Driver" && value.contains("veth"))
            })
        });
        let policy = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("MACAddressPolicy="))?;
        about_veths.then(|| (path.clone(), policy.trim().to_owned()))
    });
    let (path, policy) = policy.filter(|(_, policy)| policy == "persistent")?;
    Some(warning(
        "udev gives pods' links MAC addresses of its own",
        format!("MACAddressPolicy={policy} in {}", path.display()),
        "a pod may send to a MAC that is no longer there, until ipamd repairs its neighbour entry",
        "install a .link file that sorts earlier, with OriginalName=eni* and MACAddressPolicy=none",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_pods_is_found_in_either_syntax() {
        assert_eq!(max_pods_in("{\"maxPods\": 58, \"x\": 1}"), Some(58));
        assert_eq!(
            max_pods_in("kind: KubeletConfiguration\nmaxPods: 29\n"),
            Some(29)
        );
        assert_eq!(max_pods_in("maxPods: many"), None);
        assert_eq!(max_pods_in("nothing"), None);
    }
}
