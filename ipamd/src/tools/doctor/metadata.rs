//! The instance metadata service: one plain request for a token, whose answer also contains the time.
//!
//! Not through the SDK, which retries, and hides the status and the `Date`.

use std::time::Duration;

use aws_smithy_types::date_time::{DateTime, Format};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Check, Finding, Places, failure, warning};
use crate::{config::Config, runtime::clock};

/// EC2 refuses signatures that differ by more than five minutes.
const REFUSED_SKEW: u64 = 300;
/// A warning before signatures are refused.
const NOTED_SKEW: u64 = 30;
/// The service answers within milliseconds; a slower answer delays each start of the daemon.
const SLOW: Duration = Duration::from_secs(1);

/// The head of the answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    date: Option<String>,
}

pub(super) async fn checks(places: &Places, config: &Config) -> Vec<Check> {
    let begun = clock::now();
    let answer = match timeout(config.cloud.timeout, token(&places.metadata)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer in {} s", config.cloud.timeout.as_secs())),
    };
    let took = clock::now().since(begun);
    vec![reachable(places, &answer, took), skew(&answer)]
}

fn reachable(places: &Places, answer: &Result<Head, String>, took: Duration) -> Check {
    const NAME: &str = "imds";
    const EFFECT: &str =
        "a daemon that has not read it since this boot cannot start, and its credentials run out";
    let url = &places.metadata;
    let milliseconds = took.as_millis();
    let finding: Option<Finding> = match answer {
        Err(error) => Some(failure(
            "the instance metadata service cannot be reached",
            format!("{url}: {error}"),
            EFFECT,
            "check the firewall rules for 169.254.169.254, and for a hop limit of 1 if this is a pod's network",
        )),
        Ok(Head { status: 200, .. }) if took >= SLOW => Some(warning(
            "the instance metadata service is slow",
            format!("{url} answered after {milliseconds} ms"),
            "the daemon's start takes as long for every key",
            "find out what calls it often: it throttles each instance",
        )),
        Ok(Head { status: 200, .. }) => None,
        Ok(Head { status, .. }) => Some(failure(
            "the instance metadata service returns no token",
            format!("{url} answered {status}"),
            EFFECT,
            "403 means that it is disabled for this instance, 429 that there are too many requests",
        )),
    };
    let seen = format!("token after {milliseconds} ms");
    Check::new(NAME, seen, finding.into_iter().collect())
}

fn skew(answer: &Result<Head, String>) -> Check {
    const NAME: &str = "clock";
    let date = answer.as_ref().ok().and_then(|head| head.date.as_deref());
    let Some(date) = date else {
        return Check::skipped(NAME, "the metadata service returned no time");
    };
    let Ok(theirs) = DateTime::from_str(date, Format::HttpDate) else {
        return Check::skipped(
            NAME,
            format!("the metadata service's time cannot be read: {date}"),
        );
    };
    let ours = clock::wall_seconds();
    let apart = ours.abs_diff(theirs.secs());
    let evidence = format!("{apart} s from the metadata service's {date}");
    let remedy = "let chrony or systemd-timesyncd follow 169.254.169.123";
    let finding = if apart >= REFUSED_SKEW {
        Some(failure(
            "the node's clock is wrong",
            evidence,
            "EC2 refuses every call of this node as expired, and the pool cannot grow",
            remedy,
        ))
    } else if apart >= NOTED_SKEW {
        Some(warning(
            "the node's clock drifts",
            evidence,
            "EC2 will refuse this node's calls when it is five minutes off",
            remedy,
        ))
    } else {
        None
    };
    Check::new(
        NAME,
        format!("{apart} s off"),
        finding.into_iter().collect(),
    )
}

async fn token(url: &str) -> std::io::Result<Head> {
    let authority = url.trim_start_matches("http://").trim_end_matches('/');
    let address = if authority
        .rsplit(']')
        .next()
        .is_some_and(|tail| tail.contains(':'))
    {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "PUT /latest/api/token HTTP/1.1\r\nhost: {authority}\r\nx-aws-ec2-metadata-token-ttl-seconds: 60\r\n\
         content-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // A head has some hundred bytes, and the service closes the connection on request.
    stream.take(16 << 10).read_to_end(&mut answer).await?;
    head(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

fn head(answer: &str) -> Option<Head> {
    let mut lines = answer.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let date = lines.take_while(|line| !line.is_empty()).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date")
            .then(|| value.trim().to_owned())
    });
    Some(Head { status, date })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_has_status_and_date() {
        let answer = "HTTP/1.1 200 OK\r\nDate: Sat, 01 Jan 2022 00:00:00 GMT\r\n\r\ndate: no";
        let date = Some("Sat, 01 Jan 2022 00:00:00 GMT".to_owned());
        assert_eq!(head(answer), Some(Head { status: 200, date }));
        let without = "HTTP/1.1 403 Forbidden\r\n\r\ndate: no";
        assert_eq!(
            head(without),
            Some(Head {
                status: 403,
                date: None
            })
        );
        assert_eq!(head("SSH-2.0"), None);
    }

    #[test]
    fn a_clock_is_judged_by_the_distance() {
        let check = |date: &str| {
            let date = Some(date.to_owned());
            skew(&Ok(Head { status: 200, date }))
        };
        assert_eq!(check("Sat, 01 Jan 2022 00:00:00 GMT").findings.len(), 1);
        assert!(check("yesterday").skipped);
    }
}
