//! The real client with a socket: what it sends, how often, and how long it waits.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use aws_sdk_ec2::config::Credentials;
use planner::Class;

use super::*;
use crate::ec2::{
    api::{RouteTable, Subnet},
    classify::classify,
};
use crate::node::http_client::http_client;

/// What the server does with a request.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Answer(u16, &'static str),
    /// As `Answer`, with this `Date`.
    Dated(u16, &'static str, &'static str),
    /// Exactly these bytes, and the end of the connection.
    Bytes(&'static [u8]),
    /// The connection is reset without an answer.
    Reset,
    /// An answer that is sent one byte at a time, forever.
    Trickle,
    Hang,
}

/// One request: head and form.
#[derive(Debug)]
struct Request {
    head: String,
    form: String,
}

/// An EC2 server on the loopback with one behaviour, and the requests that it received.
fn serve(manner: Manner) -> (String, mpsc::Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (seen, requests) = mpsc::channel();
    std::thread::spawn(move || {
        // Held open, otherwise the client would see the end of the connection.
        let mut hanging = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(request) = read(&stream, matches!(manner, Manner::Reset)) else {
                continue;
            };
            if seen.send(request).is_err() {
                return;
            }
            match manner {
                Manner::Answer(status, body) => answer(&mut stream, status, "", body),
                Manner::Dated(status, date, body) => {
                    answer(&mut stream, status, &format!("Date: {date}\r\n"), body);
                }
                Manner::Bytes(bytes) => stream.write_all(bytes).unwrap(),
                // Closed with unread data: the kernel sends a reset.
                Manner::Reset => drop(stream),
                Manner::Trickle => {
                    std::thread::spawn(move || trickle(stream));
                }
                Manner::Hang => hanging.push(stream),
            }
        }
    });
    (url, requests)
}

fn answer(stream: &mut TcpStream, status: u16, more: &str, body: &str) {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n{more}\
         Connection: close\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).unwrap();
}

/// Until the client closes.
fn trickle(mut stream: TcpStream) {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 1000000\r\n\r\n<";
    let mut next: &[u8] = head;
    while stream.write_all(next).is_ok() {
        next = b" ";
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `part`: the last byte of the body stays in the socket.
fn read(stream: &TcpStream, part: bool) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    let length = head.split("content-length: ").nth(1)?;
    let length = length.lines().next()?.parse().ok()?;
    let mut form = vec![0; length];
    if part {
        return Some(Request {
            head,
            form: String::new(),
        });
    }
    reader.read_exact(&mut form).ok()?;
    Some(Request {
        head,
        form: String::from_utf8(form).ok()?,
    })
}

async fn client(url: &str, timeout: Duration) -> Aws {
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(url)
        .http_client(http_client())
        .credentials_provider(Credentials::new("AKIA", "secret", None, None, "test"));
    Aws::configured(loader, "us-west-2".to_owned(), timeout).await
}

fn assign() -> Call {
    Call::AssignPrivateIpAddresses {
        eni: EniId::from("eni-1"),
        amount: Amount::Addresses(5),
    }
}

const SUBNETS: &str = r#"<DescribeSubnetsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
<requestId>r</requestId><subnetSet><item><subnetId>subnet-1</subnetId><cidrBlock>10.0.0.0/16</cidrBlock>
<availabilityZone>eu-west-1a</availabilityZone><availableIpAddressCount>250</availableIpAddressCount>
<tagSet><item><key>kubernetes.io/role/cni</key><value>1</value></item></tagSet></item></subnetSet>
</DescribeSubnetsResponse>"#;

const THROTTLED: &str = r"<Response><Errors><Error><Code>RequestLimitExceeded</Code>
<Message>Request limit exceeded.</Message></Error></Errors><RequestID>r</RequestID></Response>";

const INTERNAL: &str = r"<Response><Errors><Error><Code>InternalError</Code>
<Message>An internal error has occurred.</Message></Error></Errors><RequestID>r</RequestID></Response>";

#[tokio::test]
async fn a_request_has_the_caller_and_the_version() {
    let (url, requests) = serve(Manner::Answer(200, SUBNETS));
    let call = Call::DescribeSubnets {
        filters: vec![(
            "subnet-id".into(),
            vec!["subnet-1".into(), "subnet-2".into()],
        )],
    };
    let client = client(&url, Duration::from_secs(20)).await;
    let Reply::Subnets(found) = client.call(call).await.unwrap() else {
        panic!("another reply")
    };
    assert_eq!(
        found,
        [Subnet {
            subnet: SubnetId::from("subnet-1"),
            cidr: "10.0.0.0/16".parse().unwrap(),
            zone: Some("eu-west-1a".into()),
            free: 250,
            tags: [("kubernetes.io/role/cni".into(), "1".into())].into(),
        }]
    );
    let Request { head, form } = requests.recv().unwrap();
    let agent = head
        .lines()
        .find(|line| line.starts_with("x-amz-user-agent:"));
    let name = concat!("app/hawser-", env!("CARGO_PKG_VERSION"));
    assert!(agent.is_some_and(|line| line.contains(name)), "{head}");
    let mut pairs = form.split('&');
    assert!(pairs.any(|pair| pair == "Action=DescribeSubnets"), "{form}");
    assert!(pairs.any(|pair| pair == "Version=2016-11-15"), "{form}");
    assert!(
        pairs.any(|pair| pair == "Filter.1.Value.2=subnet-2"),
        "{form}"
    );
}

const ROUTE_TABLES: &str = r#"<DescribeRouteTablesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
<requestId>r</requestId><routeTableSet><item><routeTableId>rtb-1</routeTableId><associationSet>
<item><main>true</main><routeTableId>rtb-1</routeTableId></item></associationSet></item>
<item><routeTableId>rtb-2</routeTableId><associationSet>
<item><main>false</main><subnetId>subnet-1</subnetId></item></associationSet></item></routeTableSet>
</DescribeRouteTablesResponse>"#;

#[tokio::test]
async fn route_tables_name_their_subnets() {
    let (url, requests) = serve(Manner::Answer(200, ROUTE_TABLES));
    let client = client(&url, Duration::from_secs(20)).await;
    let call = Call::DescribeRouteTables {
        vpc: "vpc-1".into(),
    };
    let Reply::RouteTables(found) = client.call(call).await.unwrap() else {
        panic!("another reply")
    };
    let table = |id: &str, main, subnets: &[&str]| RouteTable {
        id: id.into(),
        main,
        subnets: subnets.iter().map(|id| SubnetId::from(*id)).collect(),
    };
    assert_eq!(
        found,
        [
            table("rtb-1", true, &[]),
            table("rtb-2", false, &["subnet-1"])
        ]
    );
    let Request { form, .. } = requests.recv().unwrap();
    assert!(form.contains("Filter.1.Name=vpc-id"), "{form}");
}

/// By default, the SDK would send each of these three times, and Assign would assign three times.
#[tokio::test]
async fn a_call_is_sent_once_whatever_the_answer() {
    for (status, body, code, class) in [
        (
            503,
            THROTTLED,
            "RequestLimitExceeded",
            Class::Throttled { retry_after: None },
        ),
        (500, INTERNAL, "InternalError", Class::Ambiguous),
    ] {
        let (url, requests) = serve(Manner::Answer(status, body));
        let client = client(&url, Duration::from_secs(20)).await;
        let error = client.call(assign()).await.unwrap_err();
        assert_eq!(error.code.as_deref(), Some(code));
        assert_eq!(classify(&assign(), &error, "eu-west-1").class, class);
        assert_eq!(requests.try_iter().count(), 1, "{code}");
    }
}

#[tokio::test]
async fn a_call_without_an_answer_ends_in_time_and_may_have_taken_effect() {
    let (url, requests) = serve(Manner::Hang);
    let client = client(&url, Duration::from_millis(500)).await;
    let begun = tokio::time::Instant::now();
    let error = client.call(assign()).await.unwrap_err();
    let took = begun.elapsed();
    let bounds = Duration::from_millis(450)..Duration::from_secs(5);
    assert!(bounds.contains(&took), "{took:?}");
    assert_eq!((error.code.as_deref(), error.refused), (None, false));
    assert_eq!(
        classify(&assign(), &error, "eu-west-1").class,
        Class::Ambiguous
    );
    assert_eq!(requests.try_iter().count(), 1);
}

#[tokio::test]
async fn a_call_that_was_not_sent_has_no_effect() {
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", refusing.local_addr().unwrap());
    drop(refusing);
    let client = client(&url, Duration::from_secs(20)).await;
    let error = client.call(assign()).await.unwrap_err();
    assert!(error.refused, "{error}");
    assert_eq!(
        classify(&assign(), &error, "eu-west-1").class,
        Class::Transient
    );
}

/// An unreadable answer may have taken effect, unless the call only reads. All of its bytes come from the network, so
/// it must not crash the daemon.
async fn unreadable(manner: Manner) {
    let (url, requests) = serve(manner);
    let client = client(&url, Duration::from_secs(2)).await;
    let error = client.call(assign()).await.unwrap_err();
    assert_eq!(
        (error.code.as_deref(), error.refused),
        (None, false),
        "{error}"
    );
    assert_eq!(
        classify(&assign(), &error, "eu-west-1").class,
        Class::Ambiguous,
        "{manner:?}"
    );
    assert_eq!(requests.try_iter().count(), 1, "{manner:?}");
    let list = Call::DescribeNetworkInterfaces {
        filters: Vec::new(),
    };
    let error = client.call(list.clone()).await.unwrap_err();
    assert_eq!(
        classify(&list, &error, "eu-west-1").class,
        Class::Transient,
        "{error}"
    );
}

#[tokio::test]
async fn fault_15_a_connection_reset_may_hide_a_success() {
    unreadable(Manner::Reset).await;
}

#[tokio::test]
async fn fault_15_an_html_page_is_an_error() {
    const GATEWAY: &str =
        "<html><head><title>502 Bad Gateway</title></head><body><hr>nginx</body></html>";
    unreadable(Manner::Answer(502, GATEWAY)).await;
    unreadable(Manner::Answer(200, GATEWAY)).await;
    unreadable(Manner::Answer(500, "")).await;
}

#[tokio::test]
async fn fault_15_truncated_xml_is_an_error() {
    const CUT: &str = r#"<AssignPrivateIpAddressesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
<assignedPrivateIpAddressesSet><item><privateIpAddress>10.0.0.5</privateIpAddress></item><item><priva"#;
    unreadable(Manner::Answer(200, CUT)).await;
}

#[tokio::test]
async fn fault_15_a_body_shorter_than_its_length_is_an_error() {
    unreadable(Manner::Bytes(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 5000\r\n\r\n<AssignPrivateIpAddressesResponse",
    ))
    .await;
    unreadable(Manner::Bytes(b"HTTP/1.1 200")).await;
}

#[tokio::test]
async fn fault_15_an_endless_body_times_out() {
    unreadable(Manner::Trickle).await;
}

/// A proxy without TLS, or with another certificate: no request was sent.
#[tokio::test]
async fn fault_15_a_failed_tls_handshake_is_an_error() {
    let (url, _requests) = serve(Manner::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let client = client(&url.replace("http:", "https:"), Duration::from_secs(2)).await;
    let error = client.call(assign()).await.unwrap_err();
    assert_eq!(error.code, None, "{error}");
}

/// EC2 refuses a signature with a wrong time; the answer's date shows the difference.
#[tokio::test]
async fn fault_39_a_wall_clock_that_is_years_off_costs_one_call() {
    const REFUSED: &str = r"<Response><Errors><Error><Code>AuthFailure</Code>
<Message>Signature not yet current</Message></Error></Errors><RequestID>r</RequestID></Response>";
    let date = "Mon, 01 Jan 2035 00:00:00 GMT";
    let (url, requests) = serve(Manner::Dated(401, date, REFUSED));
    let client = client(&url, Duration::from_secs(20)).await;
    let signed = |request: Request| {
        let line = request
            .head
            .lines()
            .find(|line| line.starts_with("x-amz-date:"));
        line.map(str::to_owned).unwrap_or_default()
    };
    client.call(assign()).await.unwrap_err();
    assert!(!signed(requests.recv().unwrap()).contains("2035"));
    client.call(assign()).await.unwrap_err();
    let second = signed(requests.recv().unwrap());
    assert!(second.contains("20350101t"), "{second}");
}
