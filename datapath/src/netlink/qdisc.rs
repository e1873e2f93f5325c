//! Queueing disciplines at the root of a link, as far as they are used: the token bucket filter. Builds requests and parses
//! answers; makes no decisions.

use netlink_packet_core::{DefaultNla, NLM_F_ECHO, Nla as _, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

use super::{Error, Request, Socket};

/// The handle (`6b00:`) of what we put at the root of a link.
const HANDLE: TcHandle = TcHandle {
    major: 0x6b00,
    minor: 0,
};
const TBF: &str = "tbf";

/// A token bucket filter (`tc-tbf(8)`): packets leave at a rate, and wait in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// In bytes per second. Above 32 bits, the kernel has it in an attribute of its own.
    pub rate: u64,
    /// In bytes: what may leave at once after a pause. A packet that is larger is segmented, or dropped.
    pub burst: u32,
    /// In bytes: what may wait.
    pub limit: u32,
}

/// What is at the root of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qdisc {
    /// The link.
    pub index: u32,
    /// `None` for any other discipline.
    bucket: Option<Seen>,
}

/// A token bucket as the kernel reports it: the burst as the time in which it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    rate: u64,
    /// In the kernel's unit of 64 nanoseconds.
    buffer: u32,
    limit: u32,
}

impl Qdisc {
    /// Parses a `RTM_NEWQDISC` about the root of a link; `None` for any other message.
    #[must_use]
    pub fn from_message(message: &RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewQueueDiscipline(message) = message else {
            return None;
        };
        if message.header.parent != TcHandle::ROOT {
            return None;
        }
        let mut is_tbf = false;
        let mut bucket = None;
        for attribute in &message.attributes {
            match attribute {
                TcAttribute::Kind(kind) => is_tbf = kind == TBF,
                TcAttribute::Options(options) if is_tbf => bucket = seen(options),
                _ => {}
            }
        }
        Some(Self {
            index: index_of(message)?,
            bucket,
        })
    }

    /// Whether it is this token bucket.
    #[must_use]
    pub fn is(&self, wanted: &TokenBucket) -> bool {
        self.bucket.is_some_and(|seen| {
            (seen.rate, seen.limit) == (wanted.rate, wanted.limit)
                && wanted.buffer().abs_diff(seen.buffer.into()) <= wanted.buffer() / 1000 + 1
        })
    }
}

impl TokenBucket {
    /// The time in which the burst is sent, in the kernel's unit, as far as its field can hold it.
    fn buffer(&self) -> u64 {
        const NANOSECONDS: u64 = 1_000_000_000;
        let time = u64::from(self.burst) * NANOSECONDS / self.rate.max(1);
        (time >> 6).min(u32::MAX.into())
    }
}

/// The link that a notification or an answer is about.
#[must_use]
pub fn index_of(message: &TcMessage) -> Option<u32> {
    u32::try_from(message.header.index).ok()
}

/// Puts the token bucket at the root of link `index`, in place of what is there. On a link that is down, this does not wait
/// for packets in progress.
#[must_use]
pub fn set(index: u32, bucket: &TokenBucket) -> Request {
    let mut message = root_of(index);
    message.header.handle = HANDLE;
    let mut options = vec![TcOption::Other(DefaultNla::new(
        PARAMETERS,
        parameters(bucket),
    ))];
    if bucket.rate > u32::MAX.into() {
        let rate = bucket.rate.to_ne_bytes().to_vec();
        options.push(TcOption::Other(DefaultNla::new(RATE64, rate)));
    }
    let burst = bucket.burst.to_ne_bytes().to_vec();
    options.push(TcOption::Other(DefaultNla::new(BURST, burst)));
    message.attributes = vec![
        TcAttribute::Kind(TBF.to_owned()),
        TcAttribute::Options(options),
    ];
    Request::replace(
        "qdisc replace",
        RouteNetlinkMessage::NewQueueDiscipline(message),
    )
}

/// Removes what is at the root of link `index`, so that the kernel's own default is there; `ENOENT` if it is there already.
#[must_use]
pub fn del(index: u32) -> Request {
    let message = RouteNetlinkMessage::DelQueueDiscipline(root_of(index));
    Request::ack("qdisc del", message, 0)
}

/// Requests what is at the root of link `index`. The kernel sends the answer to those who watch, and to the requester only if
/// it wants an echo.
#[must_use]
pub fn get(index: u32) -> Request {
    let message = RouteNetlinkMessage::GetQueueDiscipline(root_of(index));
    Request::ack("qdisc get", message, NLM_F_ECHO)
}

/// Lists the disciplines of all links.
#[must_use]
pub fn dump() -> Request {
    let message = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    Request::dump("qdisc dump", message)
}

impl Socket {
    /// What is at the root of link `index`, if it is not the kernel's own default.
    ///
    /// # Errors
    /// As [`Socket::get`].
    pub fn qdisc(&mut self, index: u32) -> Result<Option<Qdisc>, Error> {
        match self.get(&get(index)) {
            Ok(answers) => Ok(answers.iter().find_map(Qdisc::from_message)),
            Err(e) if e.is_gone() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What is at the root of each link.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub fn qdiscs(&mut self) -> Result<Vec<Qdisc>, Error> {
        self.dump(&dump(), Qdisc::from_message)
    }
}

fn root_of(index: u32) -> TcMessage {
    // Indices are positive numbers of 31 bits.
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle::ROOT;
    message
}

/// `struct tc_tbf_qopt`: the rate, the peak rate, which is not used, the limit, and two sizes that are attributes today.
fn parameters(bucket: &TokenBucket) -> Vec<u8> {
    /// The kernel would otherwise guess it from a table of sizes, which is not sent.
    const ETHERNET: u8 = 1;
    let mut bytes = vec![0; PARAMETERS_LENGTH];
    bytes[1] = ETHERNET;
    let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
    bytes[RATE..RATE + 4].copy_from_slice(&rate.to_ne_bytes());
    bytes[LIMIT..LIMIT + 4].copy_from_slice(&bucket.limit.to_ne_bytes());
    bytes
}

/// Attributes of a token bucket (`TCA_TBF_*`), and offsets in the first one.
const PARAMETERS: u16 = 1;
const RATE64: u16 = 4;
const BURST: u16 = 6;
const PARAMETERS_LENGTH: usize = 36;
const RATE: usize = 8;
const LIMIT: usize = 24;
const BUFFER: usize = 28;

fn seen(options: &[TcOption]) -> Option<Seen> {
    // The packet crate takes the nested attributes of a discipline that it does not know for one attribute.
    let [TcOption::Other(nested)] = options else {
        return None;
    };
    let mut bytes = vec![0; nested.value_len()];
    nested.emit_value(&mut bytes);
    let find = |kind| {
        let mut each = NlasIterator::new(&bytes[..]).flatten();
        let found = each.find(|attribute| attribute.kind() == kind)?;
        Some(found.value().to_vec())
    };
    let parameters = find(PARAMETERS)?;
    let number = |at: usize| {
        let bytes = parameters.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let wide = find(RATE64).and_then(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?)));
    Some(Seen {
        rate: wide.unwrap_or(number(RATE)?.into()),
        buffer: number(BUFFER)?,
        limit: number(LIMIT)?,
    })
}
