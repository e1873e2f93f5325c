//! The rules of the protocol, and every key that a CNI plugin reads.

use std::{collections::BTreeSet, time::Duration};

use super::{INTERFACE_KEYS, ImdsFault, KEYS};
use crate::{
    Api,
    http::testing::{Answer, http, serve},
    ids::InstanceId,
    world::{
        ImdsLag,
        model::NetworkInterface,
        request::{
            AssignPrivateIpAddresses, AttachNetworkInterface, Attribute, CreateNetworkInterface,
            Pick,
        },
    },
};

const TTL: &str = "X-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "X-aws-ec2-metadata-token";

struct Client {
    api: Api,
    node: InstanceId,
}

fn client() -> Client {
    let (api, node) = serve(true);
    Client { api, node }
}

impl Client {
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        http(&self.api.imds_endpoint(), method, path, headers, "")
    }

    fn token(&self) -> String {
        let answer = self.ask("PUT", "/latest/api/token", &[(TTL, "21600")]);
        assert_eq!(answer.status, 200);
        assert!(
            answer
                .head
                .contains("x-aws-ec2-metadata-token-ttl-seconds: 21600"),
            "{}",
            answer.head
        );
        answer.body
    }

    fn status(&self, path: &str, token: &str) -> u16 {
        self.ask("GET", path, &[(TOKEN, token)]).status
    }

    fn get(&self, path: &str) -> Option<String> {
        let answer = self.ask("GET", &format!("/latest/{path}"), &[(TOKEN, &self.token())]);
        match answer.status {
            200 => Some(answer.body),
            404 => None,
            status => panic!("{path} answers {status}"),
        }
    }

    fn meta(&self, path: &str) -> Option<String> {
        self.get(&format!("meta-data/{path}"))
    }

    fn primary(&self) -> NetworkInterface {
        let world = self.api.world();
        let id = &world.instance(&self.node).unwrap().primary;
        world.interface(id).unwrap().clone()
    }

    fn fact(&self, key: &str) -> Option<String> {
        self.meta(&format!(
            "network/interfaces/macs/{}/{key}",
            self.primary().mac
        ))
    }

    /// Adds two addresses, a prefix of each family and an IPv6 address to the primary interface.
    fn fill(&self) {
        let (eni, now) = (self.primary().id, self.api.now());
        let mut world = self.api.world();
        for ipv4 in [Pick::Count(1), Pick::PrefixCount(1)] {
            let req = AssignPrivateIpAddresses {
                eni: eni.clone(),
                ipv4,
                allow_reassignment: false,
            };
            world.assign_private_ip_addresses(&req, now).unwrap();
        }
        for pick in [Pick::Count(1), Pick::PrefixCount(1)] {
            world.assign_ipv6_addresses(&eni, &pick, now).unwrap();
        }
    }
}

#[test]
fn tokens_need_a_valid_lifetime() {
    let c = client();
    for (headers, status) in [
        (&[][..], 400),
        (&[(TTL, "0")][..], 400),
        (&[(TTL, "21601")][..], 400),
        (&[(TTL, "soon")][..], 400),
        (&[(TTL, "1")][..], 200),
        (&[(TTL, "60"), ("X-Forwarded-For", "10.0.0.1")][..], 403),
    ] {
        assert_eq!(
            c.ask("PUT", "/latest/api/token", headers).status,
            status,
            "{headers:?}"
        );
    }
    assert_eq!(
        c.ask("PUT", "/2021-07-15/api/token", &[(TTL, "60")]).status,
        403
    );
    assert_eq!(
        c.ask("PUT", "/latest/elsewhere", &[(TTL, "60")]).status,
        404
    );
    assert_eq!(
        c.ask("POST", "/latest/api/token", &[(TTL, "60")]).status,
        405
    );
}

#[test]
fn without_a_good_token_everything_is_401() {
    let c = client();
    assert_eq!(c.ask("GET", "/latest/meta-data/mac", &[]).status, 401);
    assert_eq!(c.status("/latest/meta-data/mac", "invented"), 401);
    let token = c.token();
    assert_eq!(c.status("/latest/meta-data/mac", &token), 200);
    assert_eq!(
        c.ask("HEAD", "/latest/meta-data/mac", &[(TOKEN, &token)])
            .status,
        200
    );
    assert_eq!(c.status("/latest/meta-data/no-such-key", &token), 404);
    c.api.imds().revoke_tokens();
    assert_eq!(c.status("/latest/meta-data/mac", &token), 401);
}

#[test]
fn tokens_expire() {
    let mut tokens = crate::state::imds_tokens::Tokens::default();
    let (node, t0) = (InstanceId::from("i-1"), Duration::from_secs(100));
    let token = tokens.issue(node.clone(), 1, t0);
    assert!(tokens.accepts(&token, &node, t0 + Duration::from_millis(999)));
    assert!(!tokens.accepts(&token, &node, t0 + Duration::from_secs(1)));
    assert!(
        !tokens.accepts(&token, &InstanceId::from("i-2"), t0),
        "a token is one instance's"
    );
}

#[test]
fn a_caller_that_owns_no_address_gets_nothing() {
    let (api, _) = serve(false);
    assert_eq!(
        http(
            &api.imds_endpoint(),
            "PUT",
            "/latest/api/token",
            &[(TTL, "60")],
            ""
        )
        .status,
        404
    );
}

#[test]
fn throttled_requests_are_429_with_a_page() {
    let c = client();
    let token = c.token();
    c.api.imds().throttle(Some(1.0));
    let first_refused = (0..100)
        .map(|_| c.ask("GET", "/latest/meta-data/mac", &[(TOKEN, &token)]))
        .find(|a| a.status != 200);
    let refused = first_refused.expect("100 requests at once exceed one a second");
    assert_eq!(refused.status, 429);
    assert!(
        refused
            .body
            .contains("<title>429 - Too Many Requests</title>"),
        "{}",
        refused.body
    );
}

#[test]
fn scripted_faults_hit_their_path_only() {
    let c = client();
    let token = c.token();
    let path = "/latest/meta-data/mac".to_owned();
    c.api.imds().push(ImdsFault {
        path: path.clone(),
        times: 1,
        delay: Duration::ZERO,
        status: Some(500),
    });
    assert_eq!(c.status("/latest/meta-data/instance-id", &token), 200);
    assert_eq!(c.status(&path, &token), 500);
    assert_eq!(c.status(&path, &token), 200);
}

#[test]
fn every_key_of_the_instance_has_its_value() {
    let c = client();
    c.fill();
    let eni = c.primary();
    let expect = [
        ("placement/availability-zone", "us-west-2a".to_owned()),
        ("placement/region", "us-west-2".to_owned()),
        ("instance-id", c.node.to_string()),
        ("instance-type", "m5.large".to_owned()),
        ("local-ipv4", eni.ipv4[0].to_string()),
        ("ipv6", eni.ipv6[0].to_string()),
        ("mac", eni.mac.to_string()),
        ("iam/security-credentials/", "node".to_owned()),
        ("network/interfaces/macs/", format!("{}/", eni.mac)),
        ("services/domain", "amazonaws.com".to_owned()),
        ("services/partition", "aws".to_owned()),
    ];
    assert_eq!(
        expect.iter().map(|(k, _)| *k).collect::<Vec<_>>(),
        KEYS,
        "every key is in the table"
    );
    for (key, value) in expect {
        assert_eq!(c.meta(key), Some(value), "{key}");
    }
}

#[test]
fn every_key_of_an_interface_has_its_value() {
    let c = client();
    c.fill();
    let eni = c.primary();
    let group = eni.groups[0].to_string();
    let expect = [
        ("device-number", "0".to_owned()),
        ("interface-id", eni.id.to_string()),
        ("ipv4-prefix", eni.ipv4_prefixes[0].to_string()),
        ("ipv6-prefix", eni.ipv6_prefixes[0].to_string()),
        ("ipv6s", eni.ipv6[0].to_string()),
        ("local-ipv4s", format!("{}\n{}", eni.ipv4[0], eni.ipv4[1])),
        ("mac", eni.mac.to_string()),
        ("network-card", "0".to_owned()),
        ("network-card-index", "0".to_owned()),
        ("owner-id", "123456789012".to_owned()),
        ("security-group-ids", group),
        ("subnet-id", eni.subnet.to_string()),
        ("subnet-ipv4-cidr-block", "10.0.0.0/20".to_owned()),
        ("subnet-ipv6-cidr-blocks", "2600:1f14:0:1::/64".to_owned()),
        ("vpc-id", eni.vpc.to_string()),
        ("vpc-ipv4-cidr-block", "10.0.0.0/16".to_owned()),
        ("vpc-ipv4-cidr-blocks", "10.0.0.0/16".to_owned()),
        ("vpc-ipv6-cidr-blocks", "2600:1f14::/56".to_owned()),
    ];
    assert_eq!(
        expect.iter().map(|(k, _)| *k).collect::<Vec<_>>(),
        INTERFACE_KEYS,
        "every key is in the table"
    );
    for (key, value) in expect {
        assert_eq!(c.fact(key), Some(value), "{key}");
    }
    let listed = c.fact("").unwrap();
    assert_eq!(listed.lines().collect::<Vec<_>>(), INTERFACE_KEYS);
}

#[test]
fn an_interface_of_another_subnet_has_its_own_values() {
    let c = client();
    let (second, group) = {
        let (mut world, now) = (c.api.world(), c.api.now());
        let vpc = world.vpcs().next().unwrap().id.clone();
        assert!(world.associate_block(&vpc, "100.64.0.0/16".parse().unwrap()));
        let subnet = world.add_subnet(&vpc, "100.64.1.0/24".parse().unwrap(), None, 'a');
        let group = world.add_group(&vpc, "pods", "pods");
        let create = CreateNetworkInterface::plain(subnet);
        let eni = world.create_network_interface(create, now).unwrap();
        let attach = AttachNetworkInterface {
            eni: eni.id.clone(),
            instance: c.node.clone(),
            card: 0,
            device: 1,
        };
        world.attach_network_interface(&attach, now).unwrap();
        let groups = Attribute::Groups(vec![group.clone()]);
        world
            .modify_network_interface(&eni.id, groups, now)
            .unwrap();
        (eni, group)
    };
    let fact = |key: &str| c.meta(&format!("network/interfaces/macs/{}/{key}", second.mac));
    for (key, value) in [
        ("subnet-id", second.subnet.to_string()),
        ("subnet-ipv4-cidr-block", "100.64.1.0/24".to_owned()),
        ("vpc-ipv4-cidr-block", "10.0.0.0/16".to_owned()),
        (
            "vpc-ipv4-cidr-blocks",
            "10.0.0.0/16\n100.64.0.0/16".to_owned(),
        ),
        ("security-group-ids", group.to_string()),
        ("local-ipv4s", second.ipv4[0].to_string()),
    ] {
        assert_eq!(fact(key), Some(value), "{key}");
    }
    assert_eq!(fact("subnet-ipv6-cidr-blocks"), None);
}

/// The keys that a CNI plugin reads, from the reference; a missing key is an error in the simulation.
#[test]
fn the_tables_cover_what_a_cni_reads() {
    let instance = "placement/availability-zone placement/region instance-id instance-type local-ipv4 ipv6 mac \
                    iam/security-credentials/ network/interfaces/macs/ services/domain services/partition";
    let interface = "interface-id device-number network-card network-card-index subnet-id vpc-id security-group-ids \
                     local-ipv4s ipv6s ipv4-prefix ipv6-prefix subnet-ipv4-cidr-block subnet-ipv6-cidr-blocks \
                     vpc-ipv4-cidr-block vpc-ipv4-cidr-blocks vpc-ipv6-cidr-blocks owner-id";
    let set = |keys: &[&'static str]| keys.iter().copied().collect::<BTreeSet<_>>();
    assert!(
        instance
            .split_whitespace()
            .collect::<BTreeSet<_>>()
            .is_subset(&set(KEYS))
    );
    assert!(
        interface
            .split_whitespace()
            .collect::<BTreeSet<_>>()
            .is_subset(&set(INTERFACE_KEYS))
    );
}

#[test]
fn categories_with_nothing_in_them_are_404() {
    let c = client();
    for key in ["ipv4-prefix", "ipv6-prefix", "ipv6s"] {
        assert_eq!(c.fact(key), None, "{key}");
    }
    assert_eq!(c.meta("ipv6"), None);
    for key in ["spot/instance-action", "events/maintenance/scheduled"] {
        assert_eq!(
            c.meta(key),
            None,
            "{key}: the instance has no scheduled event"
        );
    }
    assert!(!c.fact("").unwrap().contains("ipv6s"));
}

#[test]
fn directories_list_their_members() {
    let c = client();
    for (path, listing) in [
        ("", "dynamic\nmeta-data"),
        (
            "meta-data/",
            "iam/\ninstance-id\ninstance-type\nlocal-ipv4\nmac\nnetwork/\nplacement/\nservices/",
        ),
        ("meta-data/placement/", "availability-zone\nregion"),
        ("meta-data/network/", "interfaces/"),
        ("meta-data/services/", "domain\npartition"),
        ("meta-data/network/interfaces/", "macs/"),
        ("dynamic/", "instance-identity/"),
        ("dynamic/instance-identity/", "document"),
    ] {
        assert_eq!(c.get(path).as_deref(), Some(listing), "{path}");
    }
}

#[test]
fn document_and_credentials_are_json() {
    let c = client();
    let document: serde_json::Value =
        serde_json::from_str(&c.get("dynamic/instance-identity/document").unwrap()).unwrap();
    assert_eq!(document["region"], "us-west-2");
    assert_eq!(document["instanceId"], c.node.to_string());
    assert_eq!(document["privateIp"], c.primary().ipv4[0].to_string());
    let role: serde_json::Value =
        serde_json::from_str(&c.meta("iam/security-credentials/node").unwrap()).unwrap();
    assert_eq!(role["Code"], "Success");
    assert!(
        role["AccessKeyId"].is_string()
            && role["SecretAccessKey"].is_string()
            && role["Token"].is_string()
    );
    assert!(role["Expiration"].as_str() > role["LastUpdated"].as_str());
    assert_eq!(c.meta("iam/security-credentials/other"), None);
}

#[test]
fn a_lagging_interface_is_listed_before_it_is_filled() {
    let c = client();
    let hour = Duration::from_secs(3600);
    let lag = ImdsLag {
        populated: hour,
        ..ImdsLag::default()
    };
    let second = {
        let mut world = c.api.world();
        world.set_imds_lag(lag);
        let req = crate::world::ManagedInterface {
            instance: c.node.clone(),
            card: 0,
            device: 1,
        };
        world.attach_managed(&req, c.api.now()).unwrap()
    };
    let macs = c.meta("network/interfaces/macs/").unwrap();
    assert!(macs.contains(&second.mac.to_string()));
    assert_eq!(
        c.meta(&format!(
            "network/interfaces/macs/{}/interface-id",
            second.mac
        )),
        None
    );
}
