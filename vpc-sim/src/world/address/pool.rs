//! The addresses of one subnet in one family. Owns which ones are used; knows nothing of interfaces.
//!
//! Addresses of both families are `u128` numbers, so that alignment, reservation and fragmentation are implemented
//! once.

use std::collections::BTreeSet;

use crate::random::Rng;

/// Prefix delegation assigns /28 in IPv4 and /80 in IPv6.
pub const V4_BLOCK: u8 = 28;
pub const V6_BLOCK: u8 = 80;

#[derive(Clone, Debug)]
pub struct Pool {
    base: u128,
    size: u128,
    block: u128,
    singles: BTreeSet<u128>,
    blocks: BTreeSet<u128>,
}

/// Why an address or block cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    Outside,
    Reserved,
    Taken,
    Unaligned,
}

impl Pool {
    /// `width` is the family's address length in bits, `len` the subnet's prefix length, `block` the length of a
    /// delegated prefix.
    pub fn new(base: u128, width: u8, len: u8, block: u8) -> Self {
        Self {
            base,
            size: 1 << (width - len),
            block: 1 << (width - block),
            singles: BTreeSet::new(),
            blocks: BTreeSet::new(),
        }
    }

    /// `availableIpAddressCount`: all addresses except the five reserved ones, the assigned ones, and whole delegated
    /// prefixes.
    pub fn available(&self) -> u128 {
        let singles = u128::try_from(self.singles.len()).unwrap_or(u128::MAX);
        let blocks = u128::try_from(self.blocks.len()).unwrap_or(u128::MAX);
        (self.size - 5).saturating_sub(singles + blocks * self.block)
    }

    /// EC2 reserves the first four addresses (network, router, DNS, future use) and the last one.
    const fn reserved(&self, n: u128) -> bool {
        n < self.base + 4 || n == self.base + self.size - 1
    }

    const fn contains(&self, n: u128) -> bool {
        n >= self.base && n - self.base < self.size
    }

    const fn block_of(&self, n: u128) -> u128 {
        n - (n - self.base) % self.block
    }

    /// Whether `n` can be used as a single address.
    pub fn check(&self, n: u128) -> Result<(), Unfit> {
        if !self.contains(n) {
            Err(Unfit::Outside)
        } else if self.reserved(n) {
            Err(Unfit::Reserved)
        } else if self.singles.contains(&n) || self.blocks.contains(&self.block_of(n)) {
            Err(Unfit::Taken)
        } else {
            Ok(())
        }
    }

    /// Whether the block that starts at `n` can be used: it must be aligned and completely free.
    pub fn check_block(&self, n: u128) -> Result<(), Unfit> {
        if !self.contains(n) {
            Err(Unfit::Outside)
        } else if self.block_of(n) != n || self.size < self.block {
            Err(Unfit::Unaligned)
        } else if self.reserved(n) || self.reserved(n + self.block - 1) {
            Err(Unfit::Reserved)
        } else if self.blocks.contains(&n) || self.singles.range(n..n + self.block).next().is_some()
        {
            Err(Unfit::Taken)
        } else {
            Ok(())
        }
    }

    pub fn take(&mut self, n: u128) -> Result<(), Unfit> {
        self.check(n)?;
        self.singles.insert(n);
        Ok(())
    }

    pub fn take_block(&mut self, n: u128) -> Result<(), Unfit> {
        self.check_block(n)?;
        self.blocks.insert(n);
        Ok(())
    }

    pub fn give_back(&mut self, n: u128) {
        self.singles.remove(&n);
    }

    pub fn give_back_block(&mut self, n: u128) {
        self.blocks.remove(&n);
    }

    /// Takes a free address, searching upwards from a random position: like EC2's assignments, this fragments the
    /// subnet.
    pub fn pick(&mut self, rng: &mut Rng) -> Option<u128> {
        if self.available() == 0 {
            return None;
        }
        let (mut at, mut left) = (rng.below_wide(self.size), self.size);
        while left > 0 {
            let n = self.base + at;
            // Skips a delegated block as a whole: a /16 full of them needs 4096 steps, not 65536.
            let inside = self.blocks.contains(&self.block_of(n));
            let step = if inside {
                self.block - at % self.block
            } else {
                1
            };
            if self.take(n).is_ok() {
                return Some(n);
            }
            at = (at + step) % self.size;
            left = left.saturating_sub(step);
        }
        None
    }

    /// Takes a free block, searching upwards from a random one.
    pub fn pick_block(&mut self, rng: &mut Rng) -> Option<u128> {
        let count = self.size / self.block;
        let start = rng.below_wide(count);
        let (base, block) = (self.base, self.block);
        (0..count)
            .map(|i| base + (start + i) % count * block)
            .find(|n| self.take_block(*n).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slash(len: u8) -> Pool {
        Pool::new(0x0a00_0000, 32, len, V4_BLOCK)
    }

    #[test]
    fn five_addresses_are_reserved() {
        let mut p = slash(28);
        assert_eq!(p.available(), 11);
        for n in [0, 1, 2, 3, 15] {
            assert_eq!(p.take(0x0a00_0000 + n), Err(Unfit::Reserved));
        }
        let mut rng = Rng::new(1, 1);
        let picked: BTreeSet<_> = std::iter::from_fn(|| p.pick(&mut rng)).collect();
        assert_eq!(picked, (0x0a00_0004..0x0a00_000f).collect());
        assert_eq!(p.available(), 0);
    }

    #[test]
    fn the_blocks_that_hold_reserved_addresses_are_never_given() {
        let mut p = slash(24);
        let mut rng = Rng::new(1, 1);
        let blocks: BTreeSet<_> = std::iter::from_fn(|| p.pick_block(&mut rng)).collect();
        assert_eq!(blocks.len(), 14, "16 blocks, less the first and the last");
        assert!(blocks.iter().all(|b| b % 16 == 0));
        assert_eq!(p.available(), 256 - 5 - 14 * 16);
    }

    #[test]
    fn one_single_per_block_exhausts_blocks_and_leaves_singles() {
        let mut p = slash(24);
        let mut rng = Rng::new(1, 1);
        for b in 0..16 {
            p.take(0x0a00_0000 + b * 16 + 7).unwrap();
        }
        assert_eq!(p.pick_block(&mut rng), None);
        assert_eq!(p.available(), 256 - 5 - 16);
        assert!(p.pick(&mut rng).is_some());
    }

    #[test]
    fn a_block_must_be_aligned_inside_and_free() {
        let mut p = slash(24);
        assert_eq!(p.take_block(0x0a00_0018), Err(Unfit::Unaligned));
        assert_eq!(p.take_block(0x0a00_0100), Err(Unfit::Outside));
        assert_eq!(p.take_block(0x0a00_0000), Err(Unfit::Reserved));
        p.take_block(0x0a00_0010).unwrap();
        assert_eq!(p.take_block(0x0a00_0010), Err(Unfit::Taken));
        assert_eq!(p.take(0x0a00_0012), Err(Unfit::Taken));
        p.give_back_block(0x0a00_0010);
        p.take(0x0a00_0012).unwrap();
        assert_eq!(p.take_block(0x0a00_0010), Err(Unfit::Taken));
    }

    #[test]
    fn a_crowded_subnet_still_yields_its_last_address() {
        let mut p = slash(16);
        let mut rng = Rng::new(3, 1);
        while p.pick_block(&mut rng).is_some() {}
        let singles = std::iter::from_fn(|| p.pick(&mut rng)).count();
        assert_eq!(
            singles,
            12 + 15,
            "what is left of the first and of the last block"
        );
    }

    #[test]
    fn ipv6_gives_slash_80() {
        let mut p = Pool::new(0x2600_1f14_0000_0000 << 64, 128, 64, V6_BLOCK);
        let mut rng = Rng::new(5, 1);
        let b = p.pick_block(&mut rng).unwrap();
        assert_eq!(b % (1 << 48), 0);
        assert_eq!(p.take(b + 1), Err(Unfit::Taken));
        assert!(p.pick(&mut rng).is_some());
    }
}
