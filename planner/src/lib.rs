//! Makes every decision about addresses and ENIs, and does nothing else. Events and the current time go in, commands
//! come out.
//!
//! The crate owns the pool's state machine, the warm policy and the instance limits. It must not know tokio, AWS,
//! Kubernetes, netlink, the clock, the environment, or any randomness except its seed. If a decision needs one of them,
//! it gets the value as an argument. The caller feeds [`Event`]s to [`Planner::on`] and carries out the [`Command`]s.

#![forbid(unsafe_code)]

pub mod config;
mod demand;
pub mod forecast;
mod gate;
mod interface;
pub mod limits;
mod machine;
mod policy;
mod pool;
mod rng;
pub mod scope;
pub mod time;
mod unit;
mod waiting;

pub use config::Config;
pub use demand::Demand;
pub use forecast::{Holding, forecast};
pub use interface::{
    command::{self, Amount, Command, EniSpec, Refusal},
    event::{
        self, Answer, Class, EniAttachment, Event, Failure, HostClaim, Observed, Rest, Restored,
    },
    names::{self, AttachmentId, EniId, Op, Pod, Sandbox, SecurityGroupId, SubnetId, Ticket},
    obstacle::Obstacle,
    placement::{self, EniClass, Placement},
    snapshot::{self, Snapshot},
};
pub use limits::{InstanceType, PodLimit};
pub use machine::Planner;
pub use nettypes::{EniIndex, Family, Mac};
pub use scope::ownership;
pub use time::Mono;
pub use unit::IPV6_PREFIX_SIZE;
