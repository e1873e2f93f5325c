//! Compares every refusal of the daemon, as a pod's event shows it, with `docs/refusals.md`. Code and page must have the
//! same refusals.

use std::io;

use datapath::{
    netlink,
    pod::{AddError, Step},
};
use nix::errno::Errno;
use planner::Refusal as P;
use proto::refusal::cni_code;
use repo_checks::catalogue;

use super::*;
use crate::{ec2::codes, runtime::worker::Gone};

const PART: &str = "From the daemon";

/// One of each kind that the planner knows.
fn of_planner() -> Vec<P> {
    let waited = Duration::from_millis(59_250);
    let soon = Duration::from_secs(8);
    vec![
        P::PodLimit {
            limit: 27,
            used: 27,
            wait: 0,
            why: "m5.large: 3 ENIs × (10 − 1) addresses = 27 pod addresses".into(),
        },
        P::PodLimit {
            limit: 27,
            used: 20,
            wait: 7,
            why: "m5.large: 3 ENIs × (10 − 1) addresses = 27 pod addresses".into(),
        },
        P::Empty {
            waited,
            growing: "ENIs being created: 1, attached: 0, brought up: 0, given addresses: 0; 2 addresses are cooling \
                      down"
                .into(),
        },
        P::Fixed,
        P::Wiring { waited },
        P::Exhausted {
            subnet: "subnet-0a1b2c3d".into(),
            others: 0,
            since: Duration::from_secs(312),
            retry_in: soon,
        },
        P::Exhausted {
            subnet: "subnet-0a1b2c3d".into(),
            others: 2,
            since: Duration::from_secs(312),
            retry_in: soon,
        },
        P::NoSubnet(NoClass {
            why: "the ENIConfig \"us-west-2a\" of this node does not exist".into(),
            remedy: "create it, or name another one in the Node's label vpc.amazonaws.com/externalEniConfig, its \
                     annotation k8s.amazonaws.com/eniConfig or its label k8s.amazonaws.com/eniConfig"
                .into(),
        }),
        P::NoSubnet(NoClass {
            why: "subnet discovery has no usable subnet (subnet-0a1b2c3d: its tag kubernetes.io/role/cni is 0)".into(),
            remedy: "tag a subnet of us-west-2a kubernetes.io/role/cni=1".into(),
        }),
        P::Throttled { retry_in: soon },
        P::Denied {
            action: "ec2:CreateNetworkInterface".into(),
            why: None,
        },
        P::Denied {
            action: "ec2:CreateTags".into(),
            why: Some("no identity-based policy allows the ec2:CreateTags action".into()),
        },
        of_ec2(
            "NetworkInterfaceLimitExceeded",
            "You've reached the limit on the number of network interfaces that you can create in this Region",
        ),
        of_ec2("PendingVerification", "Your account is currently being verified"),
        of_ec2("InvalidGroup.NotFound", "The security group 'sg-1' does not exist"),
        P::Unreachable {
            message: "AssignPrivateIpAddresses: no answer within 10 s".into(),
            remedy: String::new(),
            retry_in: soon,
        },
        P::Unreachable {
            message: "the list of this node's interfaces has not arrived yet".into(),
            remedy: String::new(),
            retry_in: Duration::ZERO,
        },
        P::Unreachable {
            message: "CreateNetworkInterface: InternalError: An internal error has occurred".into(),
            remedy: codes::row("InternalError", "").remedy_in("eu-west-1"),
            retry_in: soon,
        },
        P::EniLimit {
            why: "m5.large supports 3 ENIs; 2 are in the pool, 1 are not managed by it".into(),
        },
        P::Stopping,
    ]
}

/// A refusal of CreateNetworkInterface, as the planner passes it on.
fn of_ec2(code: &str, message: &str) -> P {
    P::Refused {
        message: format!("CreateNetworkInterface: {code}: {message}"),
        remedy: codes::row(code, message).remedy_in("eu-west-1"),
        retry_in: Duration::from_secs(8),
    }
}

/// Does not compile if the planner has another kind. Add this kind to the list above too.
fn known(refusal: P) -> P {
    match refusal {
        P::PodLimit { .. }
        | P::Empty { .. }
        | P::Fixed
        | P::Wiring { .. }
        | P::Exhausted { .. }
        | P::Throttled { .. }
        | P::Denied { .. }
        | P::Refused { .. }
        | P::Unreachable { .. }
        | P::EniLimit { .. }
        | P::NoSubnet(_)
        | P::Stopping => refusal,
    }
}

fn sandbox() -> Sandbox {
    Sandbox {
        network: "hawser".into(),
        container_id: "5f1d9c".into(),
        ifname: "eth0".into(),
    }
}

fn host_port(address: Option<IpAddr>) -> HostPort {
    HostPort {
        transport: nettypes::Transport::Tcp,
        port: 8080,
        address,
        pod_port: 80,
    }
}

/// Of a pod, and of a sandbox whose pod is not known.
fn holders() -> [Held; 2] {
    let unknown = Held {
        port: host_port(None),
        sandbox: Sandbox {
            container_id: "a07e44".into(),
            ..sandbox()
        },
        pod: planner::Pod::default(),
    };
    let known = Held {
        port: host_port(Some([10, 0, 0, 5].into())),
        pod: planner::Pod {
            namespace: Some("default".into()),
            name: Some("web-0".into()),
            uid: None,
        },
        ..unknown.clone()
    };
    [known, unknown]
}

fn of_wires() -> Vec<Refusal> {
    let link = PodLink {
        host_name: "eni4b1f20c7a9e".into(),
        owner: "hawser aws-cni/5f1d9c/eth0".into(),
        pod_name: "eth0".into(),
        address: [10, 0, 3, 7].into(),
        mtu: 9001,
        uplink: datapath::uplink::Uplink::Eni(nettypes::EniIndex::PRIMARY),
        host_mac: nettypes::Mac([2, 0, 0, 0, 0, 1]),
        pod_mac: nettypes::Mac([2, 0, 0, 0, 0, 2]),
        secondary: false,
        asked: nettypes::Asked::default(),
        egress: None,
    };
    let source = netlink::Error::Kernel {
        op: "link add",
        errno: Errno::ENOMEM,
        message: None,
    };
    let kernel = AddError::Refused {
        step: Step::Pair,
        source,
        left_behind: None,
    };
    let in_use = AddError::PortInUse {
        port: host_port(None),
        listener: ([127, 0, 0, 1], 8080).into(),
    };
    let errors = [
        WireError::InterfaceExists("eth0".into()),
        WireError::AddressInUse(link.address),
        WireError::NameTaken(link.host_name.clone()),
        WireError::PortInUse(in_use.to_string()),
        WireError::Netns(AddError::NamespaceGone.into()),
        WireError::Kernel(kernel.into()),
        WireError::Gone(Gone),
    ];
    errors.iter().map(|error| of_wiring(&link, error)).collect()
}

fn of_an_unwire() -> Refusal {
    let full = netlink::Error::Kernel {
        op: "route del",
        errno: Errno::ENOBUFS,
        message: None,
    };
    let error = WireError::Kernel(full.into());
    of_unwiring("eni4b1f20c7a9e", [10, 0, 3, 7].into(), &error)
}

fn all() -> Vec<Refusal> {
    let mut all: Vec<Refusal> = of_planner().into_iter().map(known).map(of_pool).collect();
    all.extend(of_wires());
    all.extend(holders().map(|holder| port_of_another(&host_port(None), &holder)));
    let full = StoreError::Io {
        operation: "write",
        path: "/run/hawser/state".into(),
        source: io::Error::from_raw_os_error(28),
    };
    let died = io::Error::other("task 7 panicked");
    all.extend([
        of_an_unwire(),
        no_egress_address(Family::V6),
        foreign_host_ip(
            &host_port(Some(std::net::Ipv6Addr::LOCALHOST.into())),
            Family::V4,
        ),
        stopping(Reason::Store),
        busy(),
        deleted(&sandbox()),
        no_record(&sandbox()),
        drift(
            &sandbox(),
            "prevResult has 10.0.3.8, the record has 10.0.3.7",
        ),
        of_store(&full),
        invalid(&"mtu 12 is out of range"),
        invalid(&"the connection did not pass the sandbox's file descriptors"),
        defect(&died),
    ]);
    all
}

#[test]
fn the_catalogue_has_every_refusal_and_no_other() {
    let said: Vec<catalogue::Text> = all()
        .into_iter()
        .map(|refusal| catalogue::Text {
            entry: refusal.reason.as_str_name().to_owned(),
            code: refusal.cni_code(),
            text: format!("{}; {}", refusal.cause, refusal.advice()),
        })
        .collect();
    let page = catalogue::part(PART).expect("the page is there");
    let found = catalogue::differences(&page, &said);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A reason without a text is one that this release understands but never sends.
#[test]
fn the_catalogue_has_every_reason_with_its_code() {
    let page = catalogue::part(PART).expect("the page is there");
    let reasons = (0..).map_while(|number| Reason::try_from(number).ok());
    let known: Vec<(String, u32)> = reasons
        .map(|reason| (reason.as_str_name().to_owned(), cni_code(reason)))
        .collect();
    for (name, code) in &known {
        let entry = page.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(entry.code, Some(*code), "{name}");
    }
    for name in page.keys() {
        assert!(
            known.iter().any(|(known, _)| known == name),
            "{name} is no reason"
        );
    }
}

/// The runtime tries again automatically. The text must say whether this can help.
#[test]
fn retryable_refusals_say_when_to_retry() {
    for refusal in all() {
        let advice = refusal.advice();
        let told = ["try again after", "when another pod is deleted"];
        assert!(
            refusal.cni_code() != cni_code(Reason::Busy)
                || told.iter().any(|words| advice.contains(words)),
            "{refusal:?}"
        );
        assert!(!refusal.remedy.is_empty(), "{refusal:?}");
    }
}
