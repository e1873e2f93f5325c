//! Compares the plugin's own error texts with `docs/refusals.md`: both must have the same texts. Compiled for the test
//! only.

use std::io;
use std::time::Duration;

use proto::address::{AddressError, ip};
use proto::asked;
use proto::names::{ContainerId, NameError, VethPrefix};
use repo_checks::catalogue as page;

use crate::error::Failure;
use crate::input::conf::ConfError;
use crate::input::env::EnvError;
use crate::input::runtime_config::RuntimeConfigError;
use crate::netns::NetnsPathError;
use crate::result::ReplyError;
use crate::rpc::client::ClientError;
use crate::verbs::del::unheard;

const PART: &str = "From the plugin";
const SOCKET: &str = "/run/hawser/ipamd.sock";
const NETNS: &str = "/run/netns/cni-5f1d9c";

fn bad_name<T: for<'a> TryFrom<&'a str, Error = NameError>>(text: &str) -> NameError {
    T::try_from(text).err().expect("it breaks the rule")
}

/// The functions below do not compile if an error has a kind that is missing here. Add it to the list too.
fn known_environment(error: EnvError) -> EnvError {
    match error {
        EnvError::UnknownCommand { .. }
        | EnvError::Missing { .. }
        | EnvError::NotUtf8 { .. }
        | EnvError::Name { .. }
        | EnvError::ArgsTooLong { .. }
        | EnvError::ArgsPair { .. }
        | EnvError::ArgsTwice { .. }
        | EnvError::ArgsUnknown { .. } => error,
    }
}

fn environment() -> Vec<EnvError> {
    vec![
        EnvError::UnknownCommand {
            found: "ADDD".into(),
        },
        EnvError::Missing {
            verb: "ADD",
            missing: vec!["CNI_CONTAINERID", "CNI_NETNS"],
        },
        EnvError::NotUtf8 { name: "CNI_ARGS" },
        EnvError::Name {
            name: "CNI_CONTAINERID",
            source: bad_name::<ContainerId>("a/b"),
        },
        EnvError::ArgsTooLong { len: 20_000 },
        EnvError::ArgsPair {
            found: "K8S_POD_NAME".into(),
        },
        EnvError::ArgsTwice {
            key: "K8S_POD_NAME".into(),
        },
        EnvError::ArgsUnknown {
            keys: vec!["COLOUR".into()],
        },
    ]
}

fn known_configuration(error: ConfError) -> ConfError {
    match error {
        ConfError::Read { .. }
        | ConfError::TooLarge
        | ConfError::NotJson { .. }
        | ConfError::NotAnObject { .. }
        | ConfError::Type { .. }
        | ConfError::Version { .. }
        | ConfError::VerbTooNew { .. }
        | ConfError::NoName
        | ConfError::Name { .. }
        | ConfError::Mtu { .. }
        | ConfError::Deadline { .. }
        | ConfError::Socket { .. }
        | ConfError::Absent { .. }
        | ConfError::Entry { .. }
        | ConfError::NoAddress { .. } => error,
    }
}

fn configuration() -> Vec<ConfError> {
    let not_json = serde_json::from_str::<serde_json::Value>("{").expect_err("it is cut off");
    vec![
        ConfError::Read {
            source: io::Error::from_raw_os_error(5),
        },
        ConfError::TooLarge,
        ConfError::NotJson { source: not_json },
        ConfError::NotAnObject { found: "an array" },
        ConfError::Type {
            key: "prevResult",
            found: "a string",
            want: "an object",
        },
        ConfError::Version {
            found: "0.2.0".into(),
        },
        ConfError::VerbTooNew {
            verb: "STATUS",
            found: "1.0.0",
            since: "1.1.0",
        },
        ConfError::NoName,
        ConfError::Name {
            key: "vethPrefix",
            source: bad_name::<VethPrefix>("much-too-long"),
        },
        ConfError::Mtu {
            found: "\"big\"".into(),
        },
        ConfError::Deadline { found: "-1".into() },
        ConfError::Socket {
            found: "ipamd.sock".into(),
        },
        ConfError::Absent {
            verb: "CHECK",
            key: "prevResult",
        },
        ConfError::Entry {
            key: "cni.dev/valid-attachments",
            field: "ifname",
        },
        ConfError::NoAddress {
            ifname: "eth0".into(),
        },
    ]
}

fn known_wish(error: RuntimeConfigError) -> RuntimeConfigError {
    match error {
        // Shown with the configuration.
        RuntimeConfigError::Type(_)
        | RuntimeConfigError::Port { .. }
        | RuntimeConfigError::Protocol { .. }
        | RuntimeConfigError::HostIp { .. }
        | RuntimeConfigError::Quantity { .. }
        | RuntimeConfigError::Asked(_) => error,
    }
}

fn wishes() -> Vec<RuntimeConfigError> {
    let port = |pod_port| nettypes::HostPort {
        transport: nettypes::Transport::Tcp,
        port: 8080,
        address: None,
        pod_port,
    };
    let refused = [
        asked::distinct(vec![port(80), port(81)]).err(),
        asked::distinct(
            (1..=1025)
                .map(|n| nettypes::HostPort {
                    port: n,
                    ..port(80)
                })
                .collect(),
        )
        .err(),
        asked::limit("ingress", 999, 1).err(),
        asked::limit("egress", 1000, 0).err(),
    ];
    let mut wishes = vec![
        RuntimeConfigError::Port {
            key: "hostPort",
            found: "65536".into(),
        },
        RuntimeConfigError::Protocol {
            port: 8080,
            found: "\"icmp\"".into(),
        },
        RuntimeConfigError::HostIp {
            port: 8080,
            found: "\"localhost\"".into(),
        },
        RuntimeConfigError::Quantity {
            key: "ingressRate",
            found: "\"1M\"".into(),
        },
    ];
    wishes.extend(refused.into_iter().flatten().map(Into::into));
    wishes
}

fn known_namespace(error: NetnsPathError) -> NetnsPathError {
    match error {
        NetnsPathError::Relative { .. }
        | NetnsPathError::Missing { .. }
        | NetnsPathError::Symlink { .. }
        | NetnsPathError::Kind { .. }
        | NetnsPathError::Own { .. }
        | NetnsPathError::Ipv6 { .. }
        | NetnsPathError::Io { .. } => error,
    }
}

fn namespace() -> Vec<NetnsPathError> {
    let path = || NETNS.into();
    vec![
        NetnsPathError::Relative {
            path: "netns/5f1d9c".into(),
        },
        NetnsPathError::Missing { path: path() },
        NetnsPathError::Symlink { path: path() },
        NetnsPathError::Kind {
            path: path(),
            source: nettypes::netns::NetnsError::NotANamespace {
                magic: 0x0102_1994,
                mode: 0o100_644,
            },
        },
        NetnsPathError::Own { path: path() },
        NetnsPathError::Ipv6 {
            source: io::Error::from_raw_os_error(30),
        },
        NetnsPathError::Io {
            op: "setns to",
            path: path(),
            source: io::Error::from_raw_os_error(1),
        },
    ]
}

fn known_conversation(error: ClientError) -> ClientError {
    match error {
        ClientError::Connect { .. }
        | ClientError::Broken { .. }
        | ClientError::Late { .. }
        // The daemon's texts are in the other part of the page.
        | ClientError::Refused { .. } => error,
    }
}

fn conversation() -> Vec<ClientError> {
    vec![
        ClientError::Connect {
            socket: SOCKET.into(),
            source: io::Error::from_raw_os_error(111),
        },
        ClientError::Connect {
            socket: SOCKET.into(),
            source: io::Error::from_raw_os_error(2),
        },
        ClientError::Broken {
            socket: SOCKET.into(),
            source: io::Error::from_raw_os_error(32).into(),
        },
        ClientError::Late {
            socket: SOCKET.into(),
            within: Duration::from_secs(60),
        },
    ]
}

fn known_reply(error: ReplyError) -> ReplyError {
    match error {
        ReplyError::Absent { .. } | ReplyError::Address { .. } => error,
    }
}

fn reply() -> Vec<ReplyError> {
    let source: AddressError = ip("address", &[10, 0]).expect_err("two bytes are too few");
    vec![
        ReplyError::Absent { field: "pod" },
        ReplyError::Address { source },
    ]
}

/// The heading for a code.
fn entry(code: u32) -> &'static str {
    match code {
        1 => "A version that is not served",
        4 => "Variables of the runtime",
        5 => "Standard input that breaks off",
        6 => "A configuration that cannot be read",
        7 => "A configuration that is wrong",
        8 => "The sandbox's namespace",
        11 => "No daemon",
        _ => "Defects",
    }
}

#[test]
fn the_catalogue_has_exactly_the_plugins_texts() {
    let mut said: Vec<Failure> = Vec::new();
    said.extend(
        environment()
            .into_iter()
            .map(known_environment)
            .map(Failure::from),
    );
    said.extend(
        configuration()
            .into_iter()
            .map(known_configuration)
            .map(Failure::from),
    );
    said.extend(wishes().into_iter().map(known_wish).map(Failure::from));
    said.extend(
        namespace()
            .into_iter()
            .map(known_namespace)
            .map(Failure::from),
    );
    said.extend(
        conversation()
            .into_iter()
            .map(known_conversation)
            .map(Failure::from),
    );
    said.extend(reply().into_iter().map(known_reply).map(Failure::from));
    let full = io::Error::from_raw_os_error(28);
    said.extend(conversation().first().map(|absent| unheard(absent, &full)));
    let said: Vec<page::Text> = said
        .into_iter()
        .map(|Failure { code, msg, details }| page::Text {
            entry: entry(code).to_owned(),
            code,
            text: format!("{msg}; {details}"),
        })
        .collect();
    let page = page::part(PART).expect("the page is there");
    let found = page::differences(&page, &said);
    assert!(found.is_empty(), "{}", found.join("\n"));
}
