//! A proxy between plugin and daemon: forwards everything, including descriptors, and records what each side sent.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixListener, unix::net::UnixStream},
    path::Path,
};

use proto::handover::{self, Preamble};

/// One connection's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// From the caller, without the preamble.
    pub request: Vec<u8>,
    /// From the daemon.
    pub reply: Vec<u8>,
}

/// Forwards the next connection to `listener` to `daemon`, until both sides have closed.
///
/// # Errors
/// The error of either socket.
pub fn pass_on(listener: &UnixListener, daemon: &Path) -> io::Result<Exchange> {
    let (caller, _) = listener.accept()?;
    let preamble = handover::receive(caller.as_fd())?;
    let daemon = UnixStream::connect(daemon)?;
    let descriptors = match &preamble {
        Preamble::Bare => None,
        Preamble::Handed(handed) => Some((handed.netns.as_fd(), handed.netlink.as_fd())),
    };
    handover::send(daemon.as_fd(), descriptors)?;
    drop(preamble);
    let (from_caller, to_caller) = (caller.try_clone()?, caller);
    let (from_daemon, to_daemon) = (daemon.try_clone()?, daemon);
    std::thread::scope(|scope| {
        let request = scope.spawn(move || copy(from_caller, to_daemon));
        let reply = copy(from_daemon, to_caller)?;
        let request = request
            .join()
            .map_err(|_| io::Error::other("the copying thread panicked"))??;
        Ok(Exchange { request, reply })
    })
}

/// Copies until the end and records it. A side that has closed early ends it.
fn copy(mut from: UnixStream, mut to: UnixStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let new = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => &buffer[..n],
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error),
        };
        all.extend(new);
        if to.write_all(new).is_err() {
            break;
        }
    }
    // Fails only if the peer has already closed.
    drop(to.shutdown(Shutdown::Write));
    Ok(all)
}
