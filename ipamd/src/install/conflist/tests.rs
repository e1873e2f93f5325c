//! The file on a disk: written, repaired, left alone, and taken over from others.

use super::*;

/// A directory for this test, which is deleted with the value.
struct Scratch {
    keeper: Keeper,
    now: Mono,
}

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("hawser-conflist-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let conflist = Conflist {
            plugins: directory.join("bin"),
            directory: directory.join("net.d"),
            pods: PodSettings::default(),
            socket: "/run/hawser/ipamd.sock".into(),
            network: Network {
                eni_mtu: 9001,
                pod_mtu: 1500,
                veth_prefix: "eni".into(),
                block_pod_imds: false,
            },
            family: Family::V4,
            metrics: Arc::new(Metrics::new()),
        };
        fs::create_dir_all(directory.join("net.d")).unwrap();
        fs::create_dir_all(directory.join("bin")).unwrap();
        let mut keeper = conflist.keeper();
        keeper.aws_node_runs = || false;
        Self {
            keeper,
            now: Mono::from_epoch(Duration::from_secs(1000)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.keeper.directory.join(name)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path(NAME)).unwrap()
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Five seconds later.
    fn look(&mut self) {
        self.now = self.now + LOOK;
        self.keeper.look(self.now);
    }

    fn names(&self) -> Vec<OsString> {
        let entries = fs::read_dir(&self.keeper.directory).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let parent = self.keeper.directory.parent().unwrap();
        fs::remove_dir_all(parent).unwrap();
    }
}

const AWS: &str = r#"{"cniVersion":"0.4.0","name":"aws-cni","plugins":[{"type":"aws-cni"},{"type":"egress-cni"}]}"#;

#[test]
fn the_file_is_written_once_and_whole() {
    let mut scratch = Scratch::new("whole");
    scratch.look();
    let read: Value = serde_json::from_str(&scratch.text()).unwrap();
    assert_eq!(read["plugins"][0]["mtu"], 1500);
    assert_eq!(scratch.names(), [NAME]);
    let written = fs::metadata(scratch.path(NAME))
        .unwrap()
        .modified()
        .unwrap();
    scratch.look();
    assert_eq!(
        fs::metadata(scratch.path(NAME))
            .unwrap()
            .modified()
            .unwrap(),
        written
    );
}

#[test]
fn fault_47_a_deleted_or_truncated_file_is_written_again() {
    let mut scratch = Scratch::new("again");
    scratch.look();
    let whole = scratch.text();
    fs::remove_file(scratch.path(NAME)).unwrap();
    scratch.look();
    assert_eq!(scratch.text(), whole);
    scratch.put(NAME, &whole[..20]);
    scratch.look();
    assert_eq!(scratch.text(), whole);
}

#[test]
fn case_09_an_installer_and_the_daemon_live_in_peace() {
    let mut scratch = Scratch::new("peace");
    scratch.look();
    let mut list: Value = serde_json::from_str(&scratch.text()).unwrap();
    let plugins = list["plugins"].as_array_mut().unwrap();
    plugins.push(json!({ "type": "istio-cni", "log_level": "info" }));
    scratch.put(NAME, &list.to_string());
    for _ in 0..5 {
        scratch.look();
        assert_eq!(scratch.text(), list.to_string(), "not one byte is changed");
    }
}

#[test]
fn the_same_damage_is_repaired_once_a_minute() {
    let mut scratch = Scratch::new("fight");
    scratch.look();
    let theirs = r#"{"name":"aws-cni","plugins":[{"type":"other"}]}"#;
    let mut repairs = 0;
    for _ in 0..24 {
        scratch.put(NAME, theirs);
        scratch.look();
        repairs += i32::from(scratch.text() != theirs);
    }
    assert_eq!(repairs, 2, "two minutes");
    scratch.put(NAME, "{");
    scratch.look();
    assert_ne!(scratch.text(), "{", "another damage is repaired at once");
}

#[test]
fn the_file_of_an_earlier_release_becomes_ours_with_its_neighbours() {
    let mut scratch = Scratch::new("former");
    let mut old = json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": "hawser",
        "plugins": [
            { "type": "hawser", "socket": "/run/hawser/ipamd.sock", "vethPrefix": "eni", "mtu": 1500 },
            { "type": "mesh" },
        ],
    });
    scratch.put(FORMER_NAME, &old.to_string());
    scratch.look();
    assert_eq!(scratch.names(), [NAME]);
    let list: Value = serde_json::from_str(&scratch.text()).unwrap();
    assert_eq!(list["name"], "aws-cni");
    old["plugins"][0]["capabilities"] = json!({ "portMappings": true });
    assert_eq!(list["plugins"], old["plugins"]);
    // Back to the earlier release, and forward again.
    scratch.put(
        FORMER_NAME,
        r#"{"name":"hawser","plugins":[{"type":"hawser"}]}"#,
    );
    scratch.look();
    assert_eq!(scratch.names(), [NAME]);
}

#[test]
fn the_file_of_a_running_aws_node_is_left_alone_and_of_one_that_is_gone_is_kept() {
    let mut scratch = Scratch::new("aws");
    scratch.put(NAME, AWS);
    scratch.keeper.aws_node_runs = || true;
    scratch.look();
    assert_eq!(scratch.text(), AWS);
    assert!(scratch.keeper.told.is_some(), "it is reported");
    scratch.keeper.aws_node_runs = || false;
    scratch.look();
    let list: Value = serde_json::from_str(&scratch.text()).unwrap();
    assert_eq!(list["plugins"].as_array().unwrap().len(), 1);
    assert_eq!(list["plugins"][0]["type"], "hawser");
    let kept = fs::read_to_string(scratch.path("10-aws.conflist.aws-node")).unwrap();
    assert_eq!(kept, AWS);
}

/// What the list of a node shall have on which these plugins are installed; `None`: its plugins cannot be seen.
fn wanted(name: &str, installed: Option<&[&str]>, pods: PodSettings) -> Wanted {
    let scratch = Scratch::new(name);
    let bin = scratch.keeper.directory.with_file_name("bin");
    match installed {
        Some(kinds) => kinds
            .iter()
            .for_each(|kind| fs::write(bin.join(kind), "").unwrap()),
        None => fs::remove_dir(&bin).unwrap(),
    }
    let conflist = Conflist {
        directory: scratch.keeper.directory.clone(),
        plugins: bin,
        pods,
        socket: "/run/hawser/ipamd.sock".into(),
        network: Network {
            eni_mtu: 9001,
            pod_mtu: 9001,
            veth_prefix: "eni".into(),
            block_pod_imds: false,
        },
        family: Family::V6,
        metrics: Arc::new(Metrics::new()),
    };
    conflist.wanted()
}

#[test]
fn host_ports_and_bandwidth_are_declared_and_an_installed_portmap_is_not_removed() {
    let pods = PodSettings {
        limit_bandwidth: true,
        disable_ipv6: false,
    };
    let both = wanted("natives", Some(&["portmap"]), pods);
    assert_eq!(both.plugin["ipv6"], true);
    assert_eq!(both.capabilities, ["portMappings", "bandwidth"]);
    assert_eq!(both.companions, [0; 0]);
    assert_eq!(both.unwanted, [chain::bandwidth(), chain::tuning()]);
    // Nothing is removed because of what the daemon cannot see.
    let unseen = wanted("unseen", None, pods);
    assert_eq!(unseen.unwanted, [chain::tuning()]);
    let unlimited = wanted("unlimited", Some(&["bandwidth"]), PodSettings::default());
    assert_eq!(unlimited.capabilities, ["portMappings"]);
    assert!(unlimited.unwanted.contains(&chain::bandwidth()));
}

#[test]
fn tuning_is_added_where_it_is_installed() {
    let pods = PodSettings {
        limit_bandwidth: true,
        disable_ipv6: true,
    };
    let there = wanted("tuning", Some(&["tuning"]), pods);
    assert_eq!(there.companions, [chain::tuning()]);
    let absent = wanted("no-tuning", Some(&[]), pods);
    assert_eq!(absent.companions, [0; 0]);
    assert!(absent.unwanted.contains(&chain::tuning()));
}

#[test]
fn fault_47_a_file_that_sorts_first_is_reported_and_not_changed() {
    let mut scratch = Scratch::new("rival");
    for name in [
        "05-other.conflist",
        "06-another.conf",
        "00-notes.txt",
        "99-later.conflist",
    ] {
        scratch.put(name, "{}");
    }
    scratch.look();
    assert_eq!(scratch.keeper.rival, Some("05-other.conflist".into()));
    let rival = scratch.path("05-other.conflist");
    assert_eq!(fs::read_to_string(&rival).unwrap(), "{}");
    fs::remove_file(rival).unwrap();
    scratch.look();
    assert_eq!(scratch.keeper.rival, Some("06-another.conf".into()));
    fs::remove_file(scratch.path("06-another.conf")).unwrap();
    scratch.look();
    assert_eq!(scratch.keeper.rival, None);
}

/// Multus' configuration, as its installer writes it.
#[test]
fn a_meta_plugin_that_leads_to_our_network_is_no_rival() {
    let mut scratch = Scratch::new("meta");
    let file = "/host/etc/cni/net.d/10-aws.conflist";
    let by_file = json!({ "type": "multus-shim", "clusterNetwork": file });
    let ours = json!({ "name": "aws-cni", "plugins": [{ "type": "hawser" }] });
    let delegates = json!({ "type": "multus", "delegates": [ours] });
    for text in [by_file, delegates] {
        scratch.put("00-multus.conf", &text.to_string());
        scratch.look();
        assert_eq!(scratch.keeper.rival, None, "{text}");
    }
    scratch.put("00-multus.conf", r#"{ "clusterNetwork": "other" }"#);
    scratch.look();
    assert_eq!(scratch.keeper.rival, Some("00-multus.conf".into()));
}
