//! Names of host ends. Pure.

use sha1::{Digest, Sha1};

/// Digits of the hash in a host-end name. With a prefix of four characters, such as `vlan`, the name has 15 bytes, the
/// kernel's maximum.
const DIGITS: usize = 11;

/// The AWS VPC CNI's name: from the SHA-1 of `<namespace>.<pod>`. Policy engines (Calico's Felix, the AWS network policy
/// agent) and aws-node itself calculate the same name and expect to find the pod's link under it.
///
/// Two sandboxes of one pod have the same name, so it does not identify a sandbox: the link's index and its owner do.
#[must_use]
pub fn upstream_host_name(prefix: &str, namespace: &str, pod: &str) -> String {
    named(
        prefix,
        Sha1::new()
            .chain_update(namespace)
            .chain_update(".")
            .chain_update(pod),
    )
}

/// A name that only the link of this owner has: for a sandbox of no known pod, and while another link keeps the pod's name.
#[must_use]
pub fn own_name(prefix: &str, owner: &str) -> String {
    named(prefix, Sha1::new().chain_update(owner))
}

/// The name in releases that named a host end after its sandbox: `prefix` and 11 hex digits that depend on all `parts` and
/// their boundaries (network, container id and interface).
#[must_use]
pub fn former_host_name(prefix: &str, parts: &[&str]) -> String {
    let mut hash = Sha1::new();
    for part in parts {
        hash.update(part.as_bytes());
        // None of the parts can contain a zero byte, because they come from environment variables.
        hash.update([0]);
    }
    named(prefix, hash)
}

/// What is before the hash in a host end's name; empty if it cannot be one.
pub(super) fn prefix_of(host_name: &str) -> &str {
    let length = host_name.len().saturating_sub(DIGITS);
    host_name.get(..length).unwrap_or_default()
}

fn named(prefix: &str, hash: Sha1) -> String {
    let mut name = prefix.to_owned();
    name.extend(
        hash.finalize()
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 0xf])
            .take(DIGITS)
            .map(hex_digit),
    );
    name
}

fn hex_digit(nibble: u8) -> char {
    char::from(b"0123456789abcdef"[usize::from(nibble)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_names_are_upstreams() {
        let coredns =
            |prefix| upstream_host_name(prefix, "kube-system", "coredns-57ff979f67-qqbdh");
        assert_eq!(coredns("eni"), "enib5faff8a083");
        assert_eq!(coredns("vlan"), "vlanb5faff8a083");
        assert_eq!(
            upstream_host_name("eni", "default", "sample-pod"),
            "enicc21c2d7785"
        );
        assert_eq!(
            upstream_host_name("eni", "default", "sample-pod.1"),
            "enia0b7655f3c9"
        );
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(
            former_host_name("eni", &["ab", "c"]),
            former_host_name("eni", &["a", "bc"])
        );
        assert_ne!(
            former_host_name("eni", &["id", "eth0"]),
            former_host_name("eni", &["id", "eth1"])
        );
        assert_eq!(former_host_name("abcd", &["id", "eth0"]).len(), 15);
    }

    #[test]
    fn the_prefix_of_a_name_is_found_again() {
        for prefix in ["", "e", "eni", "vlan"] {
            assert_eq!(prefix_of(&own_name(prefix, "n/id/eth0")), prefix);
        }
        for short in ["", "eth0", "ääääää"] {
            assert!(prefix_of(short).len() < short.len().max(1), "{short}");
        }
    }
}
