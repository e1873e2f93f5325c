//! The preamble over socket pairs: what is delivered, what is refused, and that no descriptor stays open. Descriptors
//! are counted per process, and nextest runs each test in its own process; under `cargo test`, a lock separates the
//! counts.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::{FdFlags, fcntl_getfd};

use super::*;

static COUNTED: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    COUNTED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn inode(fd: &OwnedFd) -> (u64, u64) {
    let meta = File::from(fd.try_clone().unwrap()).metadata().unwrap();
    (meta.dev(), meta.ino())
}

/// Sends `bytes` with `count` descriptors. Returns the result of `receive` and how many descriptors it left open.
fn deliver(bytes: &[u8], count: usize) -> (io::Result<Preamble>, usize) {
    let _alone = alone();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    let fds = vec![file.as_fd(); count];
    let before = open_descriptors();
    send_raw(ours.as_fd(), bytes, &fds, &[]).unwrap();
    let outcome = receive(theirs.as_fd());
    (outcome, open_descriptors() - before)
}

fn refused(bytes: &[u8], count: usize) -> PreambleError {
    let (outcome, open) = deliver(bytes, count);
    assert_eq!(open, 0, "{count} descriptors with {bytes:?}");
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    *error
        .get_ref()
        .and_then(|inner| inner.downcast_ref())
        .unwrap()
}

#[test]
fn both_descriptors_arrive_in_order_and_close_on_exec() {
    let _alone = alone();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let netns = OwnedFd::from(File::open("/proc/self/ns/net").unwrap());
    let (netlink, _peer) = UnixStream::pair().unwrap();
    let netlink = OwnedFd::from(netlink);
    send(ours.as_fd(), Some((netns.as_fd(), netlink.as_fd()))).unwrap();

    let Preamble::Handed(handed) = receive(theirs.as_fd()).unwrap() else {
        panic!("descriptors were sent");
    };
    assert_eq!(inode(&handed.netns), inode(&netns));
    assert_eq!(inode(&handed.netlink), inode(&netlink));
    for fd in [&handed.netns, &handed.netlink] {
        assert!(fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
    }
}

#[test]
fn bare_preamble_leaves_the_rest_of_the_stream_alone() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    send(ours.as_fd(), None).unwrap();
    ours.write_all(b"PRI * HTTP/2.0").unwrap();
    drop(ours);
    assert!(matches!(receive(theirs.as_fd()).unwrap(), Preamble::Bare));
    let mut rest = String::new();
    theirs.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "PRI * HTTP/2.0");
}

#[test]
fn bytes_after_the_preamble_can_arrive_with_it() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    assert_eq!(send_with(ours.as_fd(), None, b"PRI *").unwrap(), 5);
    drop(ours);
    assert!(matches!(receive(theirs.as_fd()).unwrap(), Preamble::Bare));
    let mut rest = String::new();
    theirs.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "PRI *");
}

#[test]
fn bytes_behind_handed_descriptors_stay_in_the_stream() {
    let (outcome, open) = deliver(b"hPRI", 2);
    assert!(matches!(outcome.unwrap(), Preamble::Handed(_)));
    assert_eq!(open, 2);
}

#[test]
fn unknown_byte_is_refused_and_its_descriptors_closed() {
    assert_eq!(refused(b"P", 0), PreambleError::UnknownByte { byte: b'P' });
    assert_eq!(refused(b"\0", 2), PreambleError::UnknownByte { byte: 0 });
}

#[test]
fn wrong_number_of_descriptors_is_refused_and_all_are_closed() {
    for (bytes, got, want) in [
        (b"b", 1, 0),
        (b"b", 2, 0),
        (b"h", 0, 2),
        (b"h", 1, 2),
        (b"h", 3, 2),
        (b"h", SCM_MAX_FD, 2),
    ] {
        let byte = bytes[0];
        assert_eq!(
            refused(bytes, got),
            PreambleError::Descriptors { byte, got, want }
        );
    }
}

#[test]
fn descriptors_lost_at_the_open_file_limit_are_noticed_and_the_rest_closed() {
    let _alone = alone();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    send(ours.as_fd(), Some((file.as_fd(), file.as_fd()))).unwrap();

    // Fills the descriptor table up to one free slot, so that the kernel can install the first descriptor but not the
    // second.
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let lowered = rustix::process::Rlimit {
        current: Some(64),
        maximum: limits.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, lowered).unwrap();
    let mut fill: Vec<File> = std::iter::from_fn(|| file.try_clone().ok()).collect();
    fill.pop().unwrap();
    let error = receive(theirs.as_fd()).unwrap_err();
    let one_slot_again = file.try_clone();
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limits).unwrap();

    let inner: &PreambleError = error.get_ref().and_then(|e| e.downcast_ref()).unwrap();
    assert_eq!(*inner, PreambleError::Truncated { got: 1 });
    assert!(one_slot_again.is_ok(), "the delivered descriptor was kept");
}

#[test]
fn closed_peer_is_end_of_file() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(ours);
    assert_eq!(
        receive(theirs.as_fd()).unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
    // The other direction: an error, not a signal.
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    assert_eq!(
        send(ours.as_fd(), None).unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );
}

#[test]
fn nothing_there_yet_passes_through_as_would_block() {
    let (_ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    assert_eq!(
        receive(theirs.as_fd()).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
}
