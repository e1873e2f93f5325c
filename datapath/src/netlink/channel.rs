//! The bare netlink socket: options, addresses, and splitting datagrams into frames.
//!
//! Owns the descriptor and everything that is the same for every netlink protocol. Knows no message type. Must not
//! block forever: every receive has a timeout.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    getsockopt, recvmsg, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::Error;
use crate::netns::NetnsId;

/// The kernel handles a request inside `sendmsg`, so an answer that does not arrive within this time was lost.
const RECEIVE_TIMEOUT_SECONDS: i64 = 5;

/// Enough for acknowledgements and for one link with all attributes, so that a new pod socket is cheap.
const SMALL: usize = 8 * 1024;
/// The kernel fills dumps in chunks of up to 32 KiB if the receiver's buffer is large enough.
const LARGE: usize = 64 * 1024;

/// Length of `nlmsghdr`.
pub(super) const HEADER: usize = 16;

mod option {
    use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

    /// Missing in libc for this target.
    const NETLINK_GET_STRICT_CHK: libc::c_int = 12;
    sockopt_impl!(
        ExtAck,
        SetOnly,
        libc::SOL_NETLINK,
        libc::NETLINK_EXT_ACK,
        bool
    );
    sockopt_impl!(
        CapAck,
        SetOnly,
        libc::SOL_NETLINK,
        libc::NETLINK_CAP_ACK,
        bool
    );
    sockopt_impl!(
        StrictCheck,
        SetOnly,
        libc::SOL_NETLINK,
        NETLINK_GET_STRICT_CHK,
        bool
    );
    sockopt_impl!(Domain, GetOnly, libc::SOL_SOCKET, libc::SO_DOMAIN, i32);
    sockopt_impl!(Protocol, GetOnly, libc::SOL_SOCKET, libc::SO_PROTOCOL, i32);
}

mod ioctl {
    // SIOCGSKNS: returns a descriptor of a socket's namespace.
    nix::ioctl_none_bad!(socket_netns, 0x894c);
}

/// An open netlink socket, bound to a port that the kernel chose.
#[derive(Debug)]
pub(crate) struct Channel {
    fd: OwnedFd,
    /// Our address. The kernel includes it in every answer.
    pub(crate) port: u32,
    buffer: Vec<u8>,
}

/// One netlink message in a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) port: u32,
    /// The whole message, including its header.
    pub(crate) raw: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(crate) fn payload(&self) -> &'a [u8] {
        &self.raw[HEADER..]
    }
}

impl Channel {
    /// Opens a socket in the calling thread's namespace, subscribed to `groups` (bit n−1 for group n, the first 32).
    pub(crate) fn open(protocol: SockProtocol, groups: u32) -> Result<Self, Error> {
        let op = "open socket";
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )
        .map_err(|errno| Error::Socket { op, errno })?;
        Self::prepare(fd, groups).map_err(|errno| Error::Socket { op, errno })
    }

    /// Takes over a route socket from another process, and resets the state that this process may have left.
    pub(crate) fn adopt(fd: OwnedFd) -> Result<Self, Error> {
        let failed = |errno| Error::Socket {
            op: "adopt socket",
            errno,
        };
        let domain = getsockopt(&fd, option::Domain).map_err(failed)?;
        let protocol = getsockopt(&fd, option::Protocol).map_err(failed)?;
        if domain != libc::AF_NETLINK || protocol != libc::NETLINK_ROUTE {
            return Err(Error::NotRouteNetlink { domain, protocol });
        }
        // O_NONBLOCK is a property of the open file that both processes share. The timeout needs it off.
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::empty())).map_err(failed)?;
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(failed)?;
        let channel = Self::prepare(fd, 0).map_err(failed)?;
        channel.discard_pending().map_err(failed)?;
        Ok(channel)
    }

    fn prepare(fd: OwnedFd, groups: u32) -> Result<Self, Errno> {
        // The timeout first: after this, no operation on the socket can hang.
        setsockopt(
            &fd,
            sockopt::ReceiveTimeout,
            &TimeVal::new(RECEIVE_TIMEOUT_SECONDS, 0),
        )?;
        setsockopt(&fd, option::ExtAck, &true)?;
        // Errors do not contain a copy of the request.
        setsockopt(&fd, option::CapAck, &true)?;
        // Kernels before 4.20 do not have this option and ignore filters in dumps; callers filter again anyway.
        // NETFILTER accepts it without effect.
        match setsockopt(&fd, option::StrictCheck, &true) {
            Ok(()) | Err(Errno::ENOPROTOOPT) => {}
            Err(errno) => return Err(errno),
        }
        // A bound netlink socket cannot change its port (EINVAL). Binding it to the same port again sets the
        // subscriptions.
        let bound: NetlinkAddr = getsockname(fd.as_raw_fd())?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(bound.pid(), groups))?;
        let address: NetlinkAddr = getsockname(fd.as_raw_fd())?;
        Ok(Self {
            fd,
            port: address.pid(),
            buffer: vec![0; SMALL],
        })
    }

    /// Discards answers to requests that the previous owner of the socket sent.
    fn discard_pending(&self) -> Result<(), Errno> {
        let mut scrap = [0; 64];
        loop {
            match nix::sys::socket::recv(self.fd.as_raw_fd(), &mut scrap, MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Enlarges the buffer for notifications that arrive while the reader is busy. Without the privilege to exceed the
    /// system's limit, uses the limit.
    pub(crate) fn expect_floods(&mut self) {
        const BYTES: usize = 4 << 20;
        self.enlarge();
        let forced = setsockopt(&self.fd, sockopt::RcvBufForce, &BYTES);
        if forced.is_err() {
            // The smaller buffer overruns earlier, which is detected.
            setsockopt(&self.fd, sockopt::RcvBuf, &BYTES).unwrap_or_default();
        }
    }

    /// Enlarges the buffer for dumps. Done once, before the first dump.
    pub(crate) fn enlarge(&mut self) {
        if self.buffer.len() < LARGE {
            self.buffer.resize(LARGE, 0);
        }
    }

    /// Sends one datagram to the kernel, even if the socket is connected elsewhere.
    pub(crate) fn send(&self, op: &'static str, bytes: &[u8]) -> Result<(), Error> {
        let kernel = NetlinkAddr::new(0, 0);
        loop {
            match sendto(self.fd.as_raw_fd(), bytes, &kernel, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::Socket { op, errno }),
            }
        }
    }

    /// Receives one datagram from the kernel. Datagrams from other processes are dropped: any local process can send to
    /// our port.
    pub(crate) fn receive(&mut self, op: &'static str) -> Result<Frames<'_>, Error> {
        self.receive_with(op, MsgFlags::empty())
    }

    /// As [`Channel::receive`], without waiting: `None` if there is no datagram.
    pub(crate) fn try_receive(&mut self, op: &'static str) -> Result<Option<Frames<'_>>, Error> {
        match self.receive_with(op, MsgFlags::MSG_DONTWAIT) {
            Err(Error::Timeout { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    fn receive_with(&mut self, op: &'static str, flags: MsgFlags) -> Result<Frames<'_>, Error> {
        let length = loop {
            let mut parts = [IoSliceMut::new(&mut self.buffer)];
            match recvmsg::<NetlinkAddr>(self.fd.as_raw_fd(), &mut parts, None, flags) {
                Ok(m) if m.address.is_some_and(|a| a.pid() != 0) => {}
                Ok(m) if m.flags.contains(MsgFlags::MSG_TRUNC) => {
                    return Err(Error::Truncated { op });
                }
                Ok(m) => break m.bytes,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(Error::Timeout { op }),
                Err(errno) => return Err(Error::Socket { op, errno }),
            }
        };
        Ok(Frames::of(&self.buffer[..length], op))
    }

    /// A descriptor of the socket's namespace. The kernel requires only `CAP_NET_ADMIN` over it.
    fn netns_fd(&self) -> Result<OwnedFd, Error> {
        #[expect(unsafe_code, reason = "an ioctl that nix does not wrap")]
        // SAFETY: the descriptor is open as long as `self` lives, and the request takes no argument.
        let raw = unsafe { ioctl::socket_netns(self.fd.as_raw_fd()) }.map_err(no_netns)?;
        #[expect(unsafe_code, reason = "the ioctl returns a descriptor as a number")]
        // SAFETY: the kernel has just created this descriptor for us; nothing else uses its number.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(fd)
    }

    pub(crate) fn netns_id(&self) -> Result<NetnsId, Error> {
        let identity = NetnsId::of(self.netns_fd()?.as_fd());
        identity.map_err(|e| no_netns(e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))
    }
}

fn no_netns(errno: Errno) -> Error {
    Error::Socket {
        op: "find the socket's namespace",
        errno,
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The messages of one datagram.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    rest: &'a [u8],
    op: &'static str,
}

impl<'a> Frames<'a> {
    /// The messages of `datagram`, which is an answer to `op`.
    pub(crate) const fn of(datagram: &'a [u8], op: &'static str) -> Self {
        Self { rest: datagram, op }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(frame) = first_frame(self.rest) else {
            self.rest = &[];
            return Some(Err(Error::Truncated { op: self.op }));
        };
        self.rest = self.rest.get(align4(frame.raw.len())..).unwrap_or_default();
        Some(Ok(frame))
    }
}

fn first_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let u16_at = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let length = usize::try_from(u32_at(0)?).ok()?;
    let raw = bytes.get(..length).filter(|raw| raw.len() >= HEADER)?;
    Some(Frame {
        kind: u16_at(4)?,
        flags: u16_at(6)?,
        seq: u32_at(8)?,
        port: u32_at(12)?,
        raw,
    })
}

/// Netlink pads messages and attributes to four bytes.
pub(crate) const fn align4(length: usize) -> usize {
    (length + 3) & !3
}
