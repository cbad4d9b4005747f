//! Random numbers that depend on nothing but where they are used: what an update draws is the same after any interruption.

use rand_mt::Mt;

/// A seed for one use of chance in a run: what it is for, and its numbers.
pub(crate) fn seed(run: u64, what: &str, numbers: &[u64]) -> u64 {
    let letters = what.bytes().map(u64::from);
    letters.chain(numbers.iter().copied()).fold(mixed(run), |state, n| mixed(state ^ mixed(n)))
}

/// SplitMix64's finaliser (Steele et al., 2014).
fn mixed(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Evenly in 0..1.
pub(crate) fn even(seed: u64) -> f64 {
    (mixed(seed) >> 11) as f64 / (1u64 << 53) as f64
}

/// `0..count` in an order of chance (Fisher & Yates).
pub(crate) fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut words = Mt::new(seed as u32);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        let other = (u64::from(words.next_u32()) * (last as u64 + 1)) >> 32;
        order.swap(last, other as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_use_has_a_seed_of_its_own_and_the_same_each_time() {
        let seeds = [
            seed(1, "noise", &[0, 0]),
            seed(1, "noise", &[0, 1]),
            seed(1, "noise", &[1, 0]),
            seed(1, "time", &[0, 0]),
            seed(2, "noise", &[0, 0]),
        ];
        let distinct: std::collections::BTreeSet<_> = seeds.iter().collect();
        assert_eq!(distinct.len(), seeds.len());
        assert_eq!(seeds[0], seed(1, "noise", &[0, 0]));
    }

    #[test]
    fn orders_hold_everything_once() {
        let mut order = shuffled(100, 7);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
