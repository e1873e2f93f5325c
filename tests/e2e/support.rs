//! Shared by several themes. Owns no test. May use `lab` and `suite`; must not know the themes.

pub mod bandwidth;
pub mod campaign;
pub mod golden;
pub mod ipv6;
pub mod kubernetes;
pub mod reboot;
pub mod refusals;
pub mod repair;
pub mod streams;
