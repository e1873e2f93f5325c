//! EC2 as the daemon sees it: ten calls, their answers, and what can go wrong with them ([`call`]).
//!
//! [`Ec2`] is the seam: production talks to AWS through [`aws`], simulations implement it in process. Whoever
//! implements it encodes, sends once and decodes; retries, pacing and meaning belong to [`executor`] and the planner.

pub mod aws;
pub mod call;
pub mod class;
pub mod executor;
pub mod identity;
pub mod kind;
pub mod limiter;
pub mod metadata;
pub mod start;

pub use call::{Bond, Call, CallError, CallFuture, Ec2, Interface, Reply};
