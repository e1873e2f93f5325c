//! TCP connections between namespaces: who answers, and which source address it sees.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    thread::JoinHandle,
    time::Duration,
};

use datapath::netns::Netns;
use nix::sys::{
    socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, shutdown,
        socket,
        sockopt::{ReceiveTimeout, ReuseAddr, SendTimeout},
    },
    time::TimeVal,
};

/// Answers at one address until it is dropped: sends each caller its own name and the caller's address, then repeats
/// every line.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens in `netns`.
    ///
    /// # Errors
    /// If the address is not available.
    pub fn start(netns: &Netns, at: SocketAddr, name: &str) -> io::Result<Self> {
        let listener = netns.run(|| TcpListener::bind(at))??;
        let (theirs, name) = (listener.try_clone()?, name.to_owned());
        let thread = std::thread::spawn(move || {
            for stream in theirs.incoming() {
                let Ok(stream) = stream else { return };
                let name = name.clone();
                // Ends with the caller's connection.
                std::thread::spawn(move || answer(stream, &name));
            }
        });
        Ok(Self {
            listener,
            thread: Some(thread),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Wakes the thread that waits for callers.
        shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap_or_default();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(mut stream: TcpStream, name: &str) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    writeln!(stream, "{name} {peer}")?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        writeln!(stream, "{}", line?)?;
    }
    Ok(())
}

/// An open connection.
#[derive(Debug)]
pub struct TcpConnection {
    stream: BufReader<TcpStream>,
    /// The name of the listener.
    pub with: String,
    /// The address and port of the caller, as seen by the listener.
    pub seen_as: SocketAddr,
    /// The caller's own port.
    pub port: u16,
}

impl TcpConnection {
    /// Connects to `to` from inside `netns`, from the address `source` if given. No step takes longer than `limit`.
    ///
    /// # Errors
    /// If there is no answer in time, or a refusal.
    pub fn start(
        netns: &Netns,
        source: Option<IpAddr>,
        to: SocketAddr,
        limit: Duration,
    ) -> io::Result<Self> {
        let stream = TcpStream::from(netns.run(|| dial(source, to, limit))??);
        let port = stream.local_addr()?.port();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let told = line.trim_end().split_once(' ');
        let told = told.and_then(|(name, peer)| Some((name.to_owned(), peer.parse().ok()?)));
        let Some((with, seen_as)) = told else {
            return Err(io::Error::other(format!("{to} answered \"{line}\"")));
        };
        Ok(Self {
            stream,
            with,
            seen_as,
            port,
        })
    }

    /// Sends a line and receives it back.
    ///
    /// # Errors
    /// If the connection is dead, or the answer is wrong or late.
    pub fn echoes(&mut self) -> io::Result<()> {
        writeln!(self.stream.get_mut(), "still there?")?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if line == "still there?\n" {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "{} answered \"{line}\"",
                self.with
            )))
        }
    }
}

impl Drop for TcpConnection {
    fn drop(&mut self) {
        self.stream
            .get_ref()
            .shutdown(Shutdown::Both)
            .unwrap_or_default();
    }
}

/// The send timeout also applies to connect (socket(7)).
fn dial(source: Option<IpAddr>, to: SocketAddr, limit: Duration) -> io::Result<OwnedFd> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let limit = i64::try_from(limit.as_micros()).map_err(io::Error::other)?;
    let limit = TimeVal::new(limit / 1_000_000, limit % 1_000_000);
    setsockopt(&fd, SendTimeout, &limit)?;
    setsockopt(&fd, ReceiveTimeout, &limit)?;
    if let Some(source) = source {
        setsockopt(&fd, ReuseAddr, &true)?;
        let source = SocketAddr::from((source, 0));
        bind(fd.as_raw_fd(), &SockaddrStorage::from(source))?;
    }
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(fd)
}
