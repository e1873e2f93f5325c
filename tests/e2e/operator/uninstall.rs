//! `ipamd uninstall` on a node: it refuses while the daemon or pods would lose their network, and can be forced.

use std::{fs, io, process::Output};

use lab::{
    Lab,
    node::{Node, binaries},
};
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(a_node_with_pods_is_cleaned_by_force_only);

/// Each line is something of Hawser's. The simulated instance's own routes in the table main have the same protocol.
const LEFT: &str = "ip rule | grep 'proto 107' || true
     ip route show table all proto 107 | grep ' table ' || true
     nft list tables | grep hawser || true
     ip -o link | grep -o ' eni[0-9a-f]*@' || true";

fn uninstall(lab: &Lab, node: &Node, more: &[&str]) -> io::Result<Output> {
    node.ask(&lab.sim.ec2_endpoint(), &[&["uninstall"], more].concat())
}

fn a_node_with_pods_is_cleaned_by_force_only() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let directories = ["net.d", "bin"].map(|name| lab.dir().join(name));
    directories.iter().try_for_each(fs::create_dir)?;
    let [conf, bin] = [0, 1].map(|n| directories[n].display().to_string());
    let settings = [
        ("HOST_CNI_CONFDIR_PATH", conf.as_str()),
        ("HOST_CNI_BIN_PATH", bin.as_str()),
    ];
    let mut node = lab.node("t3.small", &settings)?;
    fs::copy(binaries::plugin(), directories[1].join("hawser"))?;
    let conflist = directories[0].join("10-aws.conflist");
    let _pod = node.add_pod("web")?;
    for refusal in [
        "ipamd is still running on this node",
        "1 pods with Hawser's addresses run on this node (lab/pod-web)",
    ] {
        let refused = uninstall(&lab, &node, &[])?;
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(
            !refused.status.success() && told.contains(refusal),
            "{told}"
        );
        assert!(conflist.exists(), "nothing is removed by halves");
        assert_ne!(node.shell(LEFT)?, "");
        node.stop_daemon()?;
    }
    for _ in 0..2 {
        let done = uninstall(&lab, &node, &["--force"])?;
        assert!(done.status.success(), "{done:?}");
        assert_eq!(node.shell(LEFT)?, "");
        for directory in &directories {
            assert_eq!(fs::read_dir(directory)?.count(), 0, "{directory:?}");
        }
        assert!(!node.state_file().exists());
    }
    Ok(())
}
