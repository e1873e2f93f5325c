//! Checks of the repository itself, which need neither privileges nor a node.
//!
//! Owns the parsers of pages that are compared with the code. Uses only the standard library, so that any crate's tests
//! can depend on it.

#![forbid(unsafe_code)]

pub mod catalogue;
