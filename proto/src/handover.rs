//! Owns the preamble of a connection: one byte, with or without two descriptors, before the first byte of HTTP/2.
//!
//! A netlink socket permanently belongs to the namespace in which it was opened. With these two descriptors, the daemon
//! can wire a pod without entering its namespace. Reads exactly one byte: the rest of the stream belongs to HTTP/2.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// No descriptors follow: Status, Gc, Inspect, and Del without a namespace.
const BARE: u8 = b'b';
/// Exactly two descriptors are passed with this byte: namespace, netlink socket.
const HANDED: u8 = b'h';
/// The maximum number of descriptors in one message (`SCM_MAX_FD`). There is space for all of them, so that a malicious
/// sender cannot make the kernel truncate a message.
const SCM_MAX_FD: usize = 253;

/// The preamble of a connection.
#[derive(Debug)]
pub enum Preamble {
    /// No descriptors.
    Bare,
    /// A pod's descriptors.
    Handed(Handed),
}

/// The descriptors of a pod, as its plugin opened them. Only their number was checked.
#[derive(Debug)]
pub struct Handed {
    /// The network namespace.
    pub netns: OwnedFd,
    /// A `NETLINK_ROUTE` socket opened inside it.
    pub netlink: OwnedFd,
}

/// A preamble that violates the contract. Wrapped in an [`io::Error`] of kind `InvalidData`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PreambleError {
    /// Neither of the two valid bytes.
    #[error("unknown preamble byte {byte:#04x}")]
    UnknownByte {
        /// The received byte.
        byte: u8,
    },
    /// More or fewer descriptors than the byte requires.
    #[error("preamble {byte:#04x} came with {got} descriptors instead of {want}")]
    Descriptors {
        /// The received byte.
        byte: u8,
        /// The number of received descriptors, which are all closed now.
        got: usize,
        /// The required number.
        want: usize,
    },
    /// The kernel could not deliver all descriptors, usually because this process has too many open files.
    #[error("descriptors were lost on the way after {got} of them (open-file limit?)")]
    Truncated {
        /// The number of received descriptors, which are all closed now.
        got: usize,
    },
}

impl From<PreambleError> for io::Error {
    fn from(error: PreambleError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Writes the preamble. `descriptors` are (network namespace, netlink socket); they stay open in this process.
///
/// # Errors
/// The error of `sendmsg`: `BrokenPipe` (never a signal) if the daemon has closed, `WouldBlock` on a non-blocking
/// socket.
pub fn send(
    stream: BorrowedFd<'_>,
    descriptors: Option<(BorrowedFd<'_>, BorrowedFd<'_>)>,
) -> io::Result<()> {
    send_with(stream, descriptors, &[]).map(drop)
}

/// As [`send`], and in the same piece as much of `first`, the bytes that follow, as the socket accepts. Returns how
/// many.
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

/// The bytes of `then` that were accepted.
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

/// Reads the preamble and nothing after it. Every received descriptor is close-on-exec, and is closed again unless it
/// is in the result.
///
/// # Errors
/// `InvalidData` with a [`PreambleError`]; `UnexpectedEof` if the peer closed first; otherwise the error of `recvmsg`,
/// including `WouldBlock`.
pub fn receive(stream: BorrowedFd<'_>) -> io::Result<Preamble> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
    // Its drop closes every descriptor that was not taken out, so nothing leaks on any path below.
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
