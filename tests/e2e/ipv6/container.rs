//! A daemon that sees `/proc/sys` as in a container without privileges: read-only, but for what the chart mounts.

use crate::{
    suite::{Outcome, trials},
    support::ipv6::{SIX, pods, start},
};

trials!(
    a_setting_that_cannot_be_written_is_named,
    the_chart_mounts_what_must_be_written,
);

/// Runs a command in a mount namespace of its own, in which `/proc/sys` is read-only.
const READ_ONLY: &str = "mount --bind /proc/sys /proc/sys
    mount -o remount,bind,ro /proc/sys
    exec \"$@\"";

/// The same with `/proc/sys/net` as the host has it.
const NET_WRITABLE: &str = "mount -t tmpfs none /mnt
    mkdir /mnt/net
    mount --bind /proc/sys/net /mnt/net
    mount --bind /proc/sys /proc/sys
    mount -o remount,bind,ro /proc/sys
    mount --bind /mnt/net /proc/sys/net
    exec \"$@\"";

fn within(script: &str) -> [&str; 6] {
    ["unshare", "--mount", "sh", "-euc", script, "container"]
}

fn a_setting_that_cannot_be_written_is_named() -> Outcome {
    let lab = start()?;
    let mut node = lab.bare_node("t3.small", &SIX)?;
    let started = node.start_daemon_under(&within(READ_ONLY), &lab.sim.ec2_endpoint());
    let told = started.map_err(|error| error.to_string());
    let told = told.expect_err("the settings of a new node are not those that pods need");
    let wanted = "is not 2 and cannot be written: set it on the node: Read-only file system";
    assert!(
        told.contains("accept_ra") && told.contains(wanted),
        "{told}"
    );
    // The operator does what the error says.
    node.shell(
        "for d in /proc/sys/net/ipv6/conf/*; do echo 2 > $d/accept_ra; done
         echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
         echo 1 > /proc/sys/net/ipv4/ip_forward",
    )?;
    node.start_daemon_under(&within(READ_ONLY), &lab.sim.ec2_endpoint())?;
    Ok(())
}

fn the_chart_mounts_what_must_be_written() -> Outcome {
    let lab = start()?;
    let mut node = lab.bare_node("t3.small", &SIX)?;
    node.start_daemon_under(&within(NET_WRITABLE), &lab.sim.ec2_endpoint())?;
    assert_eq!(pods(&node, 2)?.len(), 2);
    let forwarding = node.shell("cat /proc/sys/net/ipv6/conf/all/forwarding")?;
    assert_eq!(forwarding.trim(), "1");
    Ok(())
}
