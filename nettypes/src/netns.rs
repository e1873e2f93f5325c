//! The check that a descriptor is a network namespace, and the identity of a namespace. Opens nothing and enters nothing.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::fs::{fstat, fstatfs};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

/// `statfs` type of nsfs, the file system of namespaces (linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// linux/sched.h; the result of `NS_GET_NSTYPE` for a network namespace.
const CLONE_NEWNET: i32 = 0x4000_0000;

/// Identity of a namespace: device and inode of its nsfs file. Unique among living namespaces. A later namespace may get
/// the same pair once this one has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// Device of nsfs.
    pub dev: u64,
    /// The number that `net:[…]` shows.
    pub ino: u64,
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.ino)
    }
}

/// Why a path or a descriptor is not accepted as a network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// There is nothing at the path, or it may not be opened.
    #[error("cannot open network namespace {}", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// Anything outside nsfs: a regular file (such as the one that an unmounted bind mount leaves), a FIFO, a directory.
    #[error("not a namespace (file system type {magic:#x}, mode {mode:#o})")]
    NotANamespace {
        /// The result of `fstatfs`.
        magic: u64,
        /// The result of `fstat`.
        mode: u32,
    },
    /// A namespace of another kind: mounts, processes, users…
    #[error("a namespace, but not a network namespace (type {nstype:#x})")]
    OtherNamespace {
        /// The `CLONE_NEW*` flag of its type.
        nstype: i32,
    },
    /// The kernel refused a system call.
    #[error("{op} failed")]
    Io {
        /// The system call.
        op: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

/// Checks that `fd` is a network namespace and returns its identity.
///
/// # Errors
/// See [`NetnsError`].
pub fn identify(fd: BorrowedFd<'_>) -> Result<NetnsId, NetnsError> {
    let io = |op| {
        move |errno: rustix::io::Errno| NetnsError::Io {
            op,
            source: errno.into(),
        }
    };
    let stat = fstat(fd).map_err(io("fstat"))?;
    let magic = fstatfs(fd).map_err(io("fstatfs"))?.f_type;
    let magic = u64::try_from(magic).unwrap_or(0);
    // The file system is checked first: a device may understand the ioctl's number as another request.
    if magic != NSFS_MAGIC {
        return Err(NetnsError::NotANamespace {
            magic,
            mode: stat.st_mode,
        });
    }
    match nstype(fd).map_err(io("ioctl NS_GET_NSTYPE"))? {
        CLONE_NEWNET => Ok(NetnsId {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }),
        nstype => Err(NetnsError::OtherNamespace { nstype }),
    }
}

impl NetnsId {
    /// The identity behind `fd`, which must be known to be a namespace: nothing is checked.
    ///
    /// # Errors
    /// The answer of `fstat`.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let stat = fstat(fd)?;
        Ok(Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
        })
    }
}

/// The `CLONE_NEW*` type of a namespace.
fn nstype(fd: BorrowedFd<'_>) -> rustix::io::Result<i32> {
    #[expect(unsafe_code, reason = "rustix has no wrapper for NS_GET_NSTYPE")]
    // SAFETY: `fd` is open as long as it is borrowed, and `GetNsType` passes no memory to the kernel.
    unsafe {
        ioctl(fd, GetNsType)
    }
}

/// `NS_GET_NSTYPE`, `_IO(0xb7, 0x3)` of linux/nsfs.h: no argument; the result is the return value.
struct GetNsType;

#[expect(
    unsafe_code,
    reason = "the trait of every ioctl that rustix does not know"
)]
// SAFETY: the opcode takes no argument, so the null pointer is never dereferenced, and nothing is read through it.
unsafe impl Ioctl for GetNsType {
    type Output = i32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::none(0xb7, 3)
    }

    fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(
        answer: IoctlOutput,
        _argument: *mut rustix::ffi::c_void,
    ) -> rustix::io::Result<i32> {
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn own_network_namespace_is_identified() {
        let file = File::open("/proc/self/ns/net").unwrap();
        let meta = file.metadata().unwrap();
        let found = identify(file.as_fd()).unwrap();
        assert_eq!((found.dev, found.ino), (meta.dev(), meta.ino()));
        let link = std::fs::read_link("/proc/self/ns/net").unwrap();
        assert_eq!(link.to_str().unwrap(), found.to_string());
    }

    #[test]
    fn other_kinds_of_namespace_are_refused() {
        for kind in ["mnt", "uts", "ipc", "pid", "user"] {
            let file = File::open(format!("/proc/self/ns/{kind}")).unwrap();
            assert!(
                matches!(
                    identify(file.as_fd()),
                    Err(NetnsError::OtherNamespace { .. })
                ),
                "{kind}"
            );
        }
    }

    #[test]
    fn files_and_devices_are_refused() {
        for path in ["/dev/null", "/proc/self/status", "/"] {
            let file = File::open(path).unwrap();
            assert!(
                matches!(
                    identify(file.as_fd()),
                    Err(NetnsError::NotANamespace { .. })
                ),
                "{path}"
            );
        }
    }
}
