//! Network namespaces: open, create, enter, bind.
//!
//! Owns the daemon's only `setns` and `unshare`. Both happen on a thread that ends afterwards, so no thread that others can
//! see is ever in the wrong namespace. Must not configure anything except the loopback of a namespace that it creates, and
//! must not know netlink, which is built on this module.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nettypes::netns::identify;
pub use nettypes::netns::{NetnsError, NetnsId};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// The namespace of the calling thread, whichever thread it is (`/proc/self` would be the main thread's).
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace held by a descriptor.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    id: NetnsId,
}

mod ioctl {
    nix::ioctl_write_ptr_bad!(
        /// Sets the flags of a link.
        set_link_flags,
        nix::libc::SIOCSIFFLAGS,
        nix::libc::ifreq
    );
}

impl Netns {
    /// The calling thread's namespace.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new(OWN))
    }

    /// A new namespace without a name, with its loopback up. It exists as long as this value, a bound path or a
    /// process.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN` over the user namespace.
    pub fn create() -> io::Result<Self> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let netns = Self::current().map_err(io::Error::other)?;
            loopback_up()?;
            Ok(netns)
        })?
    }

    /// Opens and validates the namespace at `path`.
    ///
    /// # Errors
    /// [`NetnsError`]; distinguishes a path to another kind of file from one that cannot be opened.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        // The path may be untrusted: O_NONBLOCK and O_NOCTTY prevent side effects of a FIFO or a terminal.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|source| NetnsError::Open {
                path: path.to_owned(),
                source,
            })?;
        Self::from_fd(file.into())
    }

    /// Takes a descriptor that was passed by another process, and validates it.
    ///
    /// # Errors
    /// [`NetnsError`] if it is not a network namespace. The descriptor is then closed.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, NetnsError> {
        let id = identify(fd.as_fd())?;
        Ok(Self { fd, id })
    }

    /// The identity of this namespace.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Runs `f` inside the namespace, on a new thread. A panic in `f` continues in the caller.
    ///
    /// # Errors
    /// If no thread can be created or the namespace cannot be entered (`EPERM` without `CAP_SYS_ADMIN`).
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> io::Result<R> {
        on_thread(|| {
            #[expect(
                clippy::disallowed_methods,
                reason = "the one place: this thread ends with the closure"
            )]
            nix::sched::setns(&self.fd, CloneFlags::CLONE_NEWNET)?;
            Ok(f())
        })?
    }

    /// Binds the namespace to a new file at `path`, as container runtimes do, so that it outlives this value.
    ///
    /// # Errors
    /// If the file already exists or cannot be mounted over; in the second case the file is removed again.
    pub fn bind(&self, path: &Path) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(path)?;
        let source = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let mounted = mount(
            Some(source.as_str()),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        );
        mounted.or_else(|errno| {
            std::fs::remove_file(path)?;
            Err(errno.into())
        })
    }

    /// Unmounts the namespace from `path` and removes the file. The namespace ends with its last reference.
    ///
    /// # Errors
    /// If nothing is mounted there (`EINVAL`) or the file does not exist.
    pub fn unbind(path: &Path) -> io::Result<()> {
        // Detached: a reader that still has the file open must not cause EBUSY.
        umount2(path, MntFlags::MNT_DETACH)?;
        std::fs::remove_file(path)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Brings up the loopback of the calling thread's namespace. By ioctl, because this module must not know netlink.
fn loopback_up() -> io::Result<()> {
    let any = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let up = libc::c_short::try_from(libc::IFF_UP).expect("it is 1");
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: up },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = libc::c_char::try_from(from).expect("it is ASCII");
    }
    #[expect(unsafe_code, reason = "an ioctl that nix does not wrap")]
    // SAFETY: the descriptor is open, and `request` is a whole `ifreq` that outlives the call; the kernel only reads it.
    unsafe { ioctl::set_link_flags(any.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// Runs `f` on a scoped thread that ends with it, and propagates a panic.
fn on_thread<R: Send>(f: impl FnOnce() -> R + Send) -> io::Result<R> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, f)?;
        thread
            .join()
            .map_or_else(|panic| std::panic::resume_unwind(panic), Ok)
    })
}

#[cfg(test)]
mod tests;
