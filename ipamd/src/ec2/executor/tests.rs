//! The executor with a scripted EC2: what is managed, what each command sends, and what an answer means.

mod detach;
mod subnets;

use std::{collections::VecDeque, net::Ipv4Addr};

use planner::{Amount, AttachmentId, EniSpec, HostClaim, Mac, Op, placement::Candidate};

use super::*;
use crate::ec2::{
    api::{Attachment, CallError, CallFuture, Interface},
    executor::describe::NO_MANAGE_TAG,
};

const ME: &str = "i-1";
const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Returns scripted answers and records the calls.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Result<Reply, CallError>>>,
    asked: Mutex<Vec<Call>>,
}

impl Ec2 for Scripted {
    fn call(&self, call: Call) -> CallFuture<'_> {
        self.asked.lock().unwrap().push(call);
        let answer = self
            .answers
            .lock()
            .unwrap()
            .pop_front()
            .expect("a scripted answer");
        Box::pin(std::future::ready(answer))
    }
}

fn executor(
    manage_untagged: bool,
    answers: Vec<Result<Reply, CallError>>,
) -> (Executor, Arc<Scripted>) {
    let me = Identity {
        instance: ME.into(),
        instance_type: "m5.large".into(),
        region: "eu-west-1".into(),
        mac: OUR_MAC,
        address: Ipv4Addr::new(10, 0, 0, 4),
        subnet: SubnetId::from("subnet-1"),
        subnet_cidr: "10.0.0.0/24".parse().unwrap(),
        security_groups: vec!["sg-1".into(), "sg-2".into()],
    };
    let settings = config::Cloud {
        cluster: Some("prod".into()),
        extra_tags: [("team".to_owned(), "net".to_owned())].into(),
        manage_untagged,
        leaked_eni_cleanup: true,
        proxies: Default::default(),
        timeout: Duration::from_secs(10),
    };
    let ec2 = Arc::new(Scripted {
        answers: Mutex::new(answers.into()),
        asked: Mutex::default(),
    });
    let executor = Executor::new(
        ec2.clone(),
        Arc::new(me),
        settings,
        Arc::new(Metrics::new()),
    );
    (executor, ec2)
}

fn interface(id: &str) -> Interface {
    Interface {
        eni: EniId::from(id),
        mac: Mac([2, 0, 0, 0, 0, 9]),
        subnet: SubnetId::from("subnet-1"),
        primary: Some(Ipv4Addr::new(10, 0, 0, 9)),
        secondary: vec![Ipv4Addr::new(10, 0, 0, 10)],
        prefixes: vec![],
        vpc: Some("vpc-1".into()),
        zone: Some("eu-west-1a".into()),
        status: "in-use".into(),
        interface_type: "interface".into(),
        managed_by_aws: false,
        groups: vec!["sg-9".into()],
        description: "made by hand".into(),
        requester: Some("111122223333".into()),
        tags: BTreeMap::new(),
        attachment: Some(Attachment {
            id: AttachmentId::from("eni-attach-1"),
            instance: Some(ME.into()),
            account: Some("111122223333".into()),
            card: 0,
            device: 1,
            status: "attached".into(),
        }),
    }
}

fn tagged(mut eni: Interface, key: &str, value: &str) -> Interface {
    eni.tags.insert(key.into(), value.into());
    eni
}

fn error(code: &str) -> CallError {
    CallError {
        action: "Test",
        code: Some(code.into()),
        message: code.into(),
        refused: true,
    }
}

async fn managed(manage_untagged: bool, eni: Interface) -> bool {
    let (executor, _) = executor(manage_untagged, vec![Ok(Reply::Interfaces(vec![eni]))]);
    executor.attached().await.unwrap()[0].managed
}

#[tokio::test]
async fn an_eni_in_another_vpc_or_zone_than_the_primary_is_not_adopted() {
    let primary = Interface {
        mac: OUR_MAC,
        ..interface("eni-0")
    };
    let vpc = Interface {
        vpc: Some("vpc-2".into()),
        ..interface("eni-1")
    };
    let zone = Interface {
        zone: Some("eu-west-1b".into()),
        ..interface("eni-2")
    };
    let all = vec![vpc, zone, interface("eni-3"), primary];
    let (executor, _) = executor(true, vec![Ok(Reply::Interfaces(all))]);
    let found = executor.attached().await.unwrap();
    let managed: Vec<_> = found
        .iter()
        .map(|eni| (eni.eni.0.as_str(), eni.managed))
        .collect();
    assert_eq!(
        managed,
        [
            ("eni-0", true),
            ("eni-1", false),
            ("eni-2", false),
            ("eni-3", true)
        ]
    );
}

#[tokio::test]
async fn only_ordinary_enis_that_are_ours_or_adopted_are_managed() {
    let ours = || tagged(interface("eni-1"), INSTANCE_TAG, ME);
    assert!(managed(false, ours()).await, "tagged as this node's");
    assert!(
        !managed(false, interface("eni-1")).await,
        "untagged, and not to be adopted"
    );
    assert!(managed(true, interface("eni-1")).await, "untagged, adopted");
    assert!(
        !managed(false, tagged(interface("eni-1"), INSTANCE_TAG, "i-2")).await,
        "another node's"
    );
    assert!(
        !managed(true, tagged(ours(), NO_MANAGE_TAG, "true")).await,
        "hands off"
    );
    assert!(
        managed(false, tagged(interface("eni-1"), NO_MANAGE_TAG, "false")).await,
        "hands on, explicitly"
    );
    for kind in ["efa", "efa-only", "trunk", "branch", "lambda"] {
        assert!(
            !managed(
                true,
                Interface {
                    interface_type: kind.into(),
                    ..ours()
                }
            )
            .await,
            "{kind}"
        );
    }
    assert!(
        !managed(
            true,
            Interface {
                managed_by_aws: true,
                ..ours()
            }
        )
        .await,
        "requester-managed"
    );
    let primary = Interface {
        mac: OUR_MAC,
        ..tagged(interface("eni-0"), NO_MANAGE_TAG, "true")
    };
    assert!(managed(false, primary).await, "the primary ENI always is");
}

#[tokio::test]
async fn a_subnet_that_cannot_be_seen_costs_one_eni_and_not_the_list() {
    let shared = Interface {
        subnet: SubnetId::from("subnet-elsewhere"),
        ..interface("eni-2")
    };
    let (executor, _) = executor(
        true,
        vec![
            Ok(Reply::Interfaces(vec![interface("eni-1"), shared])),
            Ok(Reply::Subnets(vec![])),
        ],
    );
    let found = executor.attached().await.unwrap();
    let managed: Vec<_> = found
        .iter()
        .map(|eni| (eni.eni.0.as_str(), eni.managed))
        .collect();
    assert_eq!(managed, [("eni-1", true), ("eni-2", false)]);
}

#[tokio::test]
async fn a_create_carries_everything_in_one_call() {
    let (executor, ec2) = executor(
        true,
        vec![Ok(Reply::Interface(Box::new(interface("eni-1"))))],
    );
    let command = Command::CreateEni {
        op: Op(1),
        token: "token".into(),
        spec: EniSpec {
            subnet: SubnetId::from("subnet-1"),
            security_groups: None,
            card: 0,
            amount: Amount::Addresses(9),
        },
    };
    assert!(
        matches!(executor.run(command).await, Ok(Answer::Created(eni)) if eni.eni.0 == "eni-1")
    );
    let asked = ec2.asked.lock().unwrap();
    let [
        Call::CreateNetworkInterface {
            token,
            groups,
            tags,
            amount,
            ..
        },
    ] = asked.as_slice()
    else {
        panic!("{asked:?}");
    };
    assert_eq!((token.as_str(), *amount), ("token", Amount::Addresses(9)));
    assert_eq!(groups, &["sg-1".into(), "sg-2".into()]);
    let keys: Vec<_> = tags.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [CLUSTER_TAG, OWNER_TAG.0, CREATED_TAG, INSTANCE_TAG, "team"]
    );
}

/// Otherwise the planner would create another one, and nobody would know of this one.
#[tokio::test]
async fn an_eni_that_was_created_may_exist_although_its_subnet_cannot_be_described() {
    let made = || {
        let mut eni = tagged(interface("eni-9"), INSTANCE_TAG, ME);
        eni.subnet = SubnetId::from("subnet-7");
        Ok(Reply::Interface(Box::new(eni)))
    };
    let refused = || Err(error("RequestLimitExceeded"));
    let (executor, _) = executor(false, vec![made(), refused(), made()]);
    let failed = executor.run(create("token")).await.unwrap_err();
    assert_eq!(failed.class, Class::Ambiguous, "{failed:?}");
    // What the previous process knew of the subnet is enough.
    let executor = executor.knowing(&SubnetList {
        zone: None,
        subnets: vec![Candidate {
            subnet: SubnetId::from("subnet-7"),
            zone: None,
            cidr: "100.64.7.0/24".parse().unwrap(),
            free: 0,
            tags: [].into(),
            route_table: None,
        }],
    });
    let Ok(Answer::Created(seen)) = executor.run(create("token")).await else {
        panic!("the ENI is not seen");
    };
    assert_eq!(seen.subnet_cidr, "100.64.7.0/24".parse().ok());
}

#[tokio::test]
async fn a_delete_passes_on_ec2s_message() {
    // "Not found" may mean that EC2 does not show a new ENI yet: the planner interprets it.
    for (code, class) in [
        ("InvalidNetworkInterfaceID.NotFound", Class::NotFound),
        ("InvalidNetworkInterface.InUse", Class::InUse),
    ] {
        let (executor, _) = executor(true, vec![Err(error(code))]);
        let command = Command::DeleteEni {
            op: Op(1),
            eni: EniId::from("eni-1"),
        };
        assert_eq!(executor.run(command).await.unwrap_err().class, class);
    }
}

#[tokio::test]
async fn a_repeated_create_is_the_same_to_the_letter() {
    let answer = || Ok(Reply::Interface(Box::new(interface("eni-1"))));
    let (executor, ec2) = executor(true, vec![answer(), answer()]);
    let command = Command::CreateEni {
        op: Op(1),
        token: "token".into(),
        spec: EniSpec {
            subnet: SubnetId::from("subnet-1"),
            security_groups: None,
            card: 0,
            amount: Amount::Addresses(9),
        },
    };
    for _ in 0..2 {
        executor.run(command.clone()).await.unwrap();
        // The tag contains the time: a second later it would differ, and EC2 would refuse the token.
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    let asked: Vec<_> = ec2
        .asked
        .lock()
        .unwrap()
        .iter()
        .map(|call| format!("{call:?}"))
        .collect();
    assert_eq!(asked[0], asked[1]);
}

fn create(token: &str) -> Command {
    Command::CreateEni {
        op: Op(1),
        token: token.into(),
        spec: EniSpec {
            subnet: SubnetId::from("subnet-1"),
            security_groups: None,
            card: 0,
            amount: Amount::Addresses(9),
        },
    }
}

/// Somebody may delete a group that the primary ENI had at boot.
#[tokio::test]
async fn new_enis_get_the_groups_that_the_primary_eni_has_now() {
    let made = || Ok(Reply::Interface(Box::new(interface("eni-1"))));
    let primary = Interface {
        mac: OUR_MAC,
        ..interface("eni-0")
    };
    let list = Ok(Reply::Interfaces(vec![primary]));
    let (executor, ec2) = executor(true, vec![made(), list, made(), made()]);
    executor.run(create("first")).await.unwrap();
    executor.attached().await.unwrap();
    executor.run(create("first")).await.unwrap();
    executor.run(create("second")).await.unwrap();
    let asked = ec2.asked.lock().unwrap();
    let groups: Vec<_> = asked
        .iter()
        .filter_map(|call| match call {
            Call::CreateNetworkInterface { groups, .. } => Some(groups[0].0.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(groups, ["sg-1", "sg-1", "sg-9"], "a repetition is the same");
}

#[tokio::test]
async fn the_groups_of_an_eni_config_are_not_those_of_the_primary_eni() {
    let made = Ok(Reply::Interface(Box::new(interface("eni-1"))));
    let (executor, ec2) = executor(true, vec![made]);
    let mut command = create("token");
    let Command::CreateEni { spec, .. } = &mut command else {
        unreachable!("it is a Create");
    };
    spec.security_groups = Some(vec!["sg-7".into()]);
    executor.run(command).await.unwrap();
    let asked = ec2.asked.lock().unwrap();
    assert!(
        matches!(&asked[0], Call::CreateNetworkInterface { groups, .. } if groups[0].0 == "sg-7")
    );
}

#[tokio::test]
async fn what_is_removed_from_an_adopted_eni_is_logged_with_whom_to_ask() {
    let eni = tagged(interface("eni-1"), "team", "storage");
    let words = super::describe::origin(&eni);
    for word in ["made by hand", "111122223333", "team=storage"] {
        assert!(words.contains(word), "{words}");
    }
}

#[tokio::test]
async fn a_refusal_has_ec2s_code_once_and_a_remedy_with_the_region() {
    let quota = CallError {
        action: "CreateNetworkInterface",
        code: Some("NetworkInterfaceLimitExceeded".into()),
        message: "NetworkInterfaceLimitExceeded: You have reached the limit.".into(),
        refused: true,
    };
    let (executor, _) = executor(true, vec![Err(quota)]);
    let failure = executor.run(create("token")).await.unwrap_err();
    assert_eq!(
        failure.message,
        "CreateNetworkInterface: NetworkInterfaceLimitExceeded: You have reached the limit"
    );
    for word in [
        "Network interfaces per Region",
        "Service Quotas",
        "eu-west-1",
    ] {
        assert!(failure.remedy.contains(word), "{}", failure.remedy);
    }
}

async fn adopts(executor: &Executor) -> bool {
    executor.attached().await.unwrap()[0].managed
}

fn list_of(eni: &Interface) -> Result<Reply, CallError> {
    Ok(Reply::Interfaces(vec![eni.clone()]))
}

fn own_nets(nets: &[&str]) -> Vec<(IpNet, HostClaim)> {
    let nets = nets.iter().map(|net| net.parse().unwrap());
    nets.map(|net| (net, HostClaim::Own)).collect()
}

#[tokio::test]
async fn an_eni_whose_addresses_the_host_uses_is_adopted_when_the_host_drops_them() {
    let eni = interface("eni-1");
    for own in ["10.0.0.9/32", "10.0.0.10/32", "10.0.0.0/24"] {
        let (executor, _) = executor(true, vec![list_of(&eni), list_of(&eni)]);
        assert!(
            !executor.host_has(&own_nets(&[own])),
            "nothing is known yet"
        );
        assert!(!adopts(&executor).await, "{own}");
        assert!(!executor.host_has(&own_nets(&[own, "10.9.0.1/32"])));
        assert!(executor.host_has(&[]), "the list is worth another look");
        assert!(adopts(&executor).await, "{own}");
    }
}

#[tokio::test]
async fn an_adopted_eni_is_kept_although_a_dhcp_client_configures_it_later() {
    let eni = interface("eni-1");
    let (executor, _) = executor(true, vec![list_of(&eni), list_of(&eni)]);
    assert!(adopts(&executor).await);
    executor.host_has(&own_nets(&["10.0.0.9/32"]));
    assert!(adopts(&executor).await);
}

#[tokio::test]
async fn a_restart_keeps_what_the_pool_has_managed() {
    let eni = interface("eni-1");
    let own = own_nets(&["10.0.0.9/32"]);
    let (recorded, _) = executor(true, vec![list_of(&eni)]);
    recorded.keep([EniId::from("eni-1")], [].into());
    recorded.host_has(&own);
    assert!(adopts(&recorded).await, "the state file has it");
    let (configured, _) = executor(true, vec![list_of(&eni)]);
    configured.keep([], [IpAddr::from([10, 0, 0, 9])].into());
    configured.host_has(&own);
    assert!(adopts(&configured).await, "the kernel has our rule for it");
}
