//! Time as the simulator takes and writes it.
//!
//! Owns the clock of a running simulator and the text forms of times. May use nothing of the crate. Must not know the
//! world, which is told the time.

pub(crate) mod clock;
pub(crate) mod text;
