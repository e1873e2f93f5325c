//! Anything that may be in the state file after a failure of the disk or the kernel, or from another release.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use planner::{EniId, Mac, Mono, Pod, Sandbox};

use crate::state::store::{Record, Store, schema};

const BOOT: &str = "0b3f7a7e-3f0b-4a39-9a0e-0f4f6d1c2b3a";

/// The first byte of `input` selects what the rest is: texts of records, a whole file, or damage to a valid file,
/// either closed or left open by a killed daemon.
pub fn store(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let (closed, open) = good();
    match kind % 4 {
        0 => texts(bytes),
        1 => opens(bytes),
        2 => opens(&damaged(closed, bytes)),
        _ => opens(&damaged(open, bytes)),
    }
}

fn texts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(record) = schema::to_record(text) {
        assert_eq!(schema::to_record(&schema::of_record(&record)), Some(record));
    }
    if let Some(enis) = schema::to_enis(text) {
        assert!(schema::to_enis(&schema::of_enis(&enis)).is_some());
    }
    if let Some(list) = schema::to_subnets(text) {
        assert_eq!(schema::to_subnets(&schema::of_subnets(&list)), Some(list));
    }
    if let Some(class) = schema::to_class(text) {
        let written = schema::of_class(&class).expect("it names its subnets");
        assert_eq!(schema::to_class(&written), Some(class));
    }
    if let Some(me) = schema::to_identity(text) {
        assert_eq!(schema::to_identity(&schema::of_identity(&me)), Some(me));
    }
}

/// Whatever the file contains, the daemon must start, and its own writes must be kept.
fn opens(bytes: &[u8]) {
    let directory = Directory::new();
    let path = directory.0.join("state");
    fs::write(&path, bytes).expect("a file can be written");
    let (store, before) =
        Store::open(&path, BOOT).expect("a file that cannot be used is set aside");
    store
        .put(&record(99))
        .expect("an opened file takes changes");
    drop(store);
    let (_store, after) = Store::open(&path, BOOT).expect("it opens again");
    assert!(after.records.len() <= before.records.len() + 1);
    assert!(after.records.contains(&record(99)));
}

/// `damage` is a list of patches: offset (three bytes), length (one byte), and the replacement.
fn damaged(good: &[u8], mut damage: &[u8]) -> Vec<u8> {
    let mut file = good.to_vec();
    while let [a, b, c, length, rest @ ..] = damage {
        let at = (usize::from(*a) << 16) | (usize::from(*b) << 8) | usize::from(*c);
        let at = at % file.len();
        let length = usize::from(*length).min(rest.len()).min(file.len() - at);
        file[at..at + length].copy_from_slice(&rest[..length]);
        damage = &rest[length..];
    }
    file
}

/// The bytes of a closed file, and of one in use.
fn good() -> &'static (Vec<u8>, Vec<u8>) {
    static GOOD: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    GOOD.get_or_init(|| {
        let directory = Directory::new();
        let path = directory.0.join("state");
        let (store, _) = Store::open(&path, BOOT).expect("a new file");
        for n in 0..40 {
            store.put(&record(n)).expect("a record");
        }
        let until = Mono::from_epoch(Duration::from_secs(3600));
        store.release(&record(7), until).expect("a release");
        store
            .intend("token", Some(&EniId::from("eni-1")))
            .expect("an intent");
        let open = fs::read(&path).expect("its bytes");
        drop(store);
        (fs::read(&path).expect("its bytes"), open)
    })
}

fn record(n: u8) -> Record {
    Record {
        sandbox: Sandbox {
            network: "hawser".into(),
            container_id: format!("{n:064x}"),
            ifname: "eth0".into(),
        },
        pod: Pod {
            namespace: Some("default".into()),
            name: Some(format!("pod-{n}")),
            uid: None,
        },
        address: [10, 0, 0, n].into(),
        eni: EniId::from("eni-0123456789abcdef0"),
        index: nettypes::EniIndex::PRIMARY,
        host_name: format!("eni{n:011x}"),
        host_mac: Some(Mac([2, 0, 0, 0, 0, n])),
        pod_mac: Some(Mac([2, 0, 0, 0, 1, n])),
        mtu: Some(9001),
        secondary: false,
        asked: nettypes::Asked::default(),
        egress: None,
    }
}

/// A directory that is deleted with the value.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hawser-store-{}-{number}", std::process::id());
        let path = fast_directory().join(name);
        fs::create_dir_all(&path).expect("a directory can be made");
        Self(path)
    }
}

/// In memory if possible, because a commit waits for the disk.
fn fast_directory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_store_corpus_causes_no_panic() {
        crate::runtime::corpus::replay("store", super::store);
    }
}
