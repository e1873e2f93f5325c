//! Tests with real namespaces.

use std::fs::File;
use std::os::fd::AsFd;

use super::*;
use crate::netlink::Socket;
use crate::testing::netns;

#[test]
fn a_fresh_namespace_is_another_one_with_its_loopback_up() {
    let here = Netns::current().unwrap();
    let fresh = netns();
    assert_ne!(fresh.id(), here.id());
    let links = Socket::open_in(&fresh).unwrap().links().unwrap();
    assert_eq!(
        links
            .iter()
            .map(|l| (l.index, l.name.as_str(), l.up))
            .collect::<Vec<_>>(),
        [(1, "lo", true)]
    );
    assert_eq!(
        Netns::current().unwrap().id(),
        here.id(),
        "the caller's thread stays where it was"
    );
}

#[test]
fn run_is_inside_and_the_caller_stays_outside() {
    let fresh = netns();
    let inside = fresh.run(|| Netns::current().unwrap().id()).unwrap();
    assert_eq!(inside, fresh.id());
    assert_ne!(Netns::current().unwrap().id(), fresh.id());
}

#[test]
fn a_panic_in_a_namespace_reaches_the_caller_outside() {
    let fresh = netns();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fresh.run(|| panic!("inside"))
    }));
    assert_eq!(
        caught.err().and_then(|p| p.downcast_ref::<&str>().copied()),
        Some("inside")
    );
    assert_ne!(Netns::current().unwrap().id(), fresh.id());
}

#[test]
fn a_bound_namespace_is_found_again_and_gone_after_unbind() {
    let fresh = netns();
    let path = std::env::temp_dir().join(format!("datapath-netns-{}", std::process::id()));
    fresh.bind(&path).unwrap();
    assert_eq!(
        fresh.bind(&path).unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(Netns::open(&path).unwrap().id(), fresh.id());
    Netns::unbind(&path).unwrap();
    assert!(matches!(Netns::open(&path), Err(NetnsError::Open { .. })));
}

#[test]
fn other_kinds_of_files_are_refused_as_network_namespaces() {
    let magic = |e| match e {
        NetnsError::NotANamespace { magic, .. } => Some(magic),
        _ => None,
    };
    assert_ne!(
        magic(Netns::open(Path::new("/dev/null")).unwrap_err()),
        None
    );
    let mount = Netns::open(Path::new("/proc/self/ns/mnt")).unwrap_err();
    assert!(
        matches!(
            mount,
            NetnsError::OtherNamespace {
                nstype: libc::CLONE_NEWNS
            }
        ),
        "{mount}"
    );
    let absent = Netns::open(Path::new("/nowhere/netns")).unwrap_err();
    assert_eq!(
        absent.to_string(),
        "cannot open network namespace /nowhere/netns"
    );
}

#[test]
fn a_handed_over_descriptor_keeps_its_identity() {
    let fresh = netns();
    let copy = fresh.as_fd().try_clone_to_owned().unwrap();
    assert_eq!(Netns::from_fd(copy).unwrap().id(), fresh.id());
    let file = File::open("/dev/null").unwrap();
    assert!(matches!(
        Netns::from_fd(file.into()),
        Err(NetnsError::NotANamespace { .. })
    ));
}
