//! Lists of subnets: what is asked for, how often, and what a denial means.

use planner::placement::{Inquiry, SubnetList};

use super::*;
use crate::ec2::api::{RouteTable, Subnet};

fn subnet(id: &str, role: Option<&str>) -> Subnet {
    let tag = role.map(|role| ("kubernetes.io/role/cni".to_owned(), role.to_owned()));
    Subnet {
        subnet: SubnetId::from(id),
        cidr: "10.0.0.0/24".parse().unwrap(),
        zone: Some("eu-west-1a".into()),
        free: 100,
        tags: tag.into_iter().collect(),
    }
}

async fn list(executor: &Executor) -> Result<SubnetList, Failure> {
    list_when(executor, true).await
}

async fn list_when(executor: &Executor, at_once: bool) -> Result<SubnetList, Failure> {
    let inquiry = Inquiry::OfZone;
    match executor
        .run(Command::DescribeSubnets {
            op: Op(1),
            inquiry,
            at_once,
        })
        .await?
    {
        Answer::Subnets(list) => Ok(list),
        other => panic!("{other:?}"),
    }
}

/// The primary ENI's description has the VPC and the zone.
fn at_home() -> Result<Reply, CallError> {
    Ok(Reply::Interfaces(vec![Interface {
        mac: OUR_MAC,
        ..interface("eni-0")
    }]))
}

#[tokio::test]
async fn route_tables_are_asked_for_once_and_only_if_there_is_a_choice() {
    let alone = || {
        Ok(Reply::Subnets(vec![
            subnet("subnet-1", None),
            subnet("subnet-2", None),
        ]))
    };
    let several = || {
        Ok(Reply::Subnets(vec![
            subnet("subnet-1", None),
            subnet("subnet-2", Some("1")),
        ]))
    };
    let tables = Ok(Reply::RouteTables(vec![RouteTable {
        id: "rtb-1".into(),
        main: true,
        subnets: [].into(),
    }]));
    let (executor, ec2) = executor(true, vec![at_home(), alone(), several(), tables, several()]);
    executor.attached().await.unwrap();
    let first = list(&executor).await.unwrap();
    assert!(
        first
            .subnets
            .iter()
            .all(|known| known.route_table.is_none())
    );
    for _ in 0..2 {
        let known = list(&executor).await.unwrap();
        assert!(
            known
                .subnets
                .iter()
                .all(|known| known.route_table.as_deref() == Some("rtb-1"))
        );
    }
    let asked = ec2.asked.lock().unwrap();
    let tables = asked
        .iter()
        .filter(|call| call.action() == "DescribeRouteTables");
    assert_eq!(tables.count(), 1);
    let filters = asked.iter().find_map(|call| match call {
        Call::DescribeSubnets { filters } => Some(filters.clone()),
        _ => None,
    });
    let names: Vec<_> = filters.unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["vpc-id", "availability-zone"]);
}

/// An idle node makes one call in an hour, not two.
#[tokio::test]
async fn without_hurry_the_route_tables_come_with_the_next_list() {
    let several = Ok(Reply::Subnets(vec![
        subnet("subnet-1", None),
        subnet("subnet-2", Some("1")),
    ]));
    let tables = Ok(Reply::RouteTables(vec![RouteTable {
        id: "rtb-1".into(),
        main: true,
        subnets: [].into(),
    }]));
    let (executor, ec2) = executor(true, vec![at_home(), several, tables]);
    executor.attached().await.unwrap();
    let first = list_when(&executor, false).await.unwrap();
    let second = list_when(&executor, false).await.unwrap();
    assert_eq!((first.subnets.len(), second.subnets.len()), (2, 2));
    let has_table =
        |list: &SubnetList| list.subnets.iter().all(|known| known.route_table.is_some());
    assert_eq!((has_table(&first), has_table(&second)), (false, true));
    assert_eq!(ec2.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_denied_list_of_route_tables_is_no_failure_and_is_not_repeated() {
    let denied = Err(CallError {
        action: "DescribeRouteTables",
        code: Some("UnauthorizedOperation".into()),
        message: "UnauthorizedOperation: no".into(),
        refused: true,
    });
    let several = || {
        Ok(Reply::Subnets(vec![
            subnet("subnet-1", None),
            subnet("subnet-2", Some("1")),
        ]))
    };
    let (executor, _) = executor(true, vec![at_home(), several(), denied, several()]);
    executor.attached().await.unwrap();
    for _ in 0..2 {
        let known = list(&executor).await.unwrap();
        assert_eq!(known.subnets.len(), 2);
        assert!(
            known
                .subnets
                .iter()
                .all(|known| known.route_table.is_none())
        );
    }
}
