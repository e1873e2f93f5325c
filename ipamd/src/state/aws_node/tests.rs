//! Recorded checkpoints and those of other releases, read and written again.

use serde_json::Value;

use super::*;

/// Recorded on nodes of release 1.23, cut to six pods each.
const RECORDED: [&str; 2] = [
    include_str!("fixtures/secondary-ip.json"),
    include_str!("fixtures/prefix.json"),
];
/// An entry that was taken over from the runtime, one without a count of interfaces, one of IPv6, one of a pod on two cards.
const ODDITIES: &str = include_str!("fixtures/oddities.json");

fn read(text: &str) -> Checkpoint {
    parse(text, Path::new("ipam.json")).unwrap()
}

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("hawser-aws-node-{}-{name}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn what_is_read_and_written_again_means_the_same() {
    for text in RECORDED.into_iter().chain([ODDITIES]) {
        let written = serde_json::to_string(&read(text)).unwrap();
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(&written), value(text));
        // In the order in which Go writes them, too.
        let compact: String = text.split_whitespace().collect();
        assert_eq!(written, compact);
    }
}

#[test]
fn a_recorded_entry_is_understood() {
    let first = &read(RECORDED[0]).allocations[0];
    assert_eq!(first.address(), Some([10, 0, 11, 82].into()));
    assert_eq!(first.pod(), Some(("default", "aw-7bff4b56dc-dd9n7")));
    assert_eq!(first.sandbox().network, "aws-cni");
    assert_eq!(first.metadata.interfaces, 1);
}

#[test]
fn entries_of_other_releases_are_understood() {
    let odd = read(ODDITIES).allocations;
    assert_eq!(
        (odd[0].network.as_str(), odd[0].pod()),
        (MIGRATED_NETWORK, None)
    );
    assert_eq!(odd[1].metadata.interfaces, 0);
    assert!(odd[2].address().is_some_and(|address| address.is_ipv6()));
    assert_eq!(odd[3].metadata.interfaces, 2);
    let none = read(r#"{"version":"vpc-cni-ipam/1","allocations":null}"#);
    assert_eq!(none.allocations, []);
}

#[test]
fn another_version_and_damage_are_named() {
    let fails = |text| parse(text, Path::new("/x/ipam.json")).unwrap_err();
    let version = fails(r#"{"version":"vpc-cni-ipam/2","allocations":[]}"#).to_string();
    assert!(
        version.contains("/x/ipam.json has version \"vpc-cni-ipam/2\""),
        "{version}"
    );
    for damaged in ["", "{", r#"{"version":"vpc-cni-ipam/1"}"#, "[]"] {
        let text = fails(damaged).to_string();
        assert!(text.contains("is not a checkpoint"), "{damaged}: {text}");
    }
}

#[test]
fn every_card_has_its_file_and_all_are_set_aside() {
    let directory = directory("cards");
    assert_eq!(read_all(&directory.join("missing")).unwrap(), []);
    let entries = read(ODDITIES).allocations;
    for card in [0, 3] {
        write(&directory, card, entries.clone()).unwrap();
    }
    fs::write(directory.join("ipam.json.tmp123"), "cut off").unwrap();
    fs::write(directory.join("ipamd.sock"), "").unwrap();
    let found = read_all(&directory).unwrap();
    assert_eq!(
        found.iter().map(|(card, _)| *card).collect::<Vec<_>>(),
        [0, 3]
    );
    assert!(found.iter().all(|(_, file)| file.allocations == entries));
    set_aside(&directory).unwrap();
    assert_eq!(read_all(&directory).unwrap(), []);
    assert_eq!(read_aside(&directory), entries);
    let left = fs::read_dir(&directory).unwrap();
    let mut left: Vec<_> = left.map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(
        left,
        [
            "ipam-nic-3.json.taken-over",
            "ipam.json.taken-over",
            "ipamd.sock"
        ]
    );
    // A repetition changes nothing.
    set_aside(&directory).unwrap();
    assert_eq!(read_aside(&directory), entries);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_guard_stands_in_for_the_checkpoint_and_is_none() {
    let directory = directory("guard");
    guard(&directory.join("missing")).unwrap();
    guard(&directory).unwrap();
    assert_eq!(read_all(&directory).unwrap(), []);
    set_aside(&directory).unwrap();
    let file = path(&directory, 0);
    let text = fs::read_to_string(&file).unwrap();
    // The AWS VPC CNI refuses every version but its own.
    assert!(matches!(
        parse(&text, &file),
        Err(CheckpointError::Version { .. })
    ));
    unguard(&directory).unwrap();
    assert!(!file.exists());
    // A checkpoint stays as it is.
    let entries = read(ODDITIES).allocations;
    write(&directory, 0, entries.clone()).unwrap();
    guard(&directory).unwrap();
    unguard(&directory).unwrap();
    assert_eq!(read_all(&directory).unwrap()[0].1.allocations, entries);
    fs::remove_dir_all(directory).unwrap();
}
