//! One node of the fleet: the daemon's pool task with everything behind it, except the kernel.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use ipamd::{
    config::Cloud,
    ec2::executor::Executor,
    host::seam::EniHost,
    node::identity::Identity,
    pool::{
        discovery,
        driver::{Driver, Pool},
    },
    runtime::{clock::Clock, supervise::Detached},
    telemetry::metrics::Metrics,
};
use planner::{
    Config, EniClass, Event, Failure, Mono, Placement, Planner, Pod, Sandbox,
    command::ConfigureEni, limits,
};
use tokio::{task::JoinSet, time::Instant};

use vpc_sim::random::Rng;

use super::account::{Account, instance, subnet};

const TYPE: &str = "m5.large";
/// Pod addresses of its primary ENI, all of which are held from the start: the same number of further pods needs one
/// more ENI.
pub const FIRST_ENI: u32 = 9;

/// A running node.
#[derive(Debug)]
pub struct Node {
    name: String,
    pool: Pool,
    pods: AtomicU32,
}

/// The kernel: an attached ENI's link appears some seconds later.
#[derive(Clone, Debug)]
struct Kernel(Arc<Mutex<Rng>>);

impl EniHost for Kernel {
    async fn configure(&self, eni: ConfigureEni) -> Result<(), Failure> {
        if eni.device > 0 {
            let appears = {
                let mut dice = self.0.lock().expect("no holder panics");
                dice.millis(1000, 6000)
            };
            tokio::time::sleep(appears).await;
        }
        Ok(())
    }

    async fn deconfigure(&self, _: ConfigureEni) -> Result<(), Failure> {
        Ok(())
    }
}

impl Node {
    /// Starts node `n` like the daemon does, without records. Its new ENIs are of this class.
    ///
    /// # Panics
    /// If the planner does not know the instance type.
    pub fn start(
        n: usize,
        seed: u64,
        class: &EniClass,
        account: &Arc<Account>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let me = identity(n, account);
        let executor = Executor::new(
            Arc::new(account.seat(n)),
            Arc::new(me.clone()),
            settings(),
            Arc::new(Metrics::new()),
        );
        let own = seed.wrapping_add(u64::try_from(n).expect("64 bits") << 20);
        let kind = limits::require(TYPE).expect("a common type").clone();
        let placement = Placement {
            class: Ok(class.clone()),
            ..me.placement()
        };
        let planner = Planner::new(config(), kind, placement, own);
        let kernel = Kernel(Arc::new(Mutex::new(Rng::new(own, 0))));
        let (pool, driver) = Driver::new(
            planner,
            executor.clone(),
            kernel,
            Detached::default(),
            Clock::Runtime(Instant::now()),
        );
        tasks.spawn(driver.run());
        tasks.spawn(discovery::run(executor, pool.clone(), false));
        Self {
            name: me.instance,
            pool,
            pods: AtomicU32::new(0),
        }
    }

    /// One more pod; ends when it has its address and is wired.
    pub fn pod(&self) -> impl Future<Output = ()> + Send + use<> {
        let nth = self.pods.fetch_add(1, Ordering::Relaxed);
        let sandbox = Sandbox {
            network: "hawser".to_owned(),
            container_id: format!("{}-{nth}", self.name),
            ifname: "eth0".to_owned(),
        };
        let pool = self.pool.clone();
        async move {
            let granted = pool.add(sandbox.clone(), Pod::default(), patient()).await;
            granted.expect("a pod with a long deadline is not refused");
            pool.tell(Event::Wired { sandbox }).await;
        }
    }
}

/// All addresses of the primary ENI are held, and one spare address beyond the pods': growth starts with the pod that
/// gets the last one.
fn config() -> Config {
    Config {
        warm_ip_target: Some(1),
        minimum_ip_target: Some(FIRST_ENI),
        ..Config::default()
    }
}

fn settings() -> Cloud {
    Cloud {
        cluster: Some("fleet".to_owned()),
        extra_tags: [].into(),
        manage_untagged: false,
        leaked_eni_cleanup: true,
        proxies: Default::default(),
        timeout: Duration::from_secs(10),
    }
}

fn identity(n: usize, account: &Account) -> Identity {
    let primary = account.primary(n);
    let (subnet, subnet_cidr) = subnet(n);
    Identity {
        instance: instance(n),
        instance_type: TYPE.to_owned(),
        region: "us-west-2".to_owned(),
        mac: primary.mac,
        address: primary.primary.expect("instances have one"),
        subnet,
        subnet_cidr,
        security_groups: vec!["sg-fleet".into()],
    }
}

/// Long enough for the slowest fleet: these pods measure the pool, so they never give up early.
fn patient() -> Mono {
    Mono::from_epoch(Duration::from_secs(1_000_000))
}
