//! HTTP on sockets that the caller has bound.
//!
//! Owns the listening and, for tests, a client. May use nothing of EC2. Must not know what is served.

pub(crate) mod serve;
#[cfg(test)]
pub(crate) mod testing;
