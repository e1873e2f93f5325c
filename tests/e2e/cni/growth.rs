//! How the pool grows, seen from outside: EC2's ledger and the waits of pods.

use std::time::Duration;

use lab::{Lab, node::count, wait::eventually};
use vpc_sim::{Action, Fault, FaultKind, SimConfig};

use crate::suite::{Outcome, trials};

trials!(
    a_storm_of_adds_and_dels_is_answered,
    an_eni_created_before_a_crash_is_found_and_used,
    a_warm_eni_stands_ready,
    an_eni_costs_three_calls,
    forty_pods_at_once_are_all_served,
    the_metrics_show_what_pods_waited_for,
);

fn a_warm_eni_stands_ready() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("m5.large", &[("WARM_ENI_TARGET", "1")])?;
    // WARM_ENI_TARGET=1: one ENI's worth of free addresses, which is 9.
    assert!(
        eventually(Duration::from_secs(20), || count(&node, "free")
            .is_ok_and(|n| n >= 9)),
        "{}",
        node.log()
    );
    node.add_pod("pod0")?;
    assert!(
        eventually(Duration::from_secs(20), || count(&node, "free")
            .is_ok_and(|n| n >= 9)),
        "the spare ENI was not replaced\n{}",
        node.log()
    );
    Ok(())
}

fn an_eni_costs_three_calls() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("m5.large", &[("WARM_IP_TARGET", "10")])?;
    assert!(
        eventually(Duration::from_secs(20), || count(&node, "free")
            .is_ok_and(|n| n >= 10)),
        "{}",
        node.log()
    );
    let changing: Vec<String> = lab
        .sim
        .calls()
        .into_iter()
        .map(|call| call.action)
        .filter(|action| !action.starts_with("Describe"))
        .collect();
    let of = |action: &str| changing.iter().filter(|a| *a == action).count();
    assert_eq!(of("CreateNetworkInterface"), 1, "{changing:?}");
    assert_eq!(of("AttachNetworkInterface"), 1, "{changing:?}");
    assert_eq!(of("ModifyNetworkInterfaceAttribute"), 1, "{changing:?}");
    assert!(
        of("AssignPrivateIpAddresses") <= 1 && changing.len() <= 4,
        "{changing:?}"
    );
    Ok(())
}

fn forty_pods_at_once_are_all_served() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("m5.xlarge", &[])?;
    let results = at_once(40, |n| node.add_pod(&format!("pod{n}")));
    let mut addresses = Vec::new();
    for result in results {
        addresses.push(result?.address());
    }
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 40, "no two pods share an address");
    Ok(())
}

fn the_metrics_show_what_pods_waited_for() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[("WARM_ENI_TARGET", "0")])?;
    let waited = |outcome: &str, reason: &str| {
        node.metric(&format!(
            "hawser_address_wait_seconds_count{{outcome=\"{outcome}\",reason=\"{reason}\"}} "
        ))
    };
    for n in 0..3 {
        node.add_pod(&format!("pod{n}"))?;
    }
    assert_eq!(waited("granted", "create")?, 0);
    node.add_pod("pod3")?;
    assert_eq!(waited("granted", "create")?, 1, "{}", node.metrics()?);
    node.add_pod("pod4")?;
    assert!(waited("granted", "warm")? > 0, "{}", node.metrics()?);
    Ok(())
}

fn an_eni_created_before_a_crash_is_found_and_used() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("t3.small", &[("WARM_ENI_TARGET", "1")])?;
    let hang = FaultKind::Hang;
    lab.sim.faults().push(Fault {
        action: Action::AttachNetworkInterface,
        times: 1,
        kind: hang,
    });
    // Four pods do not fit on the primary ENI: another one is created, and its attachment hangs.
    for n in 0..3 {
        node.add_pod(&format!("pod{n}"))?;
    }
    let created = || lab.sim.world().interfaces().count() == 2;
    assert!(
        eventually(Duration::from_secs(20), created),
        "{}",
        node.log()
    );
    node.kill_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    node.add_pod("next")?;
    assert!(
        lab.sim.world().interfaces().count() <= 3,
        "the ENI of the previous process was not used\n{}",
        node.log()
    );
    let attached = || {
        lab.sim
            .world()
            .interfaces()
            .all(|eni| eni.attachment.is_some())
    };
    assert!(
        eventually(Duration::from_secs(20), attached),
        "an ENI is left unattached\n{}",
        node.log()
    );
    Ok(())
}

/// A node that becomes Ready, and one that is drained: 250 ADDs at once, then each DEL three times at once, half of
/// them without a namespace.
fn a_storm_of_adds_and_dels_is_answered() -> Outcome {
    const PODS: usize = 250;
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("m5.24xlarge", &[])?;
    let added = at_once(PODS, |n| node.add_pod(&format!("pod{n}")));
    let pods: Vec<_> = added.into_iter().collect::<std::io::Result<_>>()?;
    let different: std::collections::BTreeSet<_> = pods.iter().map(|pod| pod.address()).collect();
    assert_eq!(different.len(), PODS, "no two pods share an address");

    let deleted = at_once(3 * PODS, |n| {
        let pod = &pods[n % PODS];
        let netns = (n % 2 == 0).then_some(pod.path.as_path());
        node.invocation("DEL", &pod.id, netns).run(node.netns())
    });
    for outcome in deleted {
        let outcome = outcome?;
        assert!(outcome.succeeded(), "{outcome:?}");
    }
    assert_eq!(count(&node, "assigned")?, 0);
    let links = || {
        node.netns()
            .run(|| datapath::netlink::Socket::open()?.links())
    };
    let pod_links_gone = || {
        links().is_ok_and(|found| {
            found.is_ok_and(|all| all.iter().all(|l| !l.name.starts_with("eni")))
        })
    };
    assert!(
        eventually(Duration::from_secs(30), pod_links_gone),
        "pod links are left"
    );
    Ok(())
}

/// Runs `work` on this many threads at once.
fn at_once<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let start = |n| {
            let work = &work;
            scope.spawn(move || work(n))
        };
        let threads: Vec<_> = (0..count).map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no thread panics"))
            .collect()
    })
}
