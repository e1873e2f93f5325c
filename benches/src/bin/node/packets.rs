//! What two pods of one node measure: the round trip of a small datagram, and how many arrive per second.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::{Duration, Instant},
};

use datapath::netns::Netns;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::sample::{Sample, now};

const PORT: u16 = 7;
/// Of one round. The rounds of two layouts alternate, so that both see the same machine.
const ROUND_TRIPS: usize = 8_000;
const FLOOD: Duration = Duration::from_millis(300);
/// Until the last datagram of a flood has arrived.
const LAST: Duration = Duration::from_millis(10);
const ROUNDS: usize = 7;
/// Time without a datagram after which an echo server ends.
const SILENCE: Duration = Duration::from_secs(2);

/// The medians of all rounds.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Median, microseconds.
    pub round_trip: f64,
    /// Datagrams that reach the receiver per second of one processor.
    pub rate: f64,
}

/// Packets at one density of pods, on the node and on one laid out as the AWS VPC CNI's.
#[derive(Clone, Copy, Debug)]
pub struct AtDensity {
    pub pods: u16,
    pub here: Seen,
    pub there: Seen,
    /// Without any rule.
    pub bare: Seen,
}

/// Two pods of one node with open sockets.
#[derive(Debug)]
pub struct Pair {
    client: UdpSocket,
    server: UdpSocket,
    round_trips: Sample,
    rates: Sample,
}

impl Pair {
    /// From `client` to the pod `server` at `address`.
    ///
    /// # Errors
    /// If a socket cannot be opened.
    pub fn open(client: &Netns, server: &Netns, address: IpAddr) -> io::Result<Self> {
        let any: IpAddr = match address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let server = server.run(|| UdpSocket::bind((any, PORT)))??;
        server.set_read_timeout(Some(SILENCE))?;
        let client = client.run(|| UdpSocket::bind((any, 0)))??;
        client.set_read_timeout(Some(SILENCE))?;
        client.connect((address, PORT))?;
        Ok(Self {
            client,
            server,
            round_trips: Sample::default(),
            rates: Sample::default(),
        })
    }

    fn round(&mut self) -> io::Result<()> {
        let (client, server) = (&self.client, &self.server);
        let sample = std::thread::scope(|scope| {
            let echo = scope.spawn(|| on_cpu(1, || echo(server)));
            let asking = scope.spawn(|| on_cpu(0, || ping_pong(client)));
            let sample = asking.join().expect("no panic in it");
            // An empty datagram ends the server.
            client.send(&[])?;
            echo.join().expect("no panic in it")?;
            sample
        })?;
        self.round_trips.push(sample.median());
        self.rates.push(flood(client, server)?);
        Ok(())
    }

    fn seen(&self) -> Seen {
        Seen {
            round_trip: self.round_trips.median(),
            rate: self.rates.median(),
        }
    }
}

/// Measures all pairs in turn, several times.
///
/// # Errors
/// If a datagram is lost in either direction, or a socket fails.
pub fn in_turn<const N: usize>(mut pairs: [Pair; N]) -> io::Result<[Seen; N]> {
    for _ in 0..ROUNDS {
        for pair in &mut pairs {
            pair.round()?;
        }
    }
    Ok(pairs.map(|pair| pair.seen()))
}

/// Runs `work` on one processor, if the machine has it: threads that move make the figures of a run vary.
fn on_cpu<T>(cpu: usize, work: impl FnOnce() -> T) -> T {
    let mut set = CpuSet::new();
    // Without that processor, the thread stays where it is.
    drop(
        set.set(cpu)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
            .map_err(io::Error::from),
    );
    work()
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

/// Sends as fast as one thread can, and counts the datagrams that arrive. The thread's processor does all the work of a
/// packet's way, up to the receiver's queue.
///
/// The receiver polls. If it slept, the sender would have to wake it for most datagrams, and if it were slower than the
/// sender, its own system calls would be measured: in both cases, every layout would seem equal.
fn flood(from: &UdpSocket, to: &UdpSocket) -> io::Result<f64> {
    to.set_nonblocking(true)?;
    let begun = now();
    let arrived = std::thread::scope(|scope| {
        let count = scope.spawn(|| on_cpu(1, || arrivals(to, begun)));
        let sent = scope.spawn(|| {
            on_cpu(0, || {
                while begun.elapsed() < FLOOD {
                    from.send(&[1])?;
                }
                Ok::<_, io::Error>(())
            })
        });
        sent.join().expect("no panic in it")?;
        count.join().expect("no panic in it")
    })?;
    to.set_nonblocking(false)?;
    Ok(f64::from(arrived) / FLOOD.as_secs_f64())
}

/// The number of datagrams until the flood is over and the queue is empty.
fn arrivals(to: &UdpSocket, begun: Instant) -> io::Result<u32> {
    let (mut arrived, mut byte) = (0_u32, [0; 8]);
    loop {
        match to.recv(&mut byte) {
            Ok(_) => arrived += 1,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if begun.elapsed() > FLOOD + LAST => return Ok(arrived),
            Err(_) => std::hint::spin_loop(),
        }
    }
}
