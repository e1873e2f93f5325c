//! Valid and invalid values of `CNI_NETNS`. Needs root to enter a namespace.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use nix::sys::socket::NetlinkAddr;
use nix::sys::stat::Mode;

use super::*;

/// A process in its own network namespace, which provides a path to it.
struct Pod(Child);

impl Pod {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Self(child)
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn a_process_path_is_opened_and_identified() {
    let pod = Pod::new();
    let netns = PodNetns::open(&pod.path(), false).unwrap();
    let link = std::fs::read_link(pod.path()).unwrap();
    assert_eq!(
        identify(netns.fd.as_fd()).unwrap().to_string(),
        link.to_str().unwrap()
    );
}

#[test]
fn descriptors_belong_to_the_pod() {
    let pod = Pod::new();
    let opened = PodNetns::open(&pod.path(), false).unwrap();
    let expected = identify(opened.fd.as_fd()).unwrap();
    let path = pod.path();
    // A thread cannot leave the namespace again, so it has its own thread here.
    let descriptors = std::thread::spawn(move || {
        let netns = PodNetns::open(&path, false).unwrap();
        netns.into_descriptors().unwrap()
    })
    .join()
    .unwrap();
    assert_eq!(identify(descriptors.netns.as_fd()).unwrap(), expected);
    // The kernel lists a netlink socket in the namespace it belongs to, once it is bound.
    nix::sys::socket::bind(descriptors.netlink.as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
    let netlink = File::from(descriptors.netlink);
    let inode = netlink.metadata().unwrap().ino();
    let listed = |pid: u32| {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/netlink")).unwrap();
        let mut inodes = table.lines().filter_map(|l| l.split_whitespace().last());
        inodes.any(|field| field == inode.to_string())
    };
    assert!(listed(pod.0.id()));
    assert!(!listed(std::process::id()));
}

#[test]
fn own_namespace_needs_the_override() {
    let own = PathBuf::from(format!("/proc/{}/ns/net", std::process::id()));
    assert!(matches!(
        PodNetns::open(&own, false),
        Err(NetnsPathError::Own { .. })
    ));
    assert!(PodNetns::open(&own, true).is_ok());
}

#[test]
fn other_files_are_refused_without_waiting() {
    let dir = std::env::temp_dir().join(format!("hawser-netns-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("file");
    std::fs::write(&file, "").unwrap();
    let fifo = dir.join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRUSR).unwrap();
    let socket = dir.join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let link = dir.join("link");
    symlink("/proc/self/ns/net", &link).unwrap();

    let open = |path: &Path| PodNetns::open(path, false).unwrap_err();
    assert!(matches!(open(&file), NetnsPathError::Kind { .. }));
    assert!(matches!(open(&fifo), NetnsPathError::Kind { .. }));
    assert!(matches!(open(&dir), NetnsPathError::Kind { .. }));
    assert!(matches!(open(&socket), NetnsPathError::Io { .. }));
    assert!(matches!(open(&link), NetnsPathError::Symlink { .. }));
    assert!(matches!(
        open(&dir.join("no")),
        NetnsPathError::Missing { .. }
    ));
    assert!(matches!(
        open(&file.join("below")),
        NetnsPathError::Missing { .. }
    ));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn magic_links_are_followed_in_one_form_only() {
    let pid = std::process::id();
    let mnt = PathBuf::from(format!("/proc/{pid}/ns/mnt"));
    assert!(matches!(
        PodNetns::open(&mnt, false),
        Err(NetnsPathError::Symlink { .. })
    ));
    // A magic link as a parent: another process's view of the file system.
    let through_root = PathBuf::from(format!("/proc/{pid}/cwd/hostname"));
    assert!(matches!(
        PodNetns::open(&through_root, false),
        Err(NetnsPathError::Symlink { .. })
    ));
    assert!(matches!(
        PodNetns::open(Path::new("proc/1/ns/net"), false),
        Err(NetnsPathError::Relative { .. })
    ));
}

#[test]
fn parents_may_be_symbolic_links() {
    let dir = std::env::temp_dir().join(format!("hawser-parent-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("real")).unwrap();
    std::fs::write(dir.join("real/file"), "").unwrap();
    symlink(dir.join("real"), dir.join("alias")).unwrap();
    // It reaches the check.
    assert!(matches!(
        PodNetns::open(&dir.join("alias/file"), false),
        Err(NetnsPathError::Kind { .. })
    ));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn only_numbers_are_processes() {
    for (path, expected) in [
        ("/proc/1/ns/net", true),
        ("/proc/self/ns/net", false),
        ("/proc//ns/net", false),
        ("/proc/1/../2/ns/net", false),
        ("/proc/1/ns/mnt", false),
        ("/tmp/proc/1/ns/net", false),
    ] {
        assert_eq!(is_proc_netns(Path::new(path)), expected, "{path}");
    }
}
