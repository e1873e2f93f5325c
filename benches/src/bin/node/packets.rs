//! What two pods of one node measure: the round trip of a small datagram, and how many arrive per second.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

use datapath::netns::Netns;

use crate::sample::{Sample, now};

const PORT: u16 = 7;
const ROUND_TRIPS: usize = 20_000;
const FLOOD: Duration = Duration::from_millis(700);
/// Time without a datagram after which an echo server ends.
const SILENCE: Duration = Duration::from_secs(2);

/// The result of [`between`].
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Median, microseconds.
    pub round_trip: f64,
    /// Received datagrams per second.
    pub rate: f64,
}

/// Packets at one density of pods, on the node and on one laid out as the AWS VPC CNI's.
#[derive(Clone, Copy, Debug)]
pub struct AtDensity {
    pub pods: u16,
    pub here: Seen,
    pub there: Seen,
}

/// From `client` to the pod `server` at `address`.
///
/// # Errors
/// If a datagram is lost in either direction, or a socket fails.
pub fn between(client: &Netns, server: &Netns, address: IpAddr) -> io::Result<Seen> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = server.run(|| UdpSocket::bind((any, PORT)))??;
    socket.set_read_timeout(Some(SILENCE))?;
    let ours = client.run(|| UdpSocket::bind((any, 0)))??;
    ours.set_read_timeout(Some(SILENCE))?;
    ours.connect((address, PORT))?;
    let round_trip = std::thread::scope(|scope| {
        let echo = scope.spawn(|| echo(&socket));
        let sample = ping_pong(&ours);
        // An empty datagram ends the server.
        ours.send(&[])?;
        echo.join().expect("no panic in it")?;
        sample
    })?;
    Ok(Seen {
        round_trip: round_trip.median(),
        rate: flood(&ours, &socket)?,
    })
}

fn echo(socket: &UdpSocket) -> io::Result<()> {
    let mut byte = [0; 8];
    loop {
        let (length, from) = socket.recv_from(&mut byte)?;
        if length == 0 {
            return Ok(());
        }
        socket.send_to(&byte[..length], from)?;
    }
}

fn ping_pong(socket: &UdpSocket) -> io::Result<Sample> {
    let (mut sample, mut byte) = (Sample::default(), [0; 8]);
    for _ in 0..ROUND_TRIPS {
        let begun = now();
        socket.send(&[1])?;
        socket.recv(&mut byte)?;
        sample.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(sample)
}

/// Sends as fast as one thread can, and counts the datagrams that another thread receives in the same time.
fn flood(from: &UdpSocket, to: &UdpSocket) -> io::Result<f64> {
    to.set_nonblocking(false)?;
    let begun = now();
    std::thread::scope(|scope| {
        let count = scope.spawn(|| {
            let (mut arrived, mut byte) = (0_u32, [0; 8]);
            while to.recv(&mut byte)? > 0 {
                arrived += 1;
            }
            Ok::<_, io::Error>(f64::from(arrived) / begun.elapsed().as_secs_f64())
        });
        while begun.elapsed() < FLOOD {
            from.send(&[1])?;
        }
        // The queue may be full: the end is sent repeatedly until it is received.
        while !count.is_finished() {
            from.send(&[])?;
            std::thread::sleep(Duration::from_millis(1));
        }
        count.join().expect("no panic in it")
    })
}
