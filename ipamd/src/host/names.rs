//! What a pod's link is called on the host, and whose it says it is. Pure.

use datapath::pod::{HostSide, former_host_name, own_name, upstream_host_name};
use planner::{Pod, Sandbox};

use crate::state::{store::Record, unknown::is_unknown};

/// The interface of a pod's first attachment, in every runtime of Kubernetes.
const FIRST: &str = "eth0";
/// What every owner begins with, so that it is not mistaken for an administrator's text.
const OURS: &str = "hawser ";
/// The longest alias of a link in bytes.
const MAX: usize = 255;

/// Whose link it is: `hawser <network>/<container id>/<interface>`, or a hash of it if it were longer than 255 bytes.
#[must_use]
pub fn owner(sandbox: &Sandbox) -> String {
    let [network, container_id, ifname] = parts(sandbox);
    let whole = format!("{OURS}{network}/{container_id}/{ifname}");
    if whole.len() <= MAX {
        return whole;
    }
    own_name(&format!("{OURS}#"), &whole)
}

/// Whether it is a text of [`owner`].
#[must_use]
pub fn is_owner(alias: &str) -> bool {
    alias.starts_with(OURS)
}

/// The sandbox in an owner; `None` for a hash and for texts of others.
#[must_use]
pub fn sandbox_of(owner: &str) -> Option<Sandbox> {
    let mut parts = owner.strip_prefix(OURS)?.split('/');
    let mut part = || parts.next().filter(|part| !part.is_empty());
    let (network, container_id, ifname) = (part()?, part()?, part()?);
    parts.next().is_none().then(|| Sandbox {
        network: network.to_owned(),
        container_id: container_id.to_owned(),
        ifname: ifname.to_owned(),
    })
}

/// Whether the link is that of the record's sandbox. It says so itself, unless an earlier release made it, whose names were
/// different for every sandbox.
#[must_use]
pub fn is_link_of(record: &Record, link: &HostSide) -> bool {
    let alias = link.owner.as_deref().filter(|text| is_owner(text));
    match alias {
        Some(alias) if !is_unknown(&record.sandbox) => alias == owner(&record.sandbox),
        _ => {
            let mac = record.host_mac;
            link.name == record.host_name || (mac.is_some() && link.mac == mac)
        }
    }
}

/// The name of the sandbox's host end: that of the AWS VPC CNI for the pod. A further attachment of a pod has the name of
/// `<namespace>.<pod>.<interface>`. Sandboxes of unknown pods (Nomad) are named after their container.
#[must_use]
pub fn host_name(prefix: &str, sandbox: &Sandbox, pod: &Pod) -> String {
    match (&pod.namespace, &pod.name) {
        (Some(namespace), Some(name)) if sandbox.ifname == FIRST => {
            upstream_host_name(prefix, namespace, name)
        }
        (Some(namespace), Some(name)) => {
            upstream_host_name(prefix, namespace, &format!("{name}.{}", sandbox.ifname))
        }
        _ => own_name(prefix, &owner(sandbox)),
    }
}

/// The name that releases without owners gave to the sandbox's host end.
#[must_use]
pub fn former(prefix: &str, sandbox: &Sandbox) -> String {
    former_host_name(prefix, &parts(sandbox))
}

fn parts(sandbox: &Sandbox) -> [&str; 3] {
    [&sandbox.network, &sandbox.container_id, &sandbox.ifname]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(ifname: &str) -> Sandbox {
        Sandbox {
            network: "aws-cni".into(),
            container_id: "5f1d9c".into(),
            ifname: ifname.into(),
        }
    }

    fn pod(namespace: &str, name: &str) -> Pod {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Pod {
            namespace: text(namespace),
            name: text(name),
            uid: None,
        }
    }

    #[test]
    fn an_owner_leads_back_to_its_sandbox() {
        let sandbox = sandbox("eth0");
        assert_eq!(owner(&sandbox), "hawser aws-cni/5f1d9c/eth0");
        assert_eq!(sandbox_of(&owner(&sandbox)), Some(sandbox));
        for other in ["", "uplink", "hawser a/b", "hawser a/b/c/d", "hawser a//c"] {
            assert_eq!(sandbox_of(other), None, "{other}");
        }
    }

    #[test]
    fn an_owner_fits_into_an_alias() {
        let long = Sandbox {
            network: "n".repeat(255),
            container_id: "c".repeat(128),
            ifname: "net123456789012".into(),
        };
        let other = Sandbox {
            ifname: "net123456789013".into(),
            ..long.clone()
        };
        assert!(owner(&long).len() <= MAX && is_owner(&owner(&long)));
        assert_ne!(owner(&long), owner(&other));
        assert_eq!(sandbox_of(&owner(&long)), None);
    }

    #[test]
    fn a_pods_first_attachment_has_upstreams_name_and_each_other_one_its_own() {
        let web = pod("default", "sample-pod");
        assert_eq!(host_name("eni", &sandbox("eth0"), &web), "enicc21c2d7785");
        let (one, two) = (sandbox("net1"), sandbox("net2"));
        let names = [&one, &two].map(|sandbox| host_name("eni", sandbox, &web));
        assert_ne!(names[0], names[1]);
        assert_ne!(names[0], "enicc21c2d7785");
        // Nobody else calculates the name of a sandbox without a pod.
        for unknown in [pod("", ""), pod("default", ""), pod("", "sample-pod")] {
            let name = host_name("eni", &one, &unknown);
            assert_eq!(name, own_name("eni", "hawser aws-cni/5f1d9c/net1"));
        }
    }
}
