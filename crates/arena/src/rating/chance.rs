//! Random numbers that are the same everywhere for the same seed: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom
//! number generators", 2014), which a reference in any language repeats in five lines.

/// The generator.
#[derive(Clone, Copy, Debug)]
pub struct Chance(u64);

impl Chance {
    /// One that begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `count`, which is above 0. The highest bits decide; for counts of votes no number comes more often than
    /// another by a part in 10¹³.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.bits()) * count as u128) >> 64) as usize
    }

    /// A number from 0 to 1, without 1.
    pub fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_splitmix64_s() {
        // The generator's published first outputs for seed 1234567.
        let mut chance = Chance::new(1_234_567);
        let published =
            [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431];
        for expected in published {
            assert_eq!(chance.bits(), expected);
        }
    }

    #[test]
    fn numbers_below_a_count_reach_all_of_them_evenly() {
        let (mut chance, mut seen) = (Chance::new(7), [0_u32; 6]);
        (0..60_000).for_each(|_| seen[chance.below(6)] += 1);
        // Five standard deviations of a binomial count.
        assert!(seen.iter().all(|count| count.abs_diff(10_000) < 457), "{seen:?}");
        let shares: Vec<f64> = (0..1000).map(|_| chance.share()).collect();
        assert!(shares.iter().all(|share| (0.0..1.0).contains(share)));
    }
}
