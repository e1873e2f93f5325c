//! The kernel's features compared with what pods' network needs. They are read from the kernel's configuration file, if
//! there is one, because a test would change the node.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use planner::Family;

use super::{Check, Places, failure};
use crate::config::Config;

/// Kernel configurations have about 200 KiB.
const LIMIT: u64 = 4 << 20;

/// The option's name without `CONFIG_`, and its purpose.
const NEEDED: [(&str, &str); 10] = [
    ("VETH", "pods' links"),
    ("IP_MULTIPLE_TABLES", "a routing table for each ENI"),
    ("NF_TABLES", "nftables"),
    ("NF_TABLES_IPV4", "nftables"),
    ("NFT_CT", "the marks of connections"),
    ("NFT_FIB_IPV4", "detecting NodePort connections"),
    ("NFT_NAT", "translating traffic out of the VPC"),
    ("NF_CONNTRACK", "connection tracking"),
    ("NF_CONNTRACK_MARK", "the marks of connections"),
    ("NF_CT_NETLINK", "deleting connections of deleted pods"),
];
const NEEDED_FOR_IPV6: [(&str, &str); 7] = [
    ("VETH", "pods' links"),
    ("IPV6", "pods' addresses"),
    ("IPV6_MULTIPLE_TABLES", "a routing table for pods"),
    ("NF_TABLES", "nftables"),
    ("NF_TABLES_IPV6", "nftables"),
    ("NFT_FIB_IPV6", "the check of pods' source addresses"),
    ("NF_CT_NETLINK", "deleting connections of deleted pods"),
];

const NEEDED_FOR_THE_OTHER_FAMILY: [(&str, &str); 5] = [
    ("IPV6", "pods' addresses"),
    ("IPV6_MULTIPLE_TABLES", "a routing table for pods"),
    ("NF_TABLES_IPV6", "nftables"),
    ("NFT_FIB_IPV6", "the check of pods' source addresses"),
    (
        "NFT_MASQ",
        "translating traffic of the other address family",
    ),
];

pub(super) fn check(places: &Places, config: &Config) -> Check {
    const NAME: &str = "kernel";
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let Some((path, text)) = configuration(places, release) else {
        return Check::skipped(
            NAME,
            format!("the configuration of {release} is not available"),
        );
    };
    let needed = match config.pool.family {
        Family::V4 => &NEEDED[..],
        Family::V6 => &NEEDED_FOR_IPV6[..],
    };
    let both: &[_] = match config.egress.other_family {
        true => &NEEDED_FOR_THE_OTHER_FAMILY,
        false => &[],
    };
    let needed = [needed, both].concat();
    let lacking = lacking(&text, &needed);
    if lacking.is_empty() {
        let seen = format!("{release} has all {} features", needed.len());
        return Check::new(NAME, seen, Vec::new());
    }
    let finding = failure(
        format!("the kernel lacks {} features", lacking.len()),
        format!("{} lacks {}", path.display(), lacking.join(", ")),
        "the daemon does not start, or pods cannot be wired",
        "use a kernel that has them; every distribution that EKS offers does",
    );
    Check::new(NAME, "", vec![finding])
}

/// The paths that distributions use; the running kernel's own file comes last, because few kernels have it.
fn configuration(places: &Places, release: &str) -> Option<(PathBuf, String)> {
    let plain = [
        format!("/boot/config-{release}"),
        format!("/lib/modules/{release}/config"),
    ];
    let on_disk = plain.iter().find_map(|path| {
        let path = places.host(Path::new(path));
        let text = fs::read_to_string(&path).ok()?;
        Some((path, text))
    });
    on_disk.or_else(|| {
        let path = PathBuf::from("/proc/config.gz");
        let text = unpacked(&path).ok()?;
        Some((path, text))
    })
}

fn unpacked(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    GzDecoder::new(File::open(path)?)
        .take(LIMIT)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Built in or as a module: it does not matter, because the kernel loads modules on demand.
fn lacking(configuration: &str, needed: &[(&str, &str)]) -> Vec<String> {
    let has = |name: &str| {
        configuration
            .lines()
            .filter_map(|line| line.strip_prefix("CONFIG_")?.strip_prefix(name))
            .any(|rest| rest == "=y" || rest == "=m")
    };
    let missing = needed.iter().filter(|(name, _)| !has(name));
    missing
        .map(|(name, purpose)| format!("CONFIG_{name} ({purpose})"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_counts_as_built_in_and_as_a_module_and_not_otherwise() {
        let needed = [("NF_TABLES", "a"), ("VETH", "b"), ("NFT_CT", "c")];
        let told = |text: &str| lacking(text, &needed);
        assert!(told("CONFIG_NF_TABLES=y\nCONFIG_VETH=m\nCONFIG_NFT_CT=m\n").is_empty());
        // A longer name is another option.
        let text = "CONFIG_NF_TABLES_INET=y\n# CONFIG_VETH is not set\nCONFIG_NFT_CT=m\n";
        assert_eq!(told(text), ["CONFIG_NF_TABLES (a)", "CONFIG_VETH (b)"]);
    }
}
