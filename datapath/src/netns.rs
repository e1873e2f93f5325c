//! Network namespaces: opening, making, entering, identity.
//!
//! Owns the only `setns` and `unshare` of the project. Both happen on a thread that dies afterwards, so no thread that
//! anybody else can see is ever in the wrong namespace. Must not program anything beyond the loopback of a namespace
//! it makes.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::netlink;

/// The namespace of the calling thread, whichever thread that is (`/proc/self` would be the main thread's).
const OWN: &str = "/proc/thread-self/ns/net";

/// Identity of a namespace while any reference to it lives; a later one may get the same pair again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// Device of the namespace file system.
    pub dev: u64,
    /// Inode of the namespace, the number that `ls -l /proc/*/ns/net` shows.
    pub ino: u64,
}

impl NetnsId {
    /// Of whatever `fd` refers to; only of a namespace does it mean anything.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        let stat = nix::sys::stat::fstat(fd)?;
        Ok(Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
        })
    }
}

/// A network namespace held by a descriptor.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    id: NetnsId,
}

/// Why a descriptor or a path is not a usable network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Nothing at the path, or no permission.
    #[error("cannot open network namespace {}", path.display())]
    Open {
        /// What was asked for.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A file of another kind: a directory, or the empty file left when a bind mount is gone.
    #[error("not a namespace: file system {magic:#x} instead of nsfs")]
    NotNsfs {
        /// What `fstatfs` said.
        magic: i64,
    },
    /// A namespace of another kind, say a mount namespace.
    #[error("a namespace, but not a network namespace (type {kind:#x})")]
    WrongKind {
        /// The `CLONE_NEW*` flag of its kind.
        kind: i32,
    },
    /// The descriptor could not be examined.
    #[error("cannot examine namespace descriptor")]
    Examine {
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

mod ioctl {
    nix::ioctl_none!(
        /// `NS_GET_NSTYPE`: the `CLONE_NEW*` flag of an nsfs descriptor.
        ns_get_nstype,
        0xb7,
        0x3
    );
}

impl Netns {
    /// The calling thread's namespace.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new(OWN))
    }

    /// A fresh namespace without a name, its loopback up. It lives as long as this value, a bound path or a process.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN` over the user namespace.
    pub fn create() -> io::Result<Self> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let netns = Self::current().map_err(io::Error::other)?;
            let mut socket = netlink::Socket::open().map_err(io::Error::other)?;
            // In a new namespace the loopback is always interface 1.
            socket
                .apply(&netlink::link::up(1))
                .map_err(io::Error::other)?;
            Ok(netns)
        })?
    }

    /// Opens and validates the namespace at `path`.
    ///
    /// # Errors
    /// [`NetnsError`]; a path that names something else is told from one that cannot be opened.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        // The path may come from outside: O_NONBLOCK and O_NOCTTY keep a FIFO or a terminal from doing anything.
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

    /// Takes a descriptor that was handed over, and validates it.
    ///
    /// # Errors
    /// [`NetnsError`] when it is no network namespace. The descriptor is closed then.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, NetnsError> {
        let examine = |errno: Errno| NetnsError::Examine {
            source: errno.into(),
        };
        let magic = fstatfs(&fd).map_err(examine)?.filesystem_type();
        if magic != NSFS_MAGIC {
            return Err(NetnsError::NotNsfs { magic: magic.0 });
        }
        #[expect(unsafe_code, reason = "an ioctl that nix does not wrap")]
        // SAFETY: the descriptor is open for as long as `fd` lives, and the request takes no argument.
        let kind = unsafe { ioctl::ns_get_nstype(fd.as_raw_fd()) }.map_err(examine)?;
        if kind != libc::CLONE_NEWNET {
            return Err(NetnsError::WrongKind { kind });
        }
        let id = NetnsId::of(fd.as_fd()).map_err(examine)?;
        Ok(Self { fd, id })
    }

    /// Which namespace this is.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Runs `f` inside the namespace, on a thread made for it. A panic in `f` continues in the caller.
    ///
    /// # Errors
    /// When no thread can be made or the namespace cannot be entered (`EPERM` without `CAP_SYS_ADMIN`).
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
    /// When the file exists already or cannot be mounted over; the file is removed again then.
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

    /// Takes the namespace off `path` and removes the file. The namespace ends with its last reference.
    ///
    /// # Errors
    /// When nothing is mounted there (`EINVAL`) or the file is gone.
    pub fn unbind(path: &Path) -> io::Result<()> {
        // Detached: a reader that still has the file open must not turn this into EBUSY.
        umount2(path, MntFlags::MNT_DETACH)?;
        std::fs::remove_file(path)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `f` on a scoped thread that ends with it, and passes a panic on.
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
