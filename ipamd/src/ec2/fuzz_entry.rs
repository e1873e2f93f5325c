//! Anything that EC2, or a proxy in between, may answer: documents, errors, garbage. The real client reads it over a
//! simulated connection.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_config::BehaviorVersion;
use aws_sdk_ec2::config::Credentials;
use aws_smithy_runtime_api::{
    client::{
        http::{
            HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector,
            http_client_fn,
        },
        orchestrator::{HttpRequest, HttpResponse},
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use planner::{Amount, EniId, SubnetId};
use tokio::runtime::Runtime;

use crate::ec2::{
    api::{Call, Ec2, Reply},
    aws::Aws,
    classify::classify,
};

/// The answer to every request.
#[derive(Clone, Debug, Default)]
struct Answers(Arc<Mutex<(u16, Vec<u8>)>>);

impl HttpConnector for Answers {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let (status, body) = self.0.lock().expect("no holder panics").clone();
        let status = StatusCode::try_from(status).expect("one of three valid codes");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
    }
}

/// The client under test.
#[derive(Debug)]
pub struct Client {
    answers: Answers,
    aws: Aws,
    runtime: Runtime,
}

impl Default for Client {
    fn default() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime starts");
        let answers = Answers::default();
        let connector = SharedHttpConnector::new(answers.clone());
        let http: SharedHttpClient = http_client_fn(move |_, _| connector.clone());
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .credentials_provider(Credentials::new("AKIA", "s", None, None, "test"))
            .http_client(http);
        let (region, timeout) = ("us-west-2".to_owned(), Duration::from_secs(5));
        let aws = runtime.block_on(Aws::configured(loader, region, timeout));
        Self {
            answers,
            aws,
            runtime,
        }
    }
}

impl Client {
    /// The first byte of `input` selects the call, and whether the answer is a success or an error.
    pub fn read(&self, input: &[u8]) {
        let Some((kind, body)) = input.split_first() else {
            return;
        };
        let status = [200, 400, 503][usize::from(*kind / 8 % 3)];
        *self.answers.0.lock().expect("no holder panics") = (status, body.to_vec());
        let call = call(*kind % 9);
        match self.runtime.block_on(self.aws.call(call.clone())) {
            Ok(reply) => {
                assert_eq!(status, 200, "{reply:?}");
                assert!(fits(&call, &reply), "{call:?}: {reply:?}");
                // An incomplete list must be an error: a document without its end is not an answer.
                assert!(body.trim_ascii_end().ends_with(b">"), "{reply:?}");
            }
            Err(error) => {
                let failure = classify(&call, &error, "eu-west-1");
                assert!(!failure.message.is_empty());
            }
        }
    }
}

/// Whether an answer belongs to this call: the executor treats any other as a defect.
fn fits(call: &Call, reply: &Reply) -> bool {
    match call {
        Call::DescribeNetworkInterfaces { .. } => matches!(reply, Reply::Interfaces(_)),
        Call::DescribeSubnets { .. } => matches!(reply, Reply::Subnets(_)),
        Call::DescribeRouteTables { .. } => matches!(reply, Reply::RouteTables(_)),
        Call::CreateNetworkInterface { .. } => matches!(reply, Reply::Interface(_)),
        Call::AttachNetworkInterface { .. } => matches!(reply, Reply::Attached(_)),
        Call::AssignPrivateIpAddresses { .. } => matches!(reply, Reply::Assigned { .. }),
        _ => matches!(reply, Reply::Done),
    }
}

fn call(kind: u8) -> Call {
    let eni = EniId::from("eni-1");
    match kind {
        0 => Call::DescribeNetworkInterfaces { filters: vec![] },
        1 => Call::DescribeSubnets {
            filters: vec![("subnet-id".into(), vec!["subnet-1".into()])],
        },
        8 => Call::DescribeRouteTables {
            vpc: "vpc-1".into(),
        },
        2 => Call::CreateNetworkInterface {
            token: "t".into(),
            subnet: SubnetId::from("subnet-1"),
            groups: vec![],
            description: String::new(),
            tags: [].into(),
            amount: Amount::Addresses(1),
        },
        3 => Call::AttachNetworkInterface {
            eni,
            instance: "i-1".into(),
            card: 0,
            device: 1,
        },
        4 => Call::AssignPrivateIpAddresses {
            eni,
            amount: Amount::Addresses(1),
        },
        5 => Call::AssignPrivateIpAddresses {
            eni,
            amount: Amount::Ipv6Prefixes(1),
        },
        6 => Call::UnassignPrivateIpAddresses {
            eni,
            addresses: vec![],
            prefixes: vec![],
        },
        _ => Call::DeleteNetworkInterface { eni },
    }
}

/// One of `inputs` with up to eight changes: modified, duplicated, removed or replaced by pieces of another input.
pub fn mangled(inputs: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut input = inputs[dice.below(inputs.len())].clone();
    for _ in 0..=dice.below(8) {
        let from = dice.below(input.len());
        let to = (from + 1 + dice.below(24)).min(input.len());
        match dice.below(5) {
            0 => input[from..to].fill(u8::try_from(dice.below(256)).unwrap_or(b'<')),
            1 => drop(input.drain(from..to)),
            2 => {
                let piece = input[from..to].to_vec();
                input.splice(from..from, piece);
            }
            3 => {
                let other = &inputs[dice.below(inputs.len())];
                let start = dice.below(other.len());
                let end = (start + 64).min(other.len());
                input.splice(from..to, other[start..end].iter().copied());
            }
            _ => {
                let words: [&[u8]; 6] = [
                    b"<item>",
                    b"</item>",
                    b"&#x0;",
                    b"&lt;",
                    b"-1",
                    b"<![CDATA[",
                ];
                let word = words[dice.below(words.len())];
                input.splice(from..from, word.iter().copied());
            }
        }
        if input.is_empty() {
            break;
        }
    }
    input
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    /// Below `bound`; 0 if there is nothing below it.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = usize::try_from((z ^ (z >> 31)) >> 1).unwrap_or(0);
        z.checked_rem(bound).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Client, mangled};
    use crate::runtime::corpus;

    // The client is slow to build for fuzzing, so its inputs are also mutated here, without guidance.
    #[test]
    fn ec2s_answers_cause_no_panic_even_if_mutated() {
        const MANGLED: u64 = 3000;
        let (client, inputs) = (Client::default(), corpus::inputs("ec2"));
        for input in &inputs {
            client.read(input);
        }
        for seed in 0..MANGLED {
            client.read(&mangled(&inputs, seed));
        }
    }
}
