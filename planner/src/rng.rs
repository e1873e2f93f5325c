//! The planner's only randomness: a seeded generator for jitter and client tokens.
//!
//! Each purpose has its own generator, so an extra retry does not change the tokens in a golden trace. Not for secrets.

use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood 2014). Any seed is a good seed.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn new(seed: u64, purpose: u64) -> Self {
        Self(seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between half of `full` and `full`, so that the nodes of a fleet do not retry at the same moment.
    pub(crate) fn jitter(&mut self, full: Duration) -> Duration {
        let half = full / 2;
        let part = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        half + half.mul_f64(f64::from(part) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_its_half_and_repeats_by_seed() {
        let full = Duration::from_secs(8);
        let draw = |seed| {
            let mut rng = Rng::new(seed, 1);
            (0..100).map(|_| rng.jitter(full)).collect::<Vec<_>>()
        };
        assert!(draw(7).iter().all(|d| (full / 2..=full).contains(d)));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
