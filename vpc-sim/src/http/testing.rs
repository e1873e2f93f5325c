//! A simple HTTP/1.1 client over loopback, for the tests of both APIs: the tests contain the exact bytes that it sends.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use crate::{Api, LaunchInstance, SimConfig, ids::InstanceId};

/// Long enough for a busy machine; only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A parsed answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A default world, with IPv6 and one instance, served on loopback.
pub fn serve(fixed: bool) -> (Api, InstanceId) {
    let mut config = SimConfig {
        vpc_ipv6: vec!["2600:1f14::/56".parse().unwrap()],
        ..SimConfig::default()
    };
    config.subnets[0].ipv6 = Some("2600:1f14:0:1::/64".parse().unwrap());
    let mut world = config.build();
    let node = world
        .launch_instance(&LaunchInstance::default(), crate::wall_clock())
        .unwrap()
        .id;
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let api = Api::start(world, bind(), vec![bind()], fixed.then(|| node.clone())).unwrap();
    (api, node)
}

/// Everything that is received until the peer closes.
pub fn raw(
    endpoint: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> String {
    let mut stream = TcpStream::connect(endpoint.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let headers: String = headers
        .iter()
        .map(|(k, v)| format!("{k}: {v}\r\n"))
        .collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n"
    );
    stream
        .write_all(format!("{head}{headers}\r\n{body}").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub fn http(
    endpoint: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let answer = raw(endpoint, method, path, headers, body);
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}
