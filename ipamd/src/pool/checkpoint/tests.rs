//! What the pool saves survives a killed daemon.

use std::{
    collections::BTreeMap,
    future::pending,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use planner::{
    AttachmentId, Config, Demand, EniId, Event, Failure, Mac, Mono, Observed, Planner, Pod,
    Restored, Sandbox, SubnetId, command::ConfigureEni, event::EniAttachment, limits,
};

use super::*;
use crate::{
    config,
    ec2::{
        api::{Call, CallFuture, Ec2},
        executor::Executor,
    },
    host::seam::EniHost,
    node::identity::Identity,
    pool::driver::Driver,
    runtime::{clock::Clock, supervise::Detached, worker::Job},
    telemetry::metrics::Metrics,
};

/// EC2 never answers: only the pods and the pool act here.
struct Silent;

impl Ec2 for Silent {
    fn call(&self, _: Call) -> CallFuture<'_> {
        Box::pin(pending())
    }
}

#[derive(Clone)]
struct Willing;

impl EniHost for Willing {
    async fn configure(&self, _: ConfigureEni) -> Result<(), Failure> {
        Ok(())
    }

    async fn deconfigure(&self, _: ConfigureEni) -> Result<(), Failure> {
        Ok(())
    }
}

fn executor() -> Executor {
    let me = Identity {
        instance: "i-1".into(),
        instance_type: "m5.large".into(),
        region: "eu-west-1".into(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        address: Ipv4Addr::new(10, 0, 0, 4),
        subnet: SubnetId::from("subnet-1"),
        subnet_cidr: "10.0.0.0/24".parse().unwrap(),
        security_groups: Vec::new(),
    };
    let settings = config::Cloud {
        cluster: None,
        extra_tags: BTreeMap::new(),
        manage_untagged: true,
        leaked_eni_cleanup: true,
        proxies: Default::default(),
        timeout: Duration::from_secs(10),
    };
    let metrics = Arc::new(Metrics::new());
    Executor::new(Arc::new(Silent), Arc::new(me), settings, metrics)
}

/// The primary ENI with nine addresses.
fn primary() -> Observed {
    Observed {
        eni: EniId::from("eni-1"),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        subnet: SubnetId::from("subnet-1"),
        subnet_cidr: Some("10.0.0.0/24".parse().unwrap()),
        security_groups: Vec::new(),
        primary: Ipv4Addr::new(10, 0, 0, 4),
        addresses: (10..19).map(|n| [10, 0, 0, n].into()).collect(),
        prefixes: Vec::new(),
        attached: Some(EniAttachment {
            id: AttachmentId::from("eni-attach-1"),
            card: 0,
            device: 0,
            settled: true,
        }),
        managed: true,
        tagged_ours: true,
    }
}

async fn pool_with(restored: Restored) -> (Pool, Kept, Detached) {
    let kind = limits::require("m5.large").unwrap().clone();
    let planner = Planner::new(
        Config::default(),
        kind,
        planner::Placement::like_primary("subnet-1".into()),
        1,
    );
    let clock = Clock::Runtime(Instant::now());
    let tasks = Detached::default();
    let (pool, driver) = Driver::new(planner, executor(), Willing, tasks.clone(), clock);
    let kept = driver.kept();
    drop(tasks.spawn_idle(driver.run()));
    pool.tell(Event::Restore(restored)).await;
    (pool, kept, tasks)
}

fn size_of_five(demand: &Demand) -> f64 {
    let mut bursts = demand.bursts.iter();
    bursts
        .find(|(size, _)| *size == 5)
        .map_or(0.0, |(_, weight)| *weight)
}

/// Five pods at once; then the daemon is killed, and the next process knows them.
#[tokio::test(start_paused = true)]
async fn the_learned_demand_survives_a_killed_daemon() {
    let dir = std::env::temp_dir().join(format!("hawser-memory-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("state");
    let store = Mutex::new(Store::open(&file, "boot-1").unwrap().0);
    let store = Worker::without_thread(move |job: Job<Store>| job(&mut store.lock().unwrap()));
    let restored = || Restored {
        enis: vec![primary()],
        ..Restored::default()
    };
    let (pool, kept, tasks) = pool_with(restored()).await;
    let keeping = tasks.spawn_idle(keep(kept, pool.clone(), store.clone()));
    for n in 0..5 {
        let sandbox = Sandbox {
            network: "hawser".into(),
            container_id: format!("c{n}"),
            ifname: "eth0".into(),
        };
        let deadline = Mono::from_epoch(Duration::from_secs(60));
        pool.add(sandbox, Pod::default(), deadline).await.unwrap();
    }
    tokio::time::sleep(DEMAND_KEPT * 2).await;
    keeping.abort();
    assert!(keeping.await.is_err_and(|ended| ended.is_cancelled()));
    drop(store);
    let (_, contents) = Store::open(&file, "boot-1").unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let demand = contents.demand.expect("the demand was written");
    assert!(size_of_five(&demand) > 0.5, "{demand:?}");
    assert_eq!(
        contents.enis,
        [Observed {
            tagged_ours: false,
            ..primary()
        }]
    );

    let (heir, ..) = pool_with(Restored {
        demand: Some(demand),
        ..restored()
    })
    .await;
    let learnt = heir.snapshot().await.unwrap().demand;
    assert!(size_of_five(&learnt) > 0.4, "{learnt:?}");
}
