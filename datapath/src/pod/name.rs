//! Names of host ends. Pure.

use sha1::{Digest, Sha1};

/// Digits of the hash in a host-end name. With a prefix of four characters, such as `vlan`, the name has 15 bytes, the
/// kernel's maximum.
const DIGITS: usize = 11;

/// The name of a host end: `prefix` and 11 hex digits that depend on all `parts` and their boundaries. The parts should
/// include the container id and the interface name, so that two sandboxes of one pod never have the same name.
#[must_use]
pub fn host_name(prefix: &str, parts: &[&str]) -> String {
    let mut hash = Sha1::new();
    for part in parts {
        hash.update(part.as_bytes());
        // None of the parts can contain a zero byte, because they come from environment variables.
        hash.update([0]);
    }
    named(prefix, hash)
}

/// The AWS VPC CNI's name: from the SHA-1 of `<namespace>.<pod>`. When chained, Calico's Felix calculates the same name
/// and expects to find the link under it.
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
            host_name("eni", &["ab", "c"]),
            host_name("eni", &["a", "bc"])
        );
        assert_ne!(
            host_name("eni", &["id", "eth0"]),
            host_name("eni", &["id", "eth1"])
        );
        assert_eq!(host_name("abcd", &["id", "eth0"]).len(), 15);
    }
}
