//! Shared helpers for the tests of this crate: new namespaces, and the state of a namespace as text.

use std::process::Command;

use nix::libc;

use crate::netlink::Socket;
use crate::netns::Netns;

/// A new namespace. If it cannot be created, the test fails and names the reason.
pub(crate) fn netns() -> Netns {
    Netns::create().unwrap_or_else(|e| {
        panic!("cannot make a network namespace ({e}): run as root or under `unshare -rn`")
    })
}

pub(crate) fn socket_in(netns: &Netns) -> Socket {
    Socket::open_in(netns).expect("a socket in a namespace that this test made")
}

/// Links, addresses, routes of every table, rules and permanent neighbours, as printed by iproute2, which is
/// independent of our code. Counters, ages and the carrier (which changes with a delay) are left out.
pub(crate) fn snapshot(netns: &Netns) -> String {
    let show = "ip -o link | sed 's/ \\(qlen\\|state\\) [^ ]*//g; s/NO-CARRIER,\\|,LOWER_UP\\|,M-DOWN//g'; \
                ip -o -4 addr; ip -4 route show table all; ip rule; ip -4 neigh show nud permanent | sort; nft list ruleset";
    run_in(netns, &["sh", "-ec", show])
}

/// The same for IPv6, with the settings of links. The kernel's own link-local addresses depend on the carrier, and the
/// subnet's anycast address depends on the timing of the kernel's work queues, so both are left out.
pub(crate) fn snapshot_ipv6(netns: &Netns) -> String {
    let show = "ip -o link | sed 's/ \\(qlen\\|state\\) [^ ]*//g; s/NO-CARRIER,\\|,LOWER_UP\\|,M-DOWN//g'; \
                { ip -o -6 addr; ip -6 route show table all; } | grep -v 'fe80::\\|ff00::\\|anycast' | sort; ip -6 rule | sort; \
                ip -6 neigh show nud permanent | sort; nft list ruleset | sort; cd /proc/sys/net/ipv6/conf; \
                for d in *; do echo $d $(cat $d/disable_ipv6 $d/forwarding $d/accept_ra $d/addr_gen_mode); done";
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

/// Drops all capabilities of the calling thread except `CAP_NET_ADMIN`, permanently. Capabilities belong to threads;
/// libc has no wrapper that would apply this to the other threads.
pub(crate) fn keep_only_net_admin() {
    const VERSION_3: u32 = 0x2008_0522;
    const NET_ADMIN: u32 = 1 << 12;
    let header = [VERSION_3, 0];
    // Effective, permitted, inheritable; twice, for capabilities 0–31 and 32–63.
    let data = [NET_ADMIN, NET_ADMIN, 0, 0, 0, 0];
    #[expect(unsafe_code, reason = "a system call that neither nix nor std wraps")]
    // SAFETY: both arrays have the layout of `cap_user_header_t` and of two `cap_user_data_t`, and outlive the call;
    // the kernel only writes the version into the header if it does not know it.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    assert_eq!(
        result,
        0,
        "dropping capabilities: {}",
        std::io::Error::last_os_error()
    );
}
