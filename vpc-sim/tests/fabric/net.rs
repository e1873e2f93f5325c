//! Sockets and addresses in namespaces, and the namespace of the tests.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};

use datapath::{
    netlink::{
        Socket,
        addr::{self, Address},
        link,
        route::{self, Route},
    },
    netns::Netns,
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

/// Longer than any operation here; a test that waits this long fails.
const PATIENCE: Duration = Duration::from_secs(5);

/// The start of a request to EC2.
pub const FORM: &str = "POST /\r\nContent-Type: application/x-www-form-urlencoded";

/// Creates a network namespace for the whole process; without root, in a user namespace. The machine's own network is
/// not affected.
pub fn enter() -> Result<(), String> {
    let (uid, gid) = (geteuid(), getegid());
    let user = if uid.is_root() {
        CloneFlags::empty()
    } else {
        CloneFlags::CLONE_NEWUSER
    };
    unshare(CloneFlags::CLONE_NEWNET | user)
        .map_err(|e| format!("no namespaces ({e}): run as root, or allow user namespaces"))?;
    if uid.is_root() {
        return Ok(());
    }
    let map = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text).map_err(|e| format!("{file}: {e}"))
    };
    map("setgroups", "deny".to_owned())?;
    map("uid_map", format!("0 {uid} 1"))?;
    map("gid_map", format!("0 {gid} 1"))
}

/// A UDP socket in `netns`, bound to `address`. A socket stays in the namespace in which it was created.
pub fn socket_at(netns: &Netns, address: impl Into<IpAddr>) -> io::Result<UdpSocket> {
    let address = address.into();
    let socket = netns.run(|| UdpSocket::bind((address, 0)))??;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Whether the next datagram that `to` receives is this text, from the address of `from`.
pub fn sends(from: &UdpSocket, to: &UdpSocket, text: &[u8]) -> io::Result<bool> {
    from.send_to(text, to.local_addr()?)?;
    let mut buffer = [0; 64];
    let (len, sender) = to.recv_from(&mut buffer)?;
    Ok(&buffer[..len] == text && sender == from.local_addr()?)
}

/// Configures `address` on a link, as a node can do with any address.
pub fn take_address(
    netns: &Netns,
    link: &str,
    address: impl Into<IpAddr>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut socket = Socket::open_in(netns)?;
    let index = socket.link_by_name(link)?.ok_or("no such link")?.index;
    let address = address.into();
    socket.apply(&addr::add(&Address::host(index, address)))?;
    if address.is_ipv6() {
        socket.apply(&route::add(&Route::own(address, index)))?;
    }
    Ok(())
}

/// Runs a script in `netns`.
pub fn shell(netns: &Netns, script: &str) -> Result<(), Box<dyn std::error::Error>> {
    let run = || Command::new("sh").args(["-ec", script]).output();
    let output = netns.run(run)??;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into())
}

/// Sets a link up and makes the kernel complete it (`Sim::settle` does the same at its other end).
pub fn up(netns: &Netns, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut socket = Socket::open_in(netns)?;
    let index = socket.link_by_name(name)?.ok_or("no such link")?.index;
    socket.apply(&link::up(index))?;
    socket.link_by_index(index)?;
    Ok(())
}

/// A connection from `netns` to an HTTP server.
pub fn connect(netns: &Netns, server: Ipv4Addr) -> io::Result<TcpStream> {
    let stream =
        netns.run(|| TcpStream::connect_timeout(&SocketAddr::from((server, 80)), PATIENCE))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends a request and reads until the connection ends. `head`: method and path, then further header lines.
pub fn exchange(stream: &mut TcpStream, head: &str, body: &str) -> io::Result<String> {
    let (line, headers) = head.split_once("\r\n").unwrap_or((head, "X-Empty: 1"));
    let length = body.len();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Status and body.
pub fn http(netns: &Netns, server: Ipv4Addr, head: &str, body: &str) -> io::Result<(u16, String)> {
    let answer = exchange(&mut connect(netns, server)?, head, body)?;
    let malformed = || io::Error::other(format!("not an HTTP answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .ok_or_else(malformed)?;
    Ok((status, body.to_owned()))
}
