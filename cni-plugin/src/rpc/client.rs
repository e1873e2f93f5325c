//! Owns the connection to the daemon: connect, preamble, and one call, within one deadline, with retries. Knows no verb
//! and nothing of the wire format (`call`).

use std::error::Error;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use prost::Message;
use proto::handover;
use proto::refusal::{Reason, Refusal};
use tonic::{Code, Status};

use super::call::{Call, CallError};
use crate::error::{Failure, code};
use crate::netns::Descriptors;

/// The first and longest pause between two attempts. A daemon that restarts is back within a fraction of a second. Waiting for
/// its socket with inotify would be exact, but each user has only 128 instances of it by default, and hundreds of plugins may
/// wait.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// The pause after `pause`. It grows by a quarter, so a pause is about a quarter of the time that has passed: on average, an
/// eighth of the daemon's start is lost. All pauses before the longest take less than a second together.
fn longer(pause: Duration) -> Duration {
    (pause * 5 / 4).min(PAUSES.1)
}

/// Why there is no usable answer from the daemon.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("ipamd cannot be reached at {}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("the connection to ipamd at {} failed", socket.display())]
    Broken {
        socket: PathBuf,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("ipamd at {} did not answer within {within:?}", socket.display())]
    Late { socket: PathBuf, within: Duration },
    #[error("ipamd refused")]
    Refused { refusal: Refusal },
}

const REMEDY: &str = "check that the hawser pod on this node is running and ready, and check its log; the kubelet tries again";

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused { refusal } => refusal.into(),
            error => Self::new(code::TRY_AGAIN, &error, REMEDY),
        }
    }
}

impl ClientError {
    /// Whether no daemon answered, so the call was not refused.
    pub const fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Broken { .. } | Self::Late { .. }
        )
    }

    /// The pause before the next retry within the deadline; `None` for an answer that must be returned.
    fn retry_after(&self, pause: Duration) -> Option<Duration> {
        match self {
            // The socket does not exist yet; nobody listens; the queue of connections is full.
            Self::Connect { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::Interrupted
            )
            .then_some(pause),
            // Every request is idempotent per sandbox, so a broken connection only costs another one.
            Self::Broken { .. } => Some(pause),
            // A daemon that is starting or stopping specifies when to retry.
            Self::Refused { refusal } => match refusal.reason {
                Reason::Starting | Reason::Stopping => {
                    refusal.retry_after.map(|after| after.max(pause))
                }
                _ => None,
            },
            Self::Late { .. } => None,
        }
    }
}

/// The daemon and the parameters of one call.
#[derive(Debug)]
pub struct Daemon<'a> {
    pub socket: &'a Path,
    /// From now.
    pub within: Duration,
    /// Sent before the call.
    pub descriptors: Option<&'a Descriptors>,
}

impl Daemon<'_> {
    /// Makes one call. `request` gets the remaining time in milliseconds, and is repeated on a new connection if a
    /// retry can help.
    pub fn call<Q, A>(&self, method: &str, request: impl Fn(u32) -> Q) -> Result<A, ClientError>
    where
        Q: Message,
        A: Message + Default,
    {
        let deadline = Deadline::after(self.within);
        let mut pause = PAUSES.0;
        // The error to report if the deadline ends the last attempt: the error before it is more specific than a
        // timeout.
        let mut last = None;
        loop {
            let call = Call::new(method, &request(answer_within(deadline.left())));
            let error = match self.attempt(deadline, call) {
                Ok(answer) => return Ok(answer),
                Err(ClientError::Late { .. }) => return Err(last.unwrap_or_else(|| self.late())),
                Err(error) => error,
            };
            match error.retry_after(pause) {
                Some(after) if after < deadline.left() => sleep(after),
                _ => return Err(error),
            }
            last = Some(error);
            pause = longer(pause);
        }
    }

    fn attempt<A: Message + Default>(
        &self,
        deadline: Deadline,
        mut call: Call,
    ) -> Result<A, ClientError> {
        let stream = self.connect().map_err(|source| ClientError::Connect {
            socket: self.socket.to_owned(),
            source,
        })?;
        let mut stream = Timed { stream, deadline };
        stream
            .open(self.descriptors, &call.opening())
            .map_err(CallError::Io)
            .and_then(|()| call.finish(stream))
            .map_err(|error| self.classify(error))
    }

    /// Does not wait: a daemon whose queue of connections is full is tried again.
    fn connect(&self) -> io::Result<UnixStream> {
        let address = UnixAddr::new(self.socket)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(stream.as_raw_fd(), &address)?;
        Ok(UnixStream::from(stream))
    }

    fn classify(&self, error: CallError) -> ClientError {
        match error {
            CallError::Status(status) => self.of_status(&status),
            CallError::Io(error) if error.kind() == io::ErrorKind::TimedOut => self.late(),
            error => ClientError::Broken {
                socket: self.socket.to_owned(),
                source: error.into(),
            },
        }
    }

    fn of_status(&self, status: &Status) -> ClientError {
        if status.code() == Code::DeadlineExceeded && status.details().is_empty() {
            return self.late();
        }
        ClientError::Refused {
            refusal: Refusal::from_status(status),
        }
    }

    fn late(&self) -> ClientError {
        ClientError::Late {
            socket: self.socket.to_owned(),
            within: self.within,
        }
    }
}

/// A point in time, in the kernel's time since boot.
#[derive(Debug, Clone, Copy)]
struct Deadline(std::time::Instant);

impl Deadline {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the plugin reads the time"
    )]
    fn after(time: Duration) -> Self {
        Self(std::time::Instant::now() + time)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the plugin reads the time"
    )]
    fn left(self) -> Duration {
        self.0.saturating_duration_since(std::time::Instant::now())
    }
}

/// A connection on which all operations respect the deadline.
///
/// Waits in `poll` and not in `recv`: a thread in `recv` is also woken when the daemon has read the request, and then
/// sleeps again, on a processor that the daemon needs.
struct Timed {
    stream: UnixStream,
    deadline: Deadline,
}

impl Timed {
    /// Sends the preamble and the first bytes in one piece, so that the daemon wakes up to a complete request.
    fn open(&mut self, descriptors: Option<&Descriptors>, first: &[u8]) -> io::Result<()> {
        let descriptors = descriptors.map(|d| (d.netns.as_fd(), d.netlink.as_fd()));
        let sent = handover::send_with(self.stream.as_fd(), descriptors, first)?;
        self.write_all(&first[sent..])
    }

    /// Waits until the kernel has or accepts bytes, or the peer has closed.
    fn wait(&self, wanted: PollFlags) -> io::Result<()> {
        let mut waited_for = [PollFd::new(self.stream.as_fd(), wanted)];
        // Rounded up: a fraction of a millisecond must not lead to a busy loop.
        let left = (self.deadline.left().as_micros()).div_ceil(1000);
        let left = i32::try_from(left).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut waited_for, timeout) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::POLLIN)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(PollFlags::POLLOUT)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time for the daemon in milliseconds. Its refusal, which names a cause, must arrive before our own deadline,
/// which has no cause to report.
fn answer_within(left: Duration) -> u32 {
    let margin = (left / 10).min(Duration::from_millis(500));
    u32::try_from((left - margin).as_millis())
        .unwrap_or(u32::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_gets_less_time_than_is_left() {
        assert_eq!(answer_within(Duration::from_secs(60)), 59_500);
        assert_eq!(answer_within(Duration::from_secs(1)), 900);
        assert_eq!(answer_within(Duration::ZERO), 1);
        assert_eq!(answer_within(Duration::MAX), u32::MAX);
    }

    #[test]
    fn a_pause_is_a_fraction_of_the_time_that_has_passed() {
        let (mut pause, mut passed, mut attempts) = (PAUSES.0, Duration::ZERO, 0);
        while pause < PAUSES.1 {
            passed += pause;
            pause = longer(pause);
            attempts += 1;
            assert!(pause <= passed / 4 + PAUSES.0, "{pause:?} after {passed:?}");
        }
        assert!(
            attempts < 20 && passed < Duration::from_secs(1),
            "{attempts} {passed:?}"
        );
        assert_eq!(longer(pause), PAUSES.1);
    }

    #[test]
    fn only_passing_trouble_is_tried_again() {
        let pause = PAUSES.0;
        let connect = |kind: io::ErrorKind| ClientError::Connect {
            socket: "/s".into(),
            source: kind.into(),
        };
        for (kind, again) in [
            (io::ErrorKind::NotFound, true),
            (io::ErrorKind::ConnectionRefused, true),
            (io::ErrorKind::WouldBlock, true),
            (io::ErrorKind::PermissionDenied, false),
        ] {
            assert_eq!(connect(kind).retry_after(pause).is_some(), again, "{kind}");
        }
        let refused = |reason, after| ClientError::Refused {
            refusal: Refusal::new(reason, "x", "", after),
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(refused(Reason::Starting, second).retry_after(pause), second);
        assert_eq!(refused(Reason::Starting, None).retry_after(pause), None);
        assert_eq!(refused(Reason::PodLimit, second).retry_after(pause), None);
    }

    #[test]
    fn no_message_of_an_absent_socket_is_swallowed_by_a_runtime() {
        let failure = Failure::from(ClientError::Connect {
            socket: "/run/hawser/ipamd.sock".into(),
            source: io::Error::from_raw_os_error(2),
        });
        assert_eq!(failure.code, 11);
        assert!(!failure.msg.to_lowercase().contains("no such file"));
        assert!(failure.msg.contains("/run/hawser/ipamd.sock"));
    }
}
