//! Forwards connections from the machine's own loopback to a server on a lab node's loopback, for browsers. Copies
//! bytes and does not interpret them.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use datapath::netns::Netns;

/// A listener on the loopback of the namespace in which it was opened.
#[derive(Debug)]
pub struct TcpForward(TcpListener);

impl TcpForward {
    /// Call this before [`crate::sandbox::enter`]: a socket stays in its namespace.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn open() -> io::Result<Self> {
        TcpListener::bind(("127.0.0.1", 0)).map(Self)
    }

    /// Forwards connections to `port` on the loopback of `netns`, until the process ends. Returns the address.
    ///
    /// # Errors
    /// If the listener has no address.
    pub fn lead(self, netns: Arc<Netns>, port: u16) -> io::Result<SocketAddr> {
        let address = self.0.local_addr()?;
        thread::spawn(move || {
            for guest in self.0.incoming().flatten() {
                let host = netns.run(|| TcpStream::connect(("127.0.0.1", port)));
                // If a node does not answer, the client's connection is closed.
                if let Ok(Ok(host)) = host {
                    drop(join(&guest, &host));
                }
            }
        });
        Ok(address)
    }
}

fn join(guest: &TcpStream, host: &TcpStream) -> io::Result<()> {
    for (from, to) in [(guest, host), (host, guest)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        thread::spawn(move || {
            drop(io::copy(&mut from, &mut to));
            drop(to.shutdown(Shutdown::Write));
        });
    }
    Ok(())
}
