//! The VPC's resolver. It answers with the names of instances and with names that a test sets.
//!
//! Owns the wire format and the answers. Serves UDP on sockets that the caller bound; EC2's resolver also serves TCP.
//! Knows no namespaces.

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket as StdSocket},
    sync::Arc,
};

use tokio::net::UdpSocket;

use crate::state::Shared;

/// The resolver's address in every VPC, in addition to the VPC's base address plus two.
pub const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);

const HEADER: usize = 12;
/// The maximum length of a UDP message without an extension, which this resolver does not support.
const LONGEST: usize = 512;
const CLASS_IN: u16 = 1;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const TTL_SECONDS: u32 = 60;
/// Response, authoritative, recursion available.
const ANSWER_FLAGS: u16 = 0x8480;
const RECURSION_DESIRED: u16 = 0x0100;
const OPERATION: u16 = 0x7800;
const NOT_IMPLEMENTED: u16 = 4;
const NO_SUCH_NAME: u16 = 3;

/// Answers on `socket` until the runtime ends.
pub(crate) async fn serve(socket: StdSocket, shared: Arc<Shared>) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    let mut buffer = [0; LONGEST];
    loop {
        // A client that disappeared makes the next receive fail (ICMP). This must not end the server.
        let Ok((len, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let reply = {
            let given = shared.names();
            let region = shared.world().region().to_owned();
            answer(&buffer[..len], |name| {
                let known = given.get(name).cloned();
                known.or_else(|| Some(vec![instance_address(name, &region)?.into()]))
            })
        };
        if let Some(reply) = reply {
            drop(socket.send_to(&reply, client).await);
        }
    }
}

/// The address in `ip-10-0-0-5.us-west-2.compute.internal`. EC2 answers for every address of the VPC, used or not.
fn instance_address(name: &str, region: &str) -> Option<Ipv4Addr> {
    let suffix = format!(".{region}.compute.internal");
    let host = name.strip_suffix(&suffix)?.strip_prefix("ip-")?;
    host.replace('-', ".").parse().ok()
}

/// The reply to a query; none if the message is not a query with one question. `look_up` returns the addresses of a
/// name, if it exists.
fn answer(query: &[u8], look_up: impl Fn(&str) -> Option<Vec<IpAddr>>) -> Option<Vec<u8>> {
    let flags = word(query, 2)?;
    if flags & 0x8000 != 0 || word(query, 4)? != 1 {
        return None;
    }
    let (name, end) = name(query, HEADER)?;
    let (kind, class) = (word(query, end)?, word(query, end + 2)?);
    let found = look_up(&name);
    let code = match &found {
        _ if flags & OPERATION != 0 || class != CLASS_IN => NOT_IMPLEMENTED,
        Some(_) => 0,
        None => NO_SUCH_NAME,
    };
    let mut records = Vec::new();
    let mut count: u16 = 0;
    for address in found.filter(|_| code == 0).unwrap_or_default() {
        let bytes = match (kind, address) {
            (TYPE_A, IpAddr::V4(address)) => address.octets().to_vec(),
            (TYPE_AAAA, IpAddr::V6(address)) => address.octets().to_vec(),
            _ => continue,
        };
        // A pointer to the name in the question.
        records.extend([0xc0, 0x0c]);
        records.extend(kind.to_be_bytes());
        records.extend(CLASS_IN.to_be_bytes());
        records.extend(TTL_SECONDS.to_be_bytes());
        records.extend([0, u8::try_from(bytes.len()).unwrap_or_default()]);
        records.extend(bytes);
        count += 1;
    }
    let flags = ANSWER_FLAGS | flags & (RECURSION_DESIRED | OPERATION) | code;
    let mut reply = query.get(..2)?.to_vec();
    for word in [flags, 1, count, 0, 0] {
        reply.extend(word.to_be_bytes());
    }
    reply.extend(query.get(HEADER..end + 4)?);
    reply.extend(records);
    Some(reply)
}

/// The name at `at`, in lower case, and its end. The name in a question is never compressed.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        match len {
            0 => return Some((labels.join("."), at)),
            1..=63 => {
                let label = std::str::from_utf8(message.get(at..at + len)?).ok()?;
                labels.push(label.to_ascii_lowercase());
                at += len;
            }
            _ => return None,
        }
    }
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}
