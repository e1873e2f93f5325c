//! The rate of one TCP connection between two namespaces. Owns two sockets and a thread, and changes nothing in the network.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use datapath::netns::Netns;

/// What is not counted: slow start, and the burst that a bucket lets pass.
const BEGINNING: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(10);

/// Sends as fast as possible from `from` to the address `to` in its namespace, and returns the bits of payload per second that
/// arrive in the `window` after the beginning.
///
/// # Errors
/// If there is no connection, or nothing arrives for seconds.
#[expect(clippy::disallowed_methods, reason = "the lab measures real time")]
pub fn throughput(
    from: &Netns,
    (to, at): (&Netns, SocketAddr),
    window: Duration,
) -> io::Result<f64> {
    let listener = to.run(|| TcpListener::bind(at))??;
    let mut sender = from.run(|| TcpStream::connect_timeout(&at, LIMIT))??;
    let (mut receiver, _) = listener.accept()?;
    receiver.set_read_timeout(Some(LIMIT))?;
    let sending = std::thread::spawn(move || {
        let data = vec![0; 256 << 10];
        // Until the receiver is gone.
        while sender.write_all(&data).is_ok() {}
    });
    let mut buffer = vec![0; 1 << 20];
    let mut receive = |time: Duration| -> io::Result<f64> {
        let (begun, mut bits) = (Instant::now(), 0.0);
        while begun.elapsed() < time {
            match u32::try_from(receiver.read(&mut buffer)?) {
                Ok(bytes) if bytes > 0 => bits += 8.0 * f64::from(bytes),
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(bits / begun.elapsed().as_secs_f64())
    };
    let measured = receive(BEGINNING).and_then(|_| receive(window));
    drop(receiver);
    drop(sending.join());
    measured
}
