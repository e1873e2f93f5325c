//! What of EC2 the pool may use: whose an ENI is, and in which subnets ENIs may be created.
//!
//! Owns these two decisions and their reasons. It looks at what EC2 says. It must not know the pool, and it must not call
//! EC2: the caller passes the facts in.

pub mod ownership;
pub mod subnets;
