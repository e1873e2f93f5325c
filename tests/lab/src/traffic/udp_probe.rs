//! Datagrams between namespaces: who answers, and which source address it sees.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use datapath::netns::Netns;

/// How often a responder looks whether it shall end.
const TICK: Duration = Duration::from_millis(50);
/// A datagram may be lost, so it is repeated.
const AGAIN: Duration = Duration::from_millis(300);

/// Answers every datagram with its own name and the sender's address until it is dropped.
#[derive(Debug)]
pub struct Responder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Listens in `netns`.
    ///
    /// # Errors
    /// If the address is not available.
    pub fn start(netns: &Netns, at: SocketAddr, name: &str) -> io::Result<Self> {
        let socket = netns.run(|| UdpSocket::bind(at))??;
        socket.set_read_timeout(Some(TICK))?;
        let (stop, name) = (Arc::<AtomicBool>::default(), name.to_owned());
        let stopped = stop.clone();
        let respond = move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = socket.recv_from(&mut [0; 64]) {
                    // A caller that is gone is not an error.
                    drop(socket.send_to(format!("{name} {peer}").as_bytes(), peer));
                }
            }
        };
        Ok(Self {
            stop,
            thread: Some(std::thread::spawn(respond)),
        })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A client that keeps its port, as one that does not notice that the server has changed.
#[derive(Debug)]
pub struct Caller {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Caller {
    /// A socket in `netns` that sends to `to` and hears only from there.
    ///
    /// # Errors
    /// If there is no route.
    pub fn new(netns: &Netns, to: SocketAddr) -> io::Result<Self> {
        let own = match to {
            SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
        };
        let socket = netns.run(|| UdpSocket::bind(own))??;
        socket.connect(to)?;
        socket.set_read_timeout(Some(AGAIN))?;
        Ok(Self { socket, to })
    }

    /// Sends until there is an answer: who gave it, and which address it saw.
    ///
    /// # Errors
    /// If there is none after `tries`.
    pub fn call(&self, tries: u32) -> io::Result<(String, IpAddr)> {
        for _ in 0..tries {
            // The port may be closed at the moment.
            drop(self.socket.send(b"who?"));
            let mut room = [0; 128];
            match self.socket.recv(&mut room) {
                Ok(length) => {
                    let said = String::from_utf8_lossy(&room[..length]).into_owned();
                    let told = said.split_once(' ');
                    let told = told.and_then(|(name, peer)| {
                        Some((name.to_owned(), peer.parse::<SocketAddr>().ok()?.ip()))
                    });
                    return told.ok_or_else(|| {
                        io::Error::other(format!("{} answered \"{said}\"", self.to))
                    });
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::TimedOut.into())
    }
}
