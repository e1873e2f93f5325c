//! Requests and answers of a route socket: sequence numbers, batches, dumps.
//!
//! Owns the matching of answers with requests. Knows the contents of messages only through the packet crate.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP_INTR, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use tracing::trace;

use super::channel::HEADER;
use super::{Channel, Error, Frame, Kind, Request, Tally, align4};
use crate::netns::{Netns, NetnsId};

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
/// Attributes that explain the error follow it.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Requests per datagram. Each of them may fail before `sendmsg` returns, and the answers must fit into the default
/// receive buffer (208 KiB; a small answer counts for about 1 KiB). Otherwise the kernel drops some and returns
/// `ENOBUFS`.
const BATCH: usize = 64;

/// A dump that is disturbed by concurrent changes this often is given up.
const DUMP_ATTEMPTS: u32 = 10;

/// A blocking `NETLINK_ROUTE` socket. It acts in the namespace in which it was opened, from any thread or process.
#[derive(Debug)]
pub struct Socket {
    channel: Channel,
    seq: u32,
    out: Vec<u8>,
    changed: Tally,
}

/// The result of each request of a batch, in order.
#[derive(Debug, Default)]
#[must_use]
pub struct Report {
    /// One result per request. The kernel continues after a failure, and so does this list.
    pub results: Vec<Result<(), Error>>,
}

impl Report {
    /// The first failure, if any.
    ///
    /// # Errors
    /// That failure.
    pub fn ok(self) -> Result<(), Error> {
        self.results.into_iter().collect()
    }
}

impl Socket {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::Socket`] if the kernel cannot create a socket.
    pub fn open() -> Result<Self, Error> {
        Channel::open(SockProtocol::NetlinkRoute, 0).map(Self::new)
    }

    /// Opens a socket in `netns`, on a thread that enters it and then ends.
    ///
    /// # Errors
    /// As [`Socket::open`], and [`Error::Namespace`] if the namespace cannot be entered.
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        netns.run(Self::open).map_err(|source| Error::Namespace {
            op: "open socket",
            source,
        })?
    }

    /// Takes over a socket that another process opened and passed with `SCM_RIGHTS`. Its timeouts, subscriptions,
    /// blocking mode and pending answers are reset. Its port stays the same (a bound netlink socket cannot change it).
    ///
    /// # Errors
    /// [`Error::NotRouteNetlink`] for any other descriptor.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        Channel::adopt(fd).map(Self::new)
    }

    fn new(channel: Channel) -> Self {
        Self {
            channel,
            seq: 0,
            out: Vec::new(),
            changed: Tally::default(),
        }
    }

    /// Our port, by which notifications identify the sender of a change.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.channel.port
    }

    /// How many requests of each kind changed something through this socket.
    #[must_use]
    pub fn changed(&self) -> Tally {
        self.changed
    }

    /// The namespace in which this socket acts. Needs `CAP_NET_ADMIN` over it.
    ///
    /// # Errors
    /// [`Error::Socket`] without that capability.
    pub fn netns_id(&self) -> Result<NetnsId, Error> {
        self.channel.netns_id()
    }

    /// Counts a change that belongs to those made here but was made by other means.
    pub(crate) fn count(&mut self, kind: Kind) {
        self.changed.add(kind);
    }

    /// Sends one request and waits for the kernel's acknowledgement.
    ///
    /// # Errors
    /// The kernel's error, or a failure of the socket.
    pub fn apply(&mut self, request: &Request) -> Result<(), Error> {
        self.exchange(std::slice::from_ref(request), |_, _| {})?
            .ok()
    }

    /// Sends all requests in as few datagrams as possible (one for up to 64), and collects every result.
    ///
    /// # Errors
    /// Only if the socket fails. Refused requests are in the report.
    pub fn batch(&mut self, requests: &[Request]) -> Result<Report, Error> {
        let mut report = Report::default();
        for chunk in requests.chunks(BATCH) {
            report
                .results
                .extend(self.exchange(chunk, |_, _| {})?.results);
        }
        Ok(report)
    }

    /// Sends a request for one object and returns the answer.
    ///
    /// # Errors
    /// The kernel's error (such as `ENODEV` if the object does not exist), or a failure of the socket.
    pub fn get(&mut self, request: &Request) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut answers = Vec::new();
        self.exchange(std::slice::from_ref(request), |_, frame| {
            answers.push(parse(request.op, frame))
        })?
        .ok()?;
        answers.into_iter().collect()
    }

    /// Lists objects: `read` converts each message. A dump that the kernel flags as interrupted is repeated.
    ///
    /// Messages are decoded one at a time, because they are large: all links of a full node used ten megabytes for a
    /// moment, which the C library did not return.
    ///
    /// # Errors
    /// The kernel's error, [`Error::Interrupted`] if all attempts were disturbed, or a failure of the socket.
    pub fn dump<T>(
        &mut self,
        request: &Request,
        read: impl Fn(&RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        self.channel.enlarge();
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(objects) = self.dump_once(request, &read)? {
                return Ok(objects);
            }
        }
        Err(Error::Interrupted {
            op: request.op,
            attempts: DUMP_ATTEMPTS,
        })
    }

    /// `None` if the kernel flagged the dump as inconsistent.
    fn dump_once<T>(
        &mut self,
        request: &Request,
        read: impl Fn(&RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Error> {
        let seq = self.send(std::slice::from_ref(request))?;
        let port = self.channel.port;
        let mut objects = Vec::new();
        let mut interrupted = false;
        loop {
            for frame in self.channel.receive(request.op)? {
                let frame = frame?;
                if frame.seq != seq || frame.port != port {
                    trace!(seq = frame.seq, "stale netlink answer skipped");
                    continue;
                }
                interrupted |= frame.flags & NLM_F_DUMP_INTR != 0;
                match frame.kind {
                    NLMSG_ERROR => verdict(request.op, &frame)?,
                    NLMSG_DONE => {
                        verdict(request.op, &frame)?;
                        return Ok((!interrupted).then_some(objects));
                    }
                    _ => objects.extend(read(&parse(request.op, frame)?)),
                }
            }
        }
    }

    /// Sends `requests` in one datagram. `answer` gets every frame that is not an acknowledgement, with the request's
    /// position.
    ///
    /// Only the last request asks for an acknowledgement. The kernel handles requests in order and always reports
    /// errors. When the last acknowledgement arrives, all requests without an error have succeeded. There is only one
    /// answer to read instead of one per request.
    pub(crate) fn exchange(
        &mut self,
        requests: &[Request],
        mut answer: impl FnMut(usize, Frame<'_>),
    ) -> Result<Report, Error> {
        let Some(last) = requests.last() else {
            return Ok(Report::default());
        };
        let first = self.send(requests)?;
        let port = self.channel.port;
        let mut results: Vec<Result<(), Error>> = requests.iter().map(|_| Ok(())).collect();
        let mut pending = true;
        while pending {
            for frame in self.channel.receive(last.op)? {
                let frame = frame?;
                let position = usize::try_from(frame.seq.wrapping_sub(first)).unwrap_or(usize::MAX);
                let Some(request) = requests.get(position).filter(|_| frame.port == port) else {
                    // The answer to a request for which an earlier call stopped waiting.
                    trace!(seq = frame.seq, "stale netlink answer skipped");
                    continue;
                };
                if frame.kind == NLMSG_ERROR {
                    let verdict = verdict(request.op, &frame);
                    trace!(seq = frame.seq, op = request.op, refused = ?verdict.as_ref().err(), "netlink verdict");
                    results[position] = verdict;
                    pending &= position + 1 < requests.len();
                } else {
                    trace!(
                        seq = frame.seq,
                        op = request.op,
                        kind = frame.kind,
                        "netlink answer"
                    );
                    answer(position, frame);
                }
            }
        }
        for (request, result) in requests.iter().zip(&results) {
            if result.is_ok() {
                self.changed.note(&request.message);
            }
        }
        Ok(Report { results })
    }

    /// Serialises `requests` into the reused buffer and sends it. Returns the first one's sequence number.
    fn send(&mut self, requests: &[Request]) -> Result<u32, Error> {
        let first = self.seq.wrapping_add(1);
        self.out.clear();
        for (position, request) in requests.iter().enumerate() {
            self.seq = self.seq.wrapping_add(1);
            trace!(seq = self.seq, ?request, "netlink request");
            let is_last = position + 1 == requests.len();
            let flags = request.flags & if is_last { u16::MAX } else { !NLM_F_ACK };
            append(&mut self.out, request, flags, self.seq);
        }
        self.channel
            .send(requests.first().map_or("empty batch", |r| r.op), &self.out)?;
        Ok(first)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Writes one message after another, without the copy that the packet crate's own framing would make.
fn append(out: &mut Vec<u8>, request: &Request, flags: u16, seq: u32) {
    let start = out.len();
    let length = HEADER + request.message.buffer_len();
    out.resize(start + align4(length), 0);
    let (header, payload) = out[start..start + length].split_at_mut(HEADER);
    header[0..4].copy_from_slice(
        &u32::try_from(length)
            .expect("a message is far below 4 GiB")
            .to_ne_bytes(),
    );
    header[4..6].copy_from_slice(&request.message.message_type().to_ne_bytes());
    header[6..8].copy_from_slice(&flags.to_ne_bytes());
    header[8..12].copy_from_slice(&seq.to_ne_bytes());
    request.message.emit(payload);
}

/// The result in an `NLMSG_ERROR` or `NLMSG_DONE`, with the kernel's explanation if there is one.
pub(crate) fn verdict(op: &'static str, frame: &Frame<'_>) -> Result<(), Error> {
    let payload = frame.payload();
    let code = match payload.get(..4) {
        Some(bytes) => i32::from_ne_bytes(bytes.try_into().expect("four bytes were taken")),
        // On old kernels, an empty NLMSG_DONE is a success.
        None if frame.kind == NLMSG_DONE => 0,
        None => return Err(Error::Truncated { op }),
    };
    if code == 0 {
        return Ok(());
    }
    let errno = Errno::from_raw(code.saturating_neg());
    Err(Error::Kernel {
        op,
        errno,
        message: explanation(frame),
    })
}

/// The text of the extended acknowledgement. It follows the error code and, for an error, the header of the refused
/// request (only the header, because `NETLINK_CAP_ACK` is set).
fn explanation(frame: &Frame<'_>) -> Option<String> {
    if frame.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let skip = if frame.kind == NLMSG_ERROR { 4 + 16 } else { 4 };
    let attributes = NlasIterator::new(frame.payload().get(skip..)?);
    let text = attributes
        .flatten()
        .find(|a| a.kind() == NLMSGERR_ATTR_MSG)?;
    Some(
        String::from_utf8_lossy(text.value())
            .trim_end_matches('\0')
            .to_owned(),
    )
}

pub(crate) fn parse(op: &'static str, frame: Frame<'_>) -> Result<RouteNetlinkMessage, Error> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(frame.raw)
        .map_err(|source| Error::Decode { op, source })?;
    trace!(seq = frame.seq, op, message = ?message.payload, "netlink answer");
    match message.payload {
        NetlinkPayload::InnerMessage(inner) => Ok(inner),
        _ => Err(Error::Truncated { op }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::netlink::Family;
    use crate::netlink::addr::{self, Address};
    use crate::testing::{netns, socket_in};

    const LOOPBACK: u32 = 1;

    /// Another program repeatedly adds and removes an address while a list is read that takes several datagrams.
    #[test]
    fn a_disturbed_dump_is_noticed_and_repeated() {
        let netns = netns();
        let mut socket = socket_in(&netns);
        let stable: Vec<_> = (0..1500)
            .map(|i| Address::host(LOOPBACK, std::net::Ipv4Addr::from(0x0a00_0000 + i)))
            .collect();
        let requests: Vec<_> = stable.iter().map(addr::add).collect();
        socket.batch(&requests).unwrap().ok().unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut other = socket_in(&netns);
                let flicker = Address::host(LOOPBACK, std::net::Ipv4Addr::from([10, 9, 9, 9]));
                while !stop.load(Ordering::Relaxed) {
                    other.apply(&addr::add(&flicker)).unwrap();
                    other.apply(&addr::del(&flicker)).unwrap();
                }
            });
            let noticed = (0..5000).any(|_| {
                socket
                    .dump_once(&addr::dump(Family::V4, None), Address::from_message)
                    .is_ok_and(|m| m.is_none())
            });
            let given_up = socket.addresses(Family::V4, None).err();
            stop.store(true, Ordering::Relaxed);
            assert!(noticed, "no dump was disturbed");
            assert!(given_up.is_none_or(|e| matches!(
                e,
                Error::Interrupted {
                    attempts: DUMP_ATTEMPTS,
                    ..
                }
            )));
        });
        let listed = socket.addresses(Family::V4, None).unwrap();
        assert!(stable.iter().all(|address| listed.contains(address)));
    }
}
