//! Which system calls of the daemon are effects, and their names.
//!
//! Reads the traced process through `/proc` and changes nothing. A call that only reads (dumps, files, the metadata
//! service), wakes (eventfds) or logs is not an effect.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::FileExt,
};

use nix::{libc, unistd::Pid};

use super::registers::Call;

/// How many bytes of written data are read: enough for any netlink batch and the head of an EC2 request.
const HEAD: usize = 16 * 1024;

/// The kind of effect, which determines the sides on which there is a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Done when the call returns.
    Change,
    /// Sent when the call returns, done when EC2 has executed it.
    Request,
    /// Received when the call returns.
    Answer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    pub kind: Kind,
    pub name: String,
}

/// The purpose of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    /// A connection of a plugin.
    Plugin,
    Tcp,
    /// Netlink in the daemon's namespace, with its protocol.
    Host(i32),
    /// Netlink in a pod's namespace, passed by a plugin.
    Pod,
}

/// Identifies the effects of one process.
#[derive(Debug)]
pub struct Reader {
    pid: Pid,
    sockets: HashMap<String, Socket>,
    /// The last EC2 request on each connection, by its inode.
    asked: HashMap<String, String>,
}

impl Reader {
    #[must_use]
    pub fn new(pid: Pid) -> Self {
        Self {
            pid,
            sockets: HashMap::new(),
            asked: HashMap::new(),
        }
    }

    /// The effect of the call that a thread is about to enter, if any.
    pub fn of(&mut self, call: Call) -> Option<Effect> {
        let change = |name: String| Effect {
            kind: Kind::Change,
            name,
        };
        match call.number {
            libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_sendto => {
                let data = self.bytes(call.arguments[1], call.arguments[2]);
                self.written(call, &data)
            }
            libc::SYS_writev => {
                let data = self.gathered(call.arguments[1], call.arguments[2]);
                self.written(call, &data)
            }
            // `msghdr` has the pieces and their number after a name and its length.
            libc::SYS_sendmsg => {
                let (pieces, count) = (call.arguments[1] + 16, call.arguments[1] + 24);
                let data = self.gathered(self.word(pieces), self.word(count));
                self.written(call, &data)
            }
            libc::SYS_fsync | libc::SYS_fdatasync => {
                Some(change(format!("{} sync", self.file(call)?)))
            }
            libc::SYS_ftruncate | libc::SYS_fallocate => {
                Some(change(format!("{} resize", self.file(call)?)))
            }
            libc::SYS_read | libc::SYS_recvfrom | libc::SYS_readv | libc::SYS_recvmsg => {
                let asked = self.asked.get(&self.link(call)?)?;
                Some(Effect {
                    kind: Kind::Answer,
                    name: format!("EC2 answer to {asked}"),
                })
            }
            number => named(number).map(|(operation, at)| {
                let path = self.path(call.arguments[at]);
                change(format!("{operation} {path}"))
            }),
        }
    }

    fn written(&mut self, call: Call, data: &[u8]) -> Option<Effect> {
        let target = self.link(call)?;
        let Some(inode) = target.strip_prefix("socket:") else {
            let name = format!("{} write", self.file(call)?);
            return Some(Effect {
                kind: Kind::Change,
                name,
            });
        };
        // Only netlink has a destination address, which is the fifth argument.
        let addressed = call.number == libc::SYS_sendto && call.arguments[4] != 0;
        let (kind, name) = match self.socket(inode, addressed)? {
            Socket::Plugin => (Kind::Change, "answer to the plugin".to_owned()),
            Socket::Tcp => {
                let action = action(data)?;
                self.asked.insert(target, action.clone());
                (Kind::Request, format!("EC2 {action}"))
            }
            // It only reads.
            Socket::Host(libc::NETLINK_SOCK_DIAG) => return None,
            Socket::Host(libc::NETLINK_NETFILTER) => (Kind::Change, netfilter(data)?.to_owned()),
            Socket::Host(_) => (Kind::Change, format!("host {}", requests(data)?)),
            Socket::Pod => (Kind::Change, format!("pod {}", requests(data)?)),
        };
        Some(Effect { kind, name })
    }

    /// The name of the file behind the call's descriptor; none if it is not a file, and for the log.
    fn file(&self, call: Call) -> Option<String> {
        let target = self.link(call)?;
        let log = call.arguments[0] <= 2;
        let path = target.strip_prefix('/').filter(|_| !log)?;
        let known = path.starts_with("proc/sys/").then_some(path);
        Some(known.unwrap_or(path.rsplit('/').next()?).to_owned())
    }

    fn link(&self, call: Call) -> Option<String> {
        let path = format!("/proc/{}/fd/{}", self.pid, call.arguments[0]);
        Some(fs::read_link(path).ok()?.to_str()?.to_owned())
    }

    fn socket(&mut self, inode: &str, addressed: bool) -> Option<Socket> {
        if let Some(known) = self.sockets.get(inode) {
            return Some(*known);
        }
        let found = self.look_up(inode.trim_matches(['[', ']']), addressed)?;
        self.sockets.insert(inode.to_owned(), found);
        Some(found)
    }

    /// The kernel's tables of the daemon's namespace list its sockets, but neither those of other namespaces nor
    /// accepted connections of a Unix socket. None if the process is ending: it has no namespace any more, while other
    /// threads than the main one may still be in a call.
    fn look_up(&self, inode: &str, addressed: bool) -> Option<Socket> {
        let table = |name: &str| fs::read_to_string(format!("/proc/{}/net/{name}", self.pid));
        let (tcp, netlink) = (table("tcp").unwrap_or_default(), table("netlink").ok()?);
        let listed = |text: &str, column: usize| -> Option<Vec<String>> {
            let mut lines = text.lines().map(str::split_whitespace);
            let line = lines.find(|line| line.clone().nth(column) == Some(inode))?;
            Some(line.map(str::to_owned).collect())
        };
        if listed(&tcp, 9).is_some() {
            return Some(Socket::Tcp);
        }
        let protocol = listed(&netlink, 9).and_then(|line| line.get(1)?.parse().ok());
        Some(match protocol {
            Some(protocol) => Socket::Host(protocol),
            None if addressed => Socket::Pod,
            None => Socket::Plugin,
        })
    }

    fn bytes(&self, at: u64, length: u64) -> Vec<u8> {
        let length = usize::try_from(length).unwrap_or(HEAD).min(HEAD);
        let mut bytes = vec![0; length];
        // Opened each time: an old descriptor would show the process before its exec. If it cannot be read, the kernel
        // cannot write it either.
        let memory = File::open(format!("/proc/{}/mem", self.pid));
        let read = memory
            .and_then(|memory| memory.read_at(&mut bytes, at))
            .unwrap_or(0);
        bytes.truncate(read);
        bytes
    }

    fn word(&self, at: u64) -> u64 {
        let bytes = self.bytes(at, 8);
        bytes.try_into().map_or(0, u64::from_ne_bytes)
    }

    /// The concatenation of `count` pieces, each an address and a length.
    fn gathered(&self, pieces: u64, count: u64) -> Vec<u8> {
        let pieces = (0..count.min(16)).map(|n| pieces + 16 * n);
        pieces
            .flat_map(|piece| self.bytes(self.word(piece), self.word(piece + 8)))
            .collect()
    }

    fn path(&self, at: u64) -> String {
        let bytes = self.bytes(at, 4096);
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let path = String::from_utf8_lossy(text).into_owned();
        path.rsplit('/').next().unwrap_or_default().to_owned()
    }
}

/// Calls that change a directory, and the index of the argument with the entry's name.
fn named(number: i64) -> Option<(&'static str, usize)> {
    match number {
        libc::SYS_unlinkat => Some(("unlink", 1)),
        libc::SYS_mkdirat => Some(("mkdir", 1)),
        libc::SYS_renameat2 | libc::SYS_renameat => Some(("rename", 1)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink => Some(("unlink", 0)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir => Some(("mkdir", 0)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename => Some(("rename", 0)),
        _ => None,
    }
}

/// The action of an EC2 request; none for a request to another server.
fn action(data: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(data);
    let (_, rest) = text.split_once("Action=")?;
    let action = rest.split(|c: char| !c.is_ascii_alphanumeric()).next()?;
    Some(action.to_owned())
}

/// The names of the route-netlink requests in one datagram; none if all of them only read.
///
/// The kernel handles a datagram inside the call that writes it, so there is no boundary between its requests.
fn requests(data: &[u8]) -> Option<String> {
    let mut names = Vec::new();
    let mut rest = data;
    while let Some(header) = rest.first_chunk::<6>() {
        let [a, b, c, d, e, f] = *header;
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok()?;
        let kind = u16::from_ne_bytes([e, f]);
        names.extend(request(kind).map(|name| match name {
            "setlink" if has_name(rest.get(..length).unwrap_or_default()) => "renamelink",
            name => name,
        }));
        rest = rest
            .get(length.next_multiple_of(4).max(16)..)
            .unwrap_or_default();
    }
    names.dedup();
    (!names.is_empty()).then(|| names.join("+"))
}

/// Whether a message about a link, addressed by its index, has a name too: it renames the link.
fn has_name(message: &[u8]) -> bool {
    const HEADERS: usize = 16 + 16;
    const IFLA_IFNAME: u16 = 3;
    let mut rest = message.get(HEADERS..).unwrap_or_default();
    while let Some([a, b, c, d]) = rest.first_chunk() {
        if u16::from_ne_bytes([*c, *d]) == IFLA_IFNAME {
            return true;
        }
        let length = usize::from(u16::from_ne_bytes([*a, *b])).max(4);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// `rtm_type`; the lowest two bits distinguish new, del, get and set.
fn request(kind: u16) -> Option<&'static str> {
    const GET: u16 = 2;
    if kind & 3 == GET {
        return None;
    }
    Some(match kind {
        16 => "newlink",
        17 => "dellink",
        19 => "setlink",
        20 => "newaddr",
        21 => "deladdr",
        24 => "newroute",
        25 => "delroute",
        28 => "newneigh",
        29 => "delneigh",
        32 => "newrule",
        33 => "delrule",
        36 => "newqdisc",
        37 => "delqdisc",
        _ => "other",
    })
}

/// What a netfilter message changes; none if it only reads. The upper byte of its type is the subsystem.
fn netfilter(data: &[u8]) -> Option<&'static str> {
    const CONNTRACK: u16 = 1;
    const NFTABLES: u16 = 10;
    let kind = u16::from_ne_bytes(data.get(4..6)?.try_into().ok()?);
    match (kind >> 8, kind & 0xff) {
        (CONNTRACK, 1) | (NFTABLES, 1 | 4 | 7 | 10 | 13) => None,
        (CONNTRACK, _) => Some("conntrack"),
        _ => Some("nftables"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32, kind: u16) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(usize::try_from(length).unwrap().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_batch_is_named_after_its_requests() {
        let mut batch = message(18, 24);
        batch.extend(message(16, 24));
        batch.extend(message(16, 28));
        assert_eq!(requests(&batch).as_deref(), Some("newroute+newneigh"));
    }

    #[test]
    fn a_rename_is_told_from_other_changes_of_a_link() {
        let change = |attributes: &[(u16, &[u8])]| {
            let mut bytes = message(32, 19);
            for (kind, value) in attributes {
                let length = u16::try_from(4 + value.len()).unwrap();
                bytes.extend(length.to_ne_bytes());
                bytes.extend(kind.to_ne_bytes());
                bytes.extend_from_slice(value);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            let length = u32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes
        };
        let group: (u16, &[u8]) = (27, &[1, 0, 0, 0]);
        assert_eq!(requests(&change(&[group])).as_deref(), Some("setlink"));
        let renamed = change(&[group, (3, b"eni01\0")]);
        assert_eq!(requests(&renamed).as_deref(), Some("renamelink"));
        let both = [change(&[group]), renamed].concat();
        assert_eq!(requests(&both).as_deref(), Some("setlink+renamelink"));
    }

    #[test]
    fn looking_is_no_effect() {
        assert_eq!(requests(&message(16, 18)), None);
        assert_eq!(requests(&[]), None);
        assert_eq!(netfilter(&message(20, 10 << 8 | 7)), None);
        let beginning_of_a_batch = message(20, 16);
        assert_eq!(netfilter(&beginning_of_a_batch), Some("nftables"));
        assert_eq!(netfilter(&message(20, 1 << 8 | 1)), None);
        assert_eq!(netfilter(&message(20, 1 << 8 | 2)), Some("conntrack"));
        assert_eq!(action(b"GET /latest/meta-data/ HTTP/1.1"), None);
    }

    #[test]
    fn an_ec2_request_is_named_after_its_action() {
        let body = b"POST / HTTP/1.1\r\n\r\nAction=AttachNetworkInterface&Version=2016-11-15";
        assert_eq!(action(body).as_deref(), Some("AttachNetworkInterface"));
    }
}
