//! The real client against a socket: what it sends, how often, and how long it waits.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use aws_sdk_ec2::config::Credentials;
use planner::Class;

use super::*;
use crate::cloud::class::classify;

/// What the server does with a request.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Answer(u16, &'static str),
    Hang,
}

/// One request as it came: head and form.
#[derive(Debug)]
struct Request {
    head: String,
    form: String,
}

/// An EC2 of one manner on the loopback, and what it was asked.
fn serve(manner: Manner) -> (String, mpsc::Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (seen, requests) = mpsc::channel();
    std::thread::spawn(move || {
        // Held open, or a client would see the end of a connection where it is to see nothing.
        let mut hanging = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(request) = read(&stream) else {
                continue;
            };
            if seen.send(request).is_err() {
                return;
            }
            match manner {
                Manner::Answer(status, body) => {
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status} X\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n\
                         Connection: close\r\n\r\n"
                    );
                    stream.write_all((head + body).as_bytes()).unwrap();
                }
                Manner::Hang => hanging.push(stream),
            }
        }
    });
    (url, requests)
}

fn read(stream: &TcpStream) -> Option<Request> {
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
    reader.read_exact(&mut form).ok()?;
    Some(Request {
        head,
        form: String::from_utf8(form).ok()?,
    })
}

async fn client(url: &str, timeout: Duration) -> Aws {
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(url)
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
<requestId>r</requestId><subnetSet><item><subnetId>subnet-1</subnetId><cidrBlock>10.0.0.0/16</cidrBlock></item></subnetSet>
</DescribeSubnetsResponse>"#;

const THROTTLED: &str = r"<Response><Errors><Error><Code>RequestLimitExceeded</Code>
<Message>Request limit exceeded.</Message></Error></Errors><RequestID>r</RequestID></Response>";

const INTERNAL: &str = r"<Response><Errors><Error><Code>InternalError</Code>
<Message>An internal error has occurred.</Message></Error></Errors><RequestID>r</RequestID></Response>";

#[tokio::test]
async fn a_request_says_who_asks_and_for_which_version() {
    let (url, requests) = serve(Manner::Answer(200, SUBNETS));
    let call = Call::DescribeSubnets {
        subnets: vec![SubnetId::from("subnet-1")],
    };
    let client = client(&url, Duration::from_secs(20)).await;
    let Reply::Subnets(found) = client.call(call).await.unwrap() else {
        panic!("another reply")
    };
    assert_eq!(
        found,
        [(SubnetId::from("subnet-1"), "10.0.0.0/16".parse().unwrap())]
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
}

/// The SDK by itself would send each of these three times, and Assign would then assign thrice.
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
        assert_eq!(classify(&assign(), &error).class, class);
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
    assert_eq!(classify(&assign(), &error).class, Class::Ambiguous);
    assert_eq!(requests.try_iter().count(), 1);
}

#[tokio::test]
async fn a_call_that_nobody_took_has_no_effect() {
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", refusing.local_addr().unwrap());
    drop(refusing);
    let client = client(&url, Duration::from_secs(20)).await;
    let error = client.call(assign()).await.unwrap_err();
    assert!(error.refused, "{error}");
    assert_eq!(classify(&assign(), &error).class, Class::Transient);
}
