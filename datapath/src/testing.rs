//! What the tests of this crate share: fresh namespaces, and the state of a namespace as text.

use std::process::Command;

use crate::netlink::Socket;
use crate::netns::Netns;

/// A fresh namespace. A test that cannot have one fails, and says what it lacks.
pub(crate) fn netns() -> Netns {
    Netns::create().unwrap_or_else(|e| {
        panic!("cannot make a network namespace ({e}): run as root or under `unshare -rn`")
    })
}

pub(crate) fn socket_in(netns: &Netns) -> Socket {
    Socket::open_in(netns).expect("a socket in a namespace that this test made")
}

/// Links, addresses, routes of every table, rules and permanent neighbours, as iproute2 prints them: an eye that is
/// not our own. Counters and ages are not in it.
pub(crate) fn snapshot(netns: &Netns) -> String {
    let show = "ip -o link | sed 's/ \\(qlen\\|state\\) [^ ]*//g'; ip -o -4 addr; ip -4 route show table all; ip rule; \
                ip -4 neigh show nud permanent; nft list ruleset";
    run_in(netns, &["sh", "-ec", show])
}

/// Standard output of a command in `netns`.
pub(crate) fn run_in(netns: &Netns, command: &[&str]) -> String {
    let output = netns.run(|| Command::new(command[0]).args(&command[1..]).output());
    let output = output
        .expect("entering a namespace that this test made")
        .expect("the command starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}
