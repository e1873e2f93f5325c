//! The name of a pod passes from one sandbox to the next, whoever removes or renames a link.

use super::*;

/// A further sandbox of the pod of `pod_link(21, 1)`, with this address.
fn younger(i: u8) -> PodLink {
    PodLink {
        host_name: pod_link(21, 1).host_name,
        ..pod_link(i, 1)
    }
}

fn add(kept: &mut Kept, link: &PodLink) -> (Netns, pod::Wiring) {
    let netns = netns();
    let mut pod = socket_in(&netns);
    let wired = kept.reconciler.add_pod(&mut pod, netns.as_fd(), link);
    (netns, wired.unwrap())
}

fn name_of(kept: &mut Kept, index: u32) -> Option<String> {
    let found = kept.reconciler.socket().link_by_index(index).unwrap();
    found.map(|link| link.name)
}

#[test]
fn a_link_that_others_rename_gets_its_name_back() {
    let mut kept = Kept::new();
    let name = pod_link(21, 1).host_name;
    assert_eq!(
        kept.after(&format!("ip link set {name} name other0")),
        [Kind::Link]
    );
}

#[test]
fn a_younger_sandbox_has_the_name_until_it_ends() {
    let mut kept = Kept::new();
    let name = pod_link(21, 1).host_name;
    let old = kept.index_of(&pod_link(21, 1));
    let (_netns, young) = add(&mut kept, &younger(22));
    assert_eq!(young.host_name, name);
    assert_ne!(name_of(&mut kept, old).as_deref(), Some(&*name));
    // Nothing needs to be repaired, and a repair does not give the name back.
    assert_eq!(kept.mark_dirty(), DirtySet::default());
    assert_eq!(kept.repair(&DirtySet::all()), []);

    let gone = pod::PodRef {
        host_index: young.host_index,
        address: younger(22).address,
        egress: None,
        ports: Vec::new(),
    };
    let (contested, removed) = kept.reconciler.remove_pod(&gone);
    removed.unwrap();
    assert!(contested);
    pod::unlink(&mut socket_in(&kept.lab.host), gone.host_index).unwrap();
    kept.reconciler.assign_names();
    assert_eq!(name_of(&mut kept, old), Some(name));
    assert_eq!(kept.repair(&DirtySet::all()), []);
}

/// The namespace of the younger sandbox ends without a DEL.
#[test]
fn a_name_that_nobody_gave_back_returns_to_the_older_sandbox() {
    let mut kept = Kept::new();
    let name = pod_link(21, 1).host_name;
    let old = kept.index_of(&pod_link(21, 1));
    let (netns, _) = add(&mut kept, &younger(22));
    drop(netns);
    let mut dirty = DirtySet::default();
    let told = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        dirty = kept.mark_dirty_after(std::mem::take(&mut dirty));
        dirty.ended
    });
    assert!(told);
    kept.repair(&dirty);
    assert_eq!(name_of(&mut kept, old), Some(name));
}

/// aws-node's pods have the same names, and their links are not ours.
#[test]
fn a_name_that_a_foreign_link_has_is_taken_when_it_is_free() {
    let mut kept = Kept::new();
    kept.lab
        .show("ip link add eni01 type veth peer name other01");
    let link = PodLink {
        host_name: "eni01".to_owned(),
        ..pod_link(22, 1)
    };
    let (_netns, wired) = add(&mut kept, &link);
    assert_ne!(wired.host_name, "eni01");
    assert_eq!(kept.repair(&DirtySet::all()), []);
    kept.mark_dirty();
    kept.lab.show("ip link del eni01");
    let dirty = kept.mark_dirty();
    assert_eq!(kept.repair(&dirty), [Kind::Link]);
    assert_eq!(
        name_of(&mut kept, wired.host_index).as_deref(),
        Some("eni01")
    );
    assert_eq!(kept.mark_dirty(), DirtySet::default());
}

#[test]
fn an_add_that_fails_takes_no_name_from_an_older_sandbox() {
    let mut kept = Kept::new();
    let old = kept.index_of(&pod_link(21, 1));
    let rival = PodLink {
        address: pod_link(21, 1).address,
        ..younger(22)
    };
    let netns = netns();
    let mut pod = socket_in(&netns);
    let refused = kept.reconciler.add_pod(&mut pod, netns.as_fd(), &rival);
    assert!(
        matches!(refused, Err(pod::AddError::AddressInUse { .. })),
        "{refused:?}"
    );
    let name = name_of(&mut kept, old);
    assert_eq!(name, Some(rival.host_name));
    assert_eq!(snapshot(&kept.lab.host), kept.right);
}
