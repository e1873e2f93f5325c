//! Findings about EC2 and the instance metadata service.

use std::{process::Command, time::Duration};

use ipnet::Ipv4Net;
use vpc_sim::{Action, Fault, SimConfig, imds::ImdsFault};

use super::doctor_node::{DoctorNode, Report};
use crate::suite::{Outcome, trials};

trials!(
    a_clock_that_is_off_is_found,
    a_metadata_service_in_trouble_is_found,
    a_small_subnet_and_a_short_hop_limit_are_found,
    ec2_out_of_reach_is_found,
    denied_iam_actions_are_found_one_by_one
);

fn denied_iam_actions_are_found_one_by_one() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    for action in [
        Action::CreateNetworkInterface,
        Action::AttachNetworkInterface,
        Action::ModifyNetworkInterfaceAttribute,
        Action::DetachNetworkInterface,
        Action::DeleteNetworkInterface,
        Action::CreateTags,
        Action::DescribeSubnets,
    ] {
        examined
            .lab
            .sim
            .faults()
            .push(Fault::error(action, u32::MAX, "UnauthorizedOperation"));
        examined.finds("iam", &format!("IAM denies ec2:{action}"))?;
        examined.lab.sim.faults().clear();
    }
    examined.healthy()?;
    let fault = Fault::error(
        Action::DescribeNetworkInterfaces,
        u32::MAX,
        "UnauthorizedOperation",
    );
    examined.lab.sim.faults().push(fault);
    examined.finds("iam", "EC2 does not list the attached ENIs")?;
    examined.lab.sim.faults().clear();
    let fault = Fault::error(Action::CreateTags, u32::MAX, "InternalError");
    examined.lab.sim.faults().push(fault);
    examined.finds("iam", "could not test ec2:CreateTags")
}

fn ec2_out_of_reach_is_found() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    let output = examined.doctor_at("http://127.0.0.1:9", &["--output", "json"])?;
    Report::read(&output)?.finds("iam", "EC2 cannot be called")
}

fn a_metadata_service_in_trouble_is_found() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    let fault = |delay, status| {
        let fault = ImdsFault {
            path: "/latest/api/token".to_owned(),
            times: 1,
            delay,
            status,
        };
        examined.lab.sim.imds().push(fault);
    };
    fault(Duration::from_millis(1200), None);
    examined.finds("imds", "is slow")?;
    fault(Duration::ZERO, Some(403));
    examined.finds("imds", "returns no token")?;
    examined.healthy()?;
    let mut examined = examined;
    examined
        .node
        .set("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
    examined.finds("imds", "cannot be reached")
}

fn a_clock_that_is_off_is_found() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    examined
        .lab
        .sim
        .imds()
        .set_date("Sat, 01 Jan 2022 00:00:00 GMT");
    examined.finds("clock", "the node's clock is wrong")?;
    let format = "+%a, %d %b %Y %H:%M:%S GMT";
    let date = Command::new("date")
        .args(["-u", "-d", "-90 seconds", format])
        .env("LC_ALL", "C")
        .output()?;
    let date = String::from_utf8(date.stdout)?;
    examined.lab.sim.imds().set_date(date.trim());
    examined.finds("clock", "the node's clock drifts")
}

fn a_small_subnet_and_a_short_hop_limit_are_found() -> Outcome {
    let mut sim = SimConfig::default();
    sim.world.hop_limit = 1;
    sim.subnets[0].cidr = "10.0.0.0/28".parse::<Ipv4Net>()?;
    // All on one ENI: the last address cannot be both another ENI's own and a pod's.
    let examined = DoctorNode::start("m5.xlarge", sim)?;
    examined.finds("hop limit", "pods cannot reach")?;
    examined.finds("subnets", "has few free addresses")?;
    // Sixteen, minus the five that AWS reserves and the primary ENI's own.
    for n in 0..8 {
        examined.node.add_pod(&format!("pod{n}"))?;
    }
    let empty = || examined.finds("subnets", "has no free address").is_ok();
    assert!(
        lab::wait::eventually(Duration::from_secs(20), empty),
        "{:#?}",
        examined.told()?.findings()
    );
    Ok(())
}
