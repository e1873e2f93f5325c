//! A stream of numbered packets, a thousand per second, from one namespace to another, which reports the lost ones.
//! Owns two sockets and two threads, and changes nothing in the network.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use datapath::netns::Netns;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

/// A sender that was not scheduled for a while sends at most this many at once: a burst could overrun the kernel's
/// queue between two links.
const MOST_AT_ONCE: u128 = 32;
/// The receiver may not be scheduled for seconds on a busy machine: the buffer for all packets in the meantime, in
/// bytes.
const BUFFER: usize = 16 << 20;
/// A packet that has not arrived this long after the last one was sent is lost.
const LATE: Duration = Duration::from_secs(2);
/// The number of packets while it is not known.
const ENDLESS: u64 = u64::MAX;

/// A running stream.
#[derive(Debug)]
pub struct Stream {
    name: String,
    /// For both threads: the total number of packets, when the sender has ended.
    total: Arc<AtomicU64>,
    stop: Arc<AtomicU64>,
    sender: JoinHandle<io::Result<u64>>,
    receiver: JoinHandle<io::Result<BTreeSet<u64>>>,
    begun: Instant,
}

/// The result of a stream.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub name: String,
    pub sent: u64,
    /// The numbers of the lost packets, from 0.
    pub lost: Vec<u64>,
    pub took: Duration,
}

impl Delivery {
    /// The number of gaps in the stream.
    #[must_use]
    pub fn interruptions(&self) -> usize {
        let lost = &self.lost;
        let begins = lost.iter().zip(lost.iter().skip(1));
        let further = begins.filter(|(before, next)| **before + 1 != **next);
        usize::from(!lost.is_empty()) + further.count()
    }
}

impl Stream {
    /// Starts sending from `source` in its namespace to `target` in its namespace.
    ///
    /// # Errors
    /// If a socket cannot be opened in either namespace.
    #[expect(clippy::disallowed_methods, reason = "the lab measures real time")]
    pub fn start(
        name: &str,
        (from, source): (&Netns, impl Into<IpAddr>),
        (to, target): (&Netns, impl Into<IpAddr>),
    ) -> io::Result<Self> {
        let (source, target): (IpAddr, IpAddr) = (source.into(), target.into());
        let receiver = to.run(|| UdpSocket::bind((target, 0)))??;
        setsockopt(&receiver, RcvBufForce, &BUFFER)?;
        receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
        let sender = from.run(|| UdpSocket::bind((source, 0)))??;
        let at = receiver.local_addr()?;
        let (total, stop) = (
            Arc::new(AtomicU64::new(ENDLESS)),
            Arc::new(AtomicU64::new(0)),
        );
        let (theirs, stopped) = (total.clone(), stop.clone());
        Ok(Self {
            name: name.to_owned(),
            total,
            stop,
            receiver: thread::spawn(move || receive(&receiver, &theirs)),
            sender: thread::spawn(move || send(|packet| sender.send_to(packet, at), &stopped)),
            begun: Instant::now(),
        })
    }

    /// Stops sending and waits for packets in transit.
    ///
    /// # Errors
    /// If a socket failed. A packet that the kernel refused to send is lost, not an error.
    pub fn finish(self) -> io::Result<Delivery> {
        self.stop.store(1, Ordering::Relaxed);
        let sent = self.sender.join().expect("no sender panics")?;
        let took = self.begun.elapsed();
        self.total.store(sent, Ordering::Relaxed);
        let arrived = self.receiver.join().expect("no receiver panics")?;
        Ok(Delivery {
            name: self.name,
            sent,
            lost: (0..sent).filter(|n| !arrived.contains(n)).collect(),
            took,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the lab measures real time")]
fn send(mut one: impl FnMut(&[u8]) -> io::Result<usize>, stop: &AtomicU64) -> io::Result<u64> {
    let (mut begun, mut paced, mut sent) = (Instant::now(), 0_u128, 0_u64);
    while stop.load(Ordering::Relaxed) == 0 {
        let due = begun.elapsed().as_millis().saturating_sub(paced);
        for _ in 0..due.min(MOST_AT_ONCE) {
            match one(&sent.to_be_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
                // Refused, for example because of a missing route: one more packet that does not arrive.
                _ => sent += 1,
            }
            paced += 1;
        }
        if due > MOST_AT_ONCE {
            (begun, paced) = (Instant::now(), 0);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(sent)
}

#[expect(clippy::disallowed_methods, reason = "the lab measures real time")]
fn receive(socket: &UdpSocket, total: &AtomicU64) -> io::Result<BTreeSet<u64>> {
    let mut arrived = BTreeSet::new();
    let mut last = Instant::now();
    let mut packet = [0; 8];
    loop {
        match socket.recv(&mut packet) {
            Ok(8) => {
                arrived.insert(u64::from_be_bytes(packet));
                last = Instant::now();
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let total = total.load(Ordering::Relaxed);
        if total == ENDLESS {
            continue;
        }
        if u64::try_from(arrived.len()).is_ok_and(|n| n >= total) || last.elapsed() > LATE {
            return Ok(arrived);
        }
    }
}
