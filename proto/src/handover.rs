//! Owns the preamble of a connection: one byte, with or without two descriptors, before the first byte of HTTP/2.
//!
//! A netlink socket stays for life in the namespace it was opened in, so whoever holds these two descriptors can wire
//! a pod without ever entering its namespace. Reads exactly one byte: the rest of the stream belongs to HTTP/2.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// No descriptors follow: Status, Gc, Inspect, and Del of a namespace that is gone.
const BARE: u8 = b'b';
/// Exactly two descriptors come with this byte: namespace, netlink socket.
const HANDED: u8 = b'h';
/// The most descriptors the kernel puts into one message (`SCM_MAX_FD`). There is room for all of them, so that a
/// hostile sender cannot make the kernel cut a message short.
const SCM_MAX_FD: usize = 253;

/// What precedes HTTP/2 on a connection.
#[derive(Debug)]
pub enum Preamble {
    /// No descriptors.
    Bare,
    /// A pod's descriptors.
    Handed(Handed),
}

/// The descriptors of a pod, as its plugin opened them. Nothing has been checked but their number.
#[derive(Debug)]
pub struct Handed {
    /// The network namespace.
    pub netns: OwnedFd,
    /// A `NETLINK_ROUTE` socket opened inside it.
    pub netlink: OwnedFd,
}

/// A preamble that breaks the contract. Wrapped in an [`io::Error`] of kind `InvalidData`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PreambleError {
    /// Neither of the two bytes there are.
    #[error("unknown preamble byte {byte:#04x}")]
    UnknownByte {
        /// What came.
        byte: u8,
    },
    /// More or fewer descriptors than the byte announces.
    #[error("preamble {byte:#04x} came with {got} descriptors instead of {want}")]
    Descriptors {
        /// What came.
        byte: u8,
        /// Descriptors received, all closed by now.
        got: usize,
        /// Descriptors announced.
        want: usize,
    },
    /// The kernel could not deliver all descriptors, most often because this process has too many open files.
    #[error("descriptors were lost on the way after {got} of them (open-file limit?)")]
    Truncated {
        /// Descriptors received, all closed by now.
        got: usize,
    },
}

impl From<PreambleError> for io::Error {
    fn from(error: PreambleError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Writes the preamble; `descriptors` are (network namespace, netlink socket) and stay open on this side.
///
/// # Errors
/// What `sendmsg` says: `BrokenPipe` (never a signal) if the daemon has closed, `WouldBlock` on a non-blocking socket.
pub fn send(
    stream: BorrowedFd<'_>,
    descriptors: Option<(BorrowedFd<'_>, BorrowedFd<'_>)>,
) -> io::Result<()> {
    send_with(stream, descriptors, &[]).map(drop)
}

/// As [`send`], and in the same piece as much of `first`, the bytes that follow, as the socket takes; says how many.
///
/// # Errors
/// As [`send`].
pub fn send_with(
    stream: BorrowedFd<'_>,
    descriptors: Option<(BorrowedFd<'_>, BorrowedFd<'_>)>,
    first: &[u8],
) -> io::Result<usize> {
    let fds = descriptors.map(|(netns, netlink)| [netns, netlink]);
    let (byte, fds) = match &fds {
        None => (BARE, &[][..]),
        Some(fds) => (HANDED, &fds[..]),
    };
    send_raw(stream, &[byte], fds, first)
}

/// The bytes of `then` that were taken.
fn send_raw(
    stream: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    then: &[u8],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(
        stream,
        &[IoSlice::new(bytes), IoSlice::new(then)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    sent.checked_sub(bytes.len())
        .ok_or_else(|| io::ErrorKind::WriteZero.into())
}

/// Reads the preamble, and of the stream nothing beyond it. Every descriptor received is close-on-exec, and closed
/// again unless it is in the answer.
///
/// # Errors
/// `InvalidData` around a [`PreambleError`]; `UnexpectedEof` if the peer closed first; otherwise what `recvmsg` says,
/// `WouldBlock` included.
pub fn receive(stream: BorrowedFd<'_>) -> io::Result<Preamble> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
    // Its drop closes whatever descriptor was not taken out: nothing leaks on any path below.
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8];
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(PreambleError::Truncated { got: fds.len() }.into());
    }
    validate(byte[0], fds).map_err(Into::into)
}

fn validate(byte: u8, fds: Vec<OwnedFd>) -> Result<Preamble, PreambleError> {
    let want = match byte {
        BARE => 0,
        HANDED => 2,
        byte => return Err(PreambleError::UnknownByte { byte }),
    };
    let got = fds.len();
    let mut fds = fds.into_iter();
    match (want, fds.next(), fds.next(), fds.next()) {
        (0, None, ..) => Ok(Preamble::Bare),
        (2, Some(netns), Some(netlink), None) => Ok(Preamble::Handed(Handed { netns, netlink })),
        _ => Err(PreambleError::Descriptors { byte, got, want }),
    }
}

#[cfg(test)]
mod tests;
