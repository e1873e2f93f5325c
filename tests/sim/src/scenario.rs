//! The contents of a seed: the node, its configuration, its pods, and all faults.
//!
//! May use `random` and `faults`. Must not know the world or the run.

mod places;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::{Ipv4Net, Ipv6Net};
use planner::{Config, Family, InstanceType, limits};

pub use places::{Change, ClassPlan, Mode, Places, Taken};

use crate::{faults::Fault, random::Purpose};
use vpc_sim::random::Rng;

/// The node has been up for a while when the daemon first starts.
pub const BOOT: Duration = Duration::from_secs(1000);

/// EC2 actions that can be denied or refused.
const DENIABLE: [&str; 8] = [
    "CreateNetworkInterface",
    "AttachNetworkInterface",
    "AssignPrivateIpAddresses",
    "UnassignPrivateIpAddresses",
    "DetachNetworkInterface",
    "DeleteNetworkInterface",
    "DescribeNetworkInterfaces",
    "ModifyNetworkInterfaceAttribute",
];

/// The same for an IPv6 node.
const DENIABLE_V6: [&str; 3] = [
    "AssignIpv6Addresses",
    "UnassignIpv6Addresses",
    "DescribeNetworkInterfaces",
];

/// Faults that last for a while.
const LASTING: [Fault; 25] = [
    // Those that need an opportunity are more frequent.
    Fault::Stale,
    Fault::Stale,
    Fault::Stale,
    Fault::Partial,
    Fault::Partial,
    Fault::Fresh,
    Fault::LostReply,
    Fault::Unsent,
    Fault::Refused,
    Fault::Truncated,
    Fault::Internal,
    Fault::InternalApplied,
    Fault::Throttled,
    Fault::Buckets,
    Fault::Denied,
    Fault::Lasting,
    Fault::Exhausted,
    Fault::Fragmented,
    Fault::Fresh,
    Fault::Stale,
    Fault::Partial,
    Fault::LinkLate,
    Fault::HostFails,
    Fault::WireFails,
    Fault::Cordoned,
];

/// Faults that happen once.
const SUDDEN: [Fault; 15] = [
    Fault::AttachStall,
    Fault::AttachStall,
    Fault::DetachStall,
    Fault::DetachStall,
    Fault::ForeignAttach,
    Fault::ForeignManaged,
    Fault::ForeignDetach,
    Fault::ForeignDelete,
    Fault::Moved,
    Fault::HostTakes,
    Fault::HostTakes,
    Fault::HostDrops,
    Fault::Crash,
    Fault::Crash,
    Fault::Crash,
];

/// Those of an IPv6 node: it has one ENI, and others are not affected.
const SUDDEN_V6: [Fault; 9] = [
    Fault::PrefixTaken,
    Fault::PrefixTaken,
    Fault::PrefixAdded,
    Fault::ForeignAttach,
    Fault::HostTakes,
    Fault::HostDrops,
    Fault::Crash,
    Fault::Crash,
    Fault::Crash,
];

/// The subnet's IPv6 block, and the VPC's block that contains it.
pub const SUBNET_V6: Ipv6Net = Ipv6Net::new_assert(
    Ipv6Addr::new(0x2600, 0x1f14, 0x0abc, 0xde00, 0, 0, 0, 0),
    64,
);

/// A fault that is active from `from` to `to`.
#[derive(Clone, Debug)]
pub struct Window {
    pub fault: Fault,
    pub from: Duration,
    pub to: Duration,
    /// The share of calls (or other opportunities) that it affects.
    pub percent: u64,
    /// The action that is denied or refused.
    pub action: &'static str,
}

/// How pods are created and deleted.
#[derive(Clone, Debug)]
pub struct Load {
    /// Mean time between arrivals.
    pub every: Duration,
    /// Pods per arrival.
    pub batch: u64,
    /// Longest lifetime.
    pub life: Duration,
    /// The maximum number of pods that the scheduler places here.
    pub most: usize,
    /// The share of waiting ADDs that are cancelled.
    pub called_off: u64,
}

/// The world of one seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub kind: &'static InstanceType,
    pub subnet: Ipv4Net,
    pub places: Places,
    pub config: Config,
    /// The daemon's time limit for one EC2 call.
    pub timeout: Duration,
    /// The maximum age of a list.
    pub lag: Duration,
    /// ENIs of a previous process.
    pub leftovers: u64,
    /// The end of pods and faults; all times of faults count from [`BOOT`].
    pub chaos: Duration,
    pub windows: Vec<Window>,
    pub sudden: Vec<(Duration, Fault)>,
    pub load: Load,
}

impl Scenario {
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Purpose::Scenario.stream(seed);
        let mut family = Purpose::Family.stream(seed);
        let mut kind = instance(&mut rng);
        let mut config = config(&mut rng, kind);
        if family.percent(20) {
            kind = in_ipv6(&mut config, kind);
        }
        let chaos = rng.seconds(90, 600);
        let places = match config.family {
            Family::V4 => Places::draw(&mut Purpose::Places.stream(seed), chaos),
            Family::V6 => Places::none(),
        };
        if places.mode == Mode::Custom {
            // The primary ENI serves no pods.
            config.max_eni = config.max_eni.map(|most| most.max(2));
        }
        let calm = rng.percent(8);
        let count = |rng: &mut Rng, most: u64| if calm { 0 } else { rng.below(most + 1) };
        let (deniable, strikes): (&[_], &[_]) = match config.family {
            Family::V4 => (&DENIABLE, &SUDDEN),
            Family::V6 => (&DENIABLE_V6, &SUDDEN_V6),
        };
        let windows = (0..count(&mut rng, 5))
            .map(|_| window(&mut rng, chaos, deniable))
            .collect();
        let mut sudden: Vec<_> = (0..count(&mut rng, 5))
            .map(|_| (rng.millis(0, millis(chaos)), *rng.pick(strikes)))
            .collect();
        sudden.sort_by_key(|(at, _)| *at);
        let cooldown = config.cooldown;
        let limit =
            u64::from(limits::pod_limit(kind, &config, places.mode != Mode::Custom).addresses);
        Self {
            seed,
            kind,
            subnet: subnet(&mut rng),
            places,
            config,
            timeout: rng.seconds(5, 10),
            lag: rng.seconds(1, 9),
            leftovers: if rng.percent(15) { 1 + rng.below(2) } else { 0 },
            chaos,
            windows,
            sudden,
            load: load(&mut rng, limit, cooldown),
        }
    }

    /// The active window of `fault` at `now`.
    #[must_use]
    pub fn window(&self, fault: Fault, now: Duration) -> Option<&Window> {
        let now = now.checked_sub(BOOT)?;
        let mut open = self.windows.iter();
        open.find(|w| w.fault == fault && w.from <= now && now < w.to)
    }

    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.config.family == Family::V6
    }

    /// Whether the pool sizes itself by demand: no target is set. An IPv6 node's one prefix is always enough.
    #[must_use]
    pub fn sizes_itself(&self) -> bool {
        !self.is_ipv6()
            && self.config.warm_eni_target.is_none()
            && self.config.warm_ip_target.is_none()
            && self.config.minimum_ip_target.is_none()
            && self.config.warm_prefix_target.is_none()
    }

    /// Whether lists may be stale in this world.
    #[must_use]
    pub fn has_stale_lists(&self) -> bool {
        self.windows.iter().any(|w| w.fault == Fault::Stale)
    }
}

fn instance(rng: &mut Rng) -> &'static InstanceType {
    const KINDS: [&str; 8] = [
        "t3.small",
        "t3.small",
        "t3.medium",
        "t3.medium",
        "t2.medium",
        "m5.large",
        "m5.large",
        "m5.xlarge",
    ];
    limits::lookup(KINDS[rng.index(KINDS.len())]).expect("the table has these types")
}

/// Turns a node into an IPv6 node, which needs prefixes.
fn in_ipv6(config: &mut Config, kind: &'static InstanceType) -> &'static InstanceType {
    config.family = Family::V6;
    config.prefix_delegation = true;
    if kind.prefix_mode(config) {
        kind
    } else {
        limits::lookup("t3.medium").expect("the table has this type")
    }
}

fn subnet(rng: &mut Rng) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), *rng.pick(&[24, 24, 25, 26, 27]))
}

fn config(rng: &mut Rng, kind: &InstanceType) -> Config {
    let mut config = Config {
        prefix_delegation: rng.percent(25),
        cooldown: rng.seconds(10, 40),
        manage_cordoned: rng.percent(20),
        ..Config::default()
    };
    match rng.below(6) {
        0 => {}
        1 | 2 => config.warm_eni_target = u32::try_from(rng.below(3)).ok(),
        3 => config.warm_prefix_target = u32::try_from(rng.below(2)).ok(),
        _ => {
            config.warm_ip_target = Some(1 + u32::try_from(rng.below(6)).unwrap_or(0));
            config.minimum_ip_target = rng.percent(50).then(|| u32::from(kind.ipv4_per_eni));
        }
    }
    if rng.percent(20) {
        config.max_eni = Some(1 + u16::try_from(rng.below(3)).unwrap_or(0));
    }
    config
}

/// Pods that, on average, use or have just released between a fifth and slightly more of the node's capacity.
fn load(rng: &mut Rng, limit: u64, cooldown: Duration) -> Load {
    let bursts = rng.percent(40);
    let batch = if bursts {
        1 + rng.below((limit + 2).min(40))
    } else {
        1
    };
    // In hundredths of a pod, and how long each of them then occupies its address.
    let pods = limit.min(40) * (20 + rng.below(90));
    let occupied = millis(cooldown) + rng.below(150_000);
    let every = occupied * 100 * batch.div_ceil(2) / pods.max(1);
    Load {
        every: Duration::from_millis(every),
        batch,
        life: Duration::from_millis((occupied - millis(cooldown)) * 2),
        most: usize::try_from(pods / 100 + 2).unwrap_or(usize::MAX),
        called_off: if rng.percent(30) { 20 } else { 0 },
    }
}

fn window(rng: &mut Rng, chaos: Duration, deniable: &[&'static str]) -> Window {
    let fault = *rng.pick(&LASTING);
    let from = rng.millis(0, millis(chaos) * 4 / 5);
    // Half of them last until the end: recovery starts from the faults that are active then.
    let to = if rng.percent(50) {
        chaos
    } else {
        rng.millis(millis(from), millis(chaos))
    };
    let percent = if rng.percent(30) {
        100
    } else {
        5 + rng.below(80)
    };
    let action = deniable[rng.index(deniable.len())];
    Window {
        fault,
        from,
        to,
        percent,
        action,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {} in {}, {:?}",
            self.kind.name, self.subnet, self.config
        )?;
        if self.places.mode != Mode::Primary {
            writeln!(f, "  {:?}", self.places)?;
        }
        write!(
            f,
            "  {:?}, faults until {:.0} s:",
            self.load,
            self.chaos.as_secs_f64()
        )?;
        for Window {
            fault,
            from,
            to,
            percent,
            action,
        } in &self.windows
        {
            let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
            write!(f, " {} {percent} % {from:.0}–{to:.0} s", fault.name())?;
            if matches!(fault, Fault::Denied | Fault::Lasting) {
                write!(f, " ({action})")?;
            }
            f.write_str(";")?;
        }
        for (at, fault) in &self.sudden {
            write!(f, " {} at {:.0} s;", fault.name(), at.as_secs_f64())?;
        }
        Ok(())
    }
}
