//! Shared by the kill campaigns of this theme: the initial node, and the answers of the plugin.

use std::io;

use datapath::netlink::Family;
use lab::{
    crash::setup::Setup,
    node::{
        Pod,
        plugin::{Invocation, Outcome as Answer},
    },
};
use serde_json::{Value, json};

use crate::support::{bandwidth::limited, campaign::COOLDOWN};

/// Creates the sandbox for the work; its pod is not yet one that must stay alive.
pub fn sandbox(setup: &Setup, id: &str) -> io::Result<Pod> {
    let (netns, path) = setup.node.sandbox(id)?;
    let added = Answer::default();
    Ok(Pod {
        id: id.to_owned(),
        netns,
        path,
        asked: Value::Null,
        added,
    })
}

/// The answer, if it is a success.
pub fn succeeded(answer: Option<Answer>) -> io::Result<Answer> {
    let answer = answer.ok_or_else(|| io::Error::other("nothing was asked"))?;
    if answer.succeeded() {
        return Ok(answer);
    }
    Err(io::Error::other(format!("{answer:?}")))
}

/// The host ports of a pod in these campaigns, which no two of its ids share.
pub fn asking(id: &str) -> Value {
    let port = 8000 + id.bytes().map(u32::from).sum::<u32>();
    let of =
        |protocol: &str| json!({ "hostPort": port, "containerPort": 80, "protocol": protocol });
    json!({ "portMappings": [of("tcp"), of("udp")] })
}

/// Pods named `pod0`… on a node with this many free addresses, which makes no further EC2 call.
pub fn full_node(pods: usize) -> io::Result<Setup> {
    full_node_with(pods, &[])
}

/// The same with further settings.
pub fn full_node_with(pods: usize, more: &[(&str, &str)]) -> io::Result<Setup> {
    // t3.small: the primary ENI has three addresses for pods, or one IPv6 prefix.
    let settings = [("MAX_ENI", "1"), ("WARM_IP_TARGET", "3"), COOLDOWN];
    let mut setup = Setup::new("t3.small", &[&settings[..], more].concat())?;
    if setup.family == Family::V4 {
        setup.await_free(3)?;
    }
    for n in 0..pods {
        let id = format!("pod{n}");
        let pod = setup.node.add_pod_asking(&id, &asking(&id))?;
        setup.pods.push(pod);
    }
    Ok(setup)
}

/// What the pod asks for beside its address.
#[derive(Clone, Copy)]
pub enum Asked {
    Nothing,
    Everything,
    /// On a node whose pods have IPv6 addresses.
    EverythingOfIpv6,
}

impl Asked {
    /// The node's settings for it.
    pub fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Nothing => &[],
            Self::Everything => &[("ENABLE_V6_EGRESS", "true")],
            Self::EverythingOfIpv6 => &[
                ("ENABLE_IPv4", "false"),
                ("ENABLE_IPv6", "true"),
                ("ENABLE_PREFIX_DELEGATION", "true"),
            ],
        }
    }

    /// As the runtime passes it for the pod with this id.
    pub fn of(self, id: &str) -> Value {
        match self {
            Self::Nothing => Value::Null,
            Self::Everything | Self::EverythingOfIpv6 => everything(id),
        }
    }
}

fn everything(id: &str) -> Value {
    limited(asking(id), 100_000_000)
}

/// ADD for this pod, with what it asks for.
pub fn adding(setup: &Setup, pod: &Pod) -> Invocation {
    let add = setup.node.invocation("ADD", &pod.id, Some(&pod.path));
    add.conf("runtimeConfig", pod.asked.clone())
}

/// A node with `pod0`, and with `pod1`, which asks for this.
pub fn full_node_and(asked: Asked) -> io::Result<Setup> {
    let mut setup = full_node_with(1, asked.settings())?;
    let mut pod = sandbox(&setup, "pod1")?;
    pod.asked = asked.of("pod1");
    let added = adding(&setup, &pod).run(setup.node.netns())?;
    pod.added = succeeded(Some(added))?;
    setup.pods.push(pod);
    Ok(setup)
}
