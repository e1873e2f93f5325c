//! Checks of the repository itself, which need neither privileges nor a node.
//!
//! Owns the readers of pages that are held to the code. Uses the standard library only, so that any crate's tests can
//! depend on it.

#![forbid(unsafe_code)]

pub mod catalogue;
