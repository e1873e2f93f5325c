//! A system call as a stopped thread's registers show it. Owns the calling conventions and nothing else.

use nix::{libc, sys::ptrace, unistd::Pid};

/// Number, arguments and, once it has returned, result.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: i64,
    pub arguments: [u64; 5],
    /// A negated errno if negative. Means nothing before the call has returned.
    pub result: i64,
}

/// What the thread `tid`, stopped at a system call, is calling.
///
/// # Errors
/// `ESRCH` if the thread has been killed meanwhile.
#[cfg(target_arch = "x86_64")]
pub fn read(tid: Pid) -> nix::Result<Call> {
    let regs: libc::user_regs_struct = ptrace::getregs(tid)?;
    Ok(Call {
        number: regs.orig_rax.cast_signed(),
        arguments: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8],
        result: regs.rax.cast_signed(),
    })
}

/// What the thread `tid`, stopped at a system call, is calling.
///
/// # Errors
/// `ESRCH` if the thread has been killed meanwhile.
#[cfg(target_arch = "aarch64")]
pub fn read(tid: Pid) -> nix::Result<Call> {
    let regs: libc::user_regs_struct = ptrace::getregs(tid)?;
    Ok(Call {
        number: regs.regs[8].cast_signed(),
        arguments: [0, 1, 2, 3, 4].map(|n: usize| regs.regs[n]),
        result: regs.regs[0].cast_signed(),
    })
}
