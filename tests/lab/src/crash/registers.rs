//! A system call in the registers of a stopped thread, and how to make it fail. Owns the calling conventions and
//! nothing else.

use nix::{errno::Errno, libc, sys::ptrace, unistd::Pid};

/// An invalid descriptor, which replaces the call's own, so that the call changes nothing.
const NOTHING: u64 = u64::MAX;

/// Number, arguments and, after it has returned, the result.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: i64,
    pub arguments: [u64; 5],
    /// A negated errno if negative. Undefined before the call has returned.
    pub result: i64,
}

/// The call of the thread `tid`, which is stopped at a system call.
///
/// # Errors
/// `ESRCH` if the thread has been killed in the meantime.
#[cfg(target_arch = "x86_64")]
pub fn read(tid: Pid) -> nix::Result<Call> {
    let regs: libc::user_regs_struct = ptrace::getregs(tid)?;
    Ok(Call {
        number: regs.orig_rax.cast_signed(),
        arguments: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8],
        result: regs.rax.cast_signed(),
    })
}

/// The call of the thread `tid`, which is stopped at a system call.
///
/// # Errors
/// `ESRCH` if the thread has been killed in the meantime.
#[cfg(target_arch = "aarch64")]
pub fn read(tid: Pid) -> nix::Result<Call> {
    let regs: libc::user_regs_struct = ptrace::getregs(tid)?;
    Ok(Call {
        number: regs.regs[8].cast_signed(),
        arguments: [0, 1, 2, 3, 4].map(|n: usize| regs.regs[n]),
        result: regs.regs[0].cast_signed(),
    })
}

/// Replaces the descriptor of the call that the thread `tid` is about to enter; returns it for [`fail`].
///
/// # Errors
/// `ESRCH` if the thread has been killed in the meantime.
#[cfg(target_arch = "x86_64")]
pub fn rob(tid: Pid) -> nix::Result<u64> {
    let mut regs = ptrace::getregs(tid)?;
    let robbed = std::mem::replace(&mut regs.rdi, NOTHING);
    ptrace::setregs(tid, regs)?;
    Ok(robbed)
}

/// Replaces the descriptor of the call that the thread `tid` is about to enter; returns it for [`fail`].
///
/// # Errors
/// `ESRCH` if the thread has been killed in the meantime.
#[cfg(target_arch = "aarch64")]
pub fn rob(tid: Pid) -> nix::Result<u64> {
    let mut regs = ptrace::getregs(tid)?;
    let robbed = std::mem::replace(&mut regs.regs[0], NOTHING);
    ptrace::setregs(tid, regs)?;
    Ok(robbed)
}

/// Makes the call from which the thread `tid` is about to return fail with `errno`, and restores the register that
/// [`rob`] changed.
///
/// # Errors
/// `ESRCH` if the thread has been killed in the meantime.
#[cfg(target_arch = "x86_64")]
pub fn fail(tid: Pid, errno: Errno, robbed: u64) -> nix::Result<()> {
    let mut regs = ptrace::getregs(tid)?;
    regs.rdi = robbed;
    regs.rax = i64::from(-(errno as i32)).cast_unsigned();
    ptrace::setregs(tid, regs)
}

/// Makes the call from which the thread `tid` is about to return fail with `errno`. The register that [`rob`] changed
/// is the one of the result.
///
/// # Errors
/// `ESRCH` if the thread has been killed in the meantime.
#[cfg(target_arch = "aarch64")]
pub fn fail(tid: Pid, errno: Errno, _robbed: u64) -> nix::Result<()> {
    let mut regs = ptrace::getregs(tid)?;
    regs.regs[0] = i64::from(-(errno as i32)).cast_unsigned();
    ptrace::setregs(tid, regs)
}
