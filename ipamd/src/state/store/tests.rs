//! The state file: reopened, damaged, of another boot or version, and in use by another daemon.

use std::time::Duration;

use nettypes::{Bandwidth, HostPort, RateLimit, Transport};
use planner::{AttachmentId, SubnetId, event::EniAttachment};

use super::*;

fn record(container: &str, address: [u8; 4]) -> Record {
    Record {
        sandbox: Sandbox {
            network: "hawser".into(),
            container_id: container.into(),
            ifname: "eth0".into(),
        },
        pod: Pod {
            namespace: Some("default".into()),
            name: Some("web-0".into()),
            uid: Some("u".into()),
        },
        address: address.into(),
        eni: EniId::from("eni-1"),
        index: nettypes::EniIndex::new(1).unwrap(),
        host_name: "eni0123456789a".into(),
        host_mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        pod_mac: Some(Mac([2, 0, 0, 0, 0, 2])),
        mtu: Some(9001),
        secondary: false,
        asked: nettypes::Asked::default(),
        egress: Some([169, 254, 172, 9].into()),
    }
}

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hawser-store-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self) -> PathBuf {
        self.0.join("state")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn identity() -> Identity {
    Identity {
        instance: "i-1".into(),
        instance_type: "m5.large".into(),
        region: "eu-west-1".into(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        address: [10, 0, 0, 4].into(),
        subnet: SubnetId::from("subnet-1"),
        subnet_cidr: "10.0.0.0/24".parse().unwrap(),
        security_groups: vec!["sg-1".into()],
    }
}

#[test]
fn a_record_and_a_cooldown_survive_reopening() {
    let place = Place::new("survive");
    let (kept, gone) = (record("a", [10, 0, 0, 5]), record("b", [10, 0, 0, 6]));
    let until = Mono::from_epoch(Duration::from_millis(1234));
    let (store, contents) = Store::open(&place.file(), "boot-1").unwrap();
    assert!(contents.records.is_empty());
    store.put(&kept).unwrap();
    store.put(&gone).unwrap();
    store.release(&gone, until).unwrap();
    drop(store);
    let (_, contents) = Store::open(&place.file(), "boot-1").unwrap();
    assert_eq!(contents.records, [kept]);
    assert_eq!(contents.cooling, [(gone.address, until)]);
}

#[test]
fn what_a_pod_asked_for_survives_reopening() {
    let place = Place::new("asked");
    let ports = vec![
        HostPort {
            transport: Transport::Sctp,
            port: 65535,
            address: Some("fd00::5".parse().unwrap()),
            pod_port: 1,
        },
        HostPort {
            transport: Transport::Udp,
            port: 53,
            address: None,
            pod_port: 5353,
        },
    ];
    let bandwidth = Bandwidth {
        ingress: None,
        egress: Some(RateLimit {
            rate: u64::MAX,
            burst: 4_294_967_295,
        }),
    };
    let asking = Record {
        asked: Asked { ports, bandwidth },
        ..record("a", [10, 0, 0, 5])
    };
    let (store, _) = Store::open(&place.file(), "boot").unwrap();
    store.put(&asking).unwrap();
    drop(store);
    let (_store, contents) = Store::open(&place.file(), "boot").unwrap();
    assert_eq!(contents.records, [asking]);
}

/// Both directions of an upgrade: an earlier release reads only keys that it knows, and writes fewer.
#[test]
fn a_record_that_asks_for_nothing_is_written_as_before() {
    let plain = record("a", [10, 0, 0, 5]);
    let text = schema::of_record(&plain);
    for key in ["ports", "ingress", "egress"] {
        assert!(!text.contains(key), "{text}");
    }
    assert_eq!(schema::to_record(&text), Some(plain));
}

#[test]
fn the_learnt_demand_survives_reopening() {
    let place = Place::new("demand");
    let demand = Demand {
        bursts: vec![(2, 0.5), (40, 1.25)],
        surge: 97.5,
        delivery: Some(Duration::from_millis(7250)),
        at: Mono::from_epoch(Duration::from_millis(86_400_123)),
    };
    let (store, contents) = Store::open(&place.file(), "boot-1").unwrap();
    assert_eq!(contents.demand, None);
    store.remember_demand(&demand).unwrap();
    drop(store);
    let (_, contents) = Store::open(&place.file(), "boot-1").unwrap();
    assert_eq!(contents.demand, Some(demand));
}

#[test]
fn granting_an_address_ends_its_cooldown_in_the_same_transaction() {
    let place = Place::new("regrant");
    let (store, _) = Store::open(&place.file(), "boot-1").unwrap();
    let first = record("a", [10, 0, 0, 5]);
    store.put(&first).unwrap();
    store.release(&first, Mono::ZERO).unwrap();
    store.put(&record("b", [10, 0, 0, 5])).unwrap();
    drop(store);
    assert!(
        Store::open(&place.file(), "boot-1")
            .unwrap()
            .1
            .cooling
            .is_empty()
    );
}

#[test]
fn a_second_daemon_is_kept_out() {
    let place = Place::new("lock");
    let _held = Store::open(&place.file(), "boot-1").unwrap();
    assert!(matches!(
        Store::open(&place.file(), "boot-1"),
        Err(StoreError::Locked { .. })
    ));
}

#[test]
fn a_file_of_another_boot_is_set_aside() {
    let place = Place::new("boot");
    let (store, _) = Store::open(&place.file(), "boot-1").unwrap();
    store.put(&record("a", [10, 0, 0, 5])).unwrap();
    drop(store);
    let (_, contents) = Store::open(&place.file(), "boot-2").unwrap();
    assert!(contents.records.is_empty());
    assert!(place.file().with_extension("boot").exists());
}

/// What a stopped and started instance reads again: its type and its device numbers may have changed.
#[test]
fn fault_51_another_boot_remembers_neither_instance_type_nor_enis() {
    let place = Place::new("type");
    let (store, _) = Store::open(&place.file(), "boot-1").unwrap();
    store.remember_identity(&identity()).unwrap();
    drop(store);
    let (_, contents) = Store::open(&place.file(), "boot-2").unwrap();
    assert_eq!((contents.identity, contents.enis), (None, vec![]));
}

#[test]
fn fault_36_a_file_of_another_version_is_set_aside() {
    for version in ["0", "2", ""] {
        let place = Place::new(&format!("version-{version}"));
        let (store, _) = Store::open(&place.file(), "boot-1").unwrap();
        store.put(&record("a", [10, 0, 0, 5])).unwrap();
        store.remember("version", version).unwrap();
        drop(store);
        let (_, contents) = Store::open(&place.file(), "boot-1").unwrap();
        assert!(contents.records.is_empty(), "{version}");
        assert!(place.file().with_extension("version").exists(), "{version}");
    }
}

/// A file whose last write did not reach the disk: every possible length.
#[test]
fn fault_38_a_truncated_file_is_read_completely_or_set_aside() {
    let place = Place::new("cut");
    let (store, _) = Store::open(&place.file(), "boot-1").unwrap();
    store.put(&record("a", [10, 0, 0, 5])).unwrap();
    drop(store);
    let whole = std::fs::read(place.file()).unwrap();
    for part in 0..16 {
        let cut = Place::new(&format!("cut-{part}"));
        std::fs::write(cut.file(), &whole[..whole.len() * part / 16]).unwrap();
        let (store, contents) = Store::open(&cut.file(), "boot-1").unwrap();
        assert!(contents.records.len() <= 1, "{part}");
        // In any case, it works from now on.
        store.put(&record("b", [10, 0, 0, 6])).unwrap();
    }
}

#[test]
fn a_corrupt_file_is_kept_for_study_and_replaced() {
    let place = Place::new("corrupt");
    std::fs::write(place.file(), b"this is not a database").unwrap();
    let (store, contents) = Store::open(&place.file(), "boot-1").unwrap();
    assert!(contents.records.is_empty());
    store.put(&record("a", [10, 0, 0, 5])).unwrap();
    assert_eq!(
        std::fs::read(place.file().with_extension("corrupt")).unwrap(),
        b"this is not a database"
    );
}

#[test]
fn reading_a_damaged_file_is_an_error() {
    const PAGE: usize = 4096;
    let place = Place::new("peek");
    let (store, _) = Store::open(&place.file(), "boot-1").unwrap();
    store.put(&record("a", [10, 0, 0, 5])).unwrap();
    drop(store);
    let whole = std::fs::read(place.file()).unwrap();
    let mut told = 0;
    for page in 0..whole.len() / PAGE {
        let mut damaged = whole.clone();
        damaged[page * PAGE] = 0x98;
        std::fs::write(place.file(), damaged).unwrap();
        told += usize::from(read_only::peek(&place.file()).is_err());
    }
    assert!(told > 1, "no page mattered");
}

/// The state after starts that were killed while they opened the file.
fn deaths(place: &Place, number: u64) {
    let lock = std::fs::File::create(place.file().with_extension("lock")).unwrap();
    lock.set_len(number).unwrap();
}

#[test]
fn fault_36_a_file_that_two_starts_died_over_is_kept_for_study_and_replaced() {
    let place = Place::new("fatal");
    let kept = record("a", [10, 0, 0, 5]);
    let (store, _) = Store::open(&place.file(), "boot-1").unwrap();
    store.put(&kept).unwrap();
    drop(store);
    // One death is not attributed to the file, and a complete start resets the count.
    for _ in 0..2 {
        deaths(&place, 1);
        let (_, contents) = Store::open(&place.file(), "boot-1").unwrap();
        assert_eq!(contents.records, std::slice::from_ref(&kept));
    }
    deaths(&place, 2);
    let (store, contents) = Store::open(&place.file(), "boot-1").unwrap();
    assert!(contents.records.is_empty());
    store.put(&record("b", [10, 0, 0, 6])).unwrap();
    drop(store);
    let (_, contents) = Store::open(&place.file(), "boot-1").unwrap();
    assert_eq!(contents.records, [record("b", [10, 0, 0, 6])]);
    let aside = place.file().with_extension("fatal");
    let (contents, _) = read_only::peek(&aside).unwrap();
    assert_eq!(contents.records, [kept]);
}

#[test]
fn a_refused_start_does_not_count_as_a_death() {
    let place = Place::new("refused");
    // The system's error, not the database's.
    std::fs::create_dir(place.file()).unwrap();
    for _ in 0..3 {
        assert!(matches!(
            Store::open(&place.file(), "boot-1"),
            Err(StoreError::Io {
                operation: "open",
                ..
            })
        ));
    }
    assert!(place.file().exists());
}

#[test]
fn identity_and_enis_survive_reopening() {
    let place = Place::new("notes");
    let me = identity();
    let eni = Observed {
        eni: EniId::from("eni-1"),
        mac: me.mac,
        subnet: me.subnet.clone(),
        subnet_cidr: Some(me.subnet_cidr),
        security_groups: Vec::new(),
        primary: me.address,
        addresses: vec![[10, 0, 0, 5].into()],
        prefixes: vec!["10.0.0.16/28".parse().unwrap()],
        attached: Some(EniAttachment {
            id: AttachmentId::from("eni-attach-1"),
            card: 0,
            device: 0,
            settled: true,
        }),
        managed: true,
        tagged_ours: false,
    };
    let (store, contents) = Store::open(&place.file(), "boot-1").unwrap();
    assert!(
        contents.identity.is_none() && contents.enis.is_empty() && contents.vpc_blocks.is_empty()
    );
    store.remember_identity(&me).unwrap();
    store.remember_enis(std::slice::from_ref(&eni)).unwrap();
    let blocks = vec!["10.0.0.0/16".parse().unwrap()];
    store.remember_vpc_blocks(&blocks).unwrap();
    drop(store);
    let (_, contents) = Store::open(&place.file(), "boot-1").unwrap();
    assert_eq!((contents.identity, contents.enis), (Some(me), vec![eni]));
    assert_eq!(contents.vpc_blocks, blocks);
}

#[test]
fn an_intent_stays_until_it_is_settled_by_its_token_or_its_eni() {
    let place = Place::new("intents");
    let (store, _) = Store::open(&place.file(), "boot-1").unwrap();
    for token in ["token-1", "token-2", "token-3"] {
        store.intend(token, None).unwrap();
    }
    store
        .intend("token-2", Some(&EniId::from("eni-2")))
        .unwrap();
    store.settle("token-1").unwrap();
    store.settle("eni-2").unwrap();
    drop(store);
    assert_eq!(
        Store::open(&place.file(), "boot-1").unwrap().1.intents,
        ["token-3"]
    );
}
