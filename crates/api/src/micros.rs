//! Money.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// Millionths of a dollar, whole: sums of many small prices stay exact.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// `dollars`, rounded to the next millionth; `None` for what is no amount.
    pub fn of_dollars(dollars: f64) -> Option<Self> {
        let micros = (dollars * 1e6).round();
        (micros.is_finite() && micros.abs() < 9e15).then_some(Self(micros as i64))
    }

    /// Dollars, for answers that promise a number of them.
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// This price a unit times `quantity` millionths of a unit (pixels, where the unit is a megapixel), rounded half up.
    pub fn times_millionths(self, quantity: u64) -> Self {
        let product = i128::from(self.0) * i128::from(quantity) + 500_000;
        Self(i64::try_from(product.div_euclid(1_000_000)).unwrap_or(i64::MAX))
    }
}

impl Add for Micros {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Micros {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Micros {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

/// `$0.005243`, with two decimals at least.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, amount) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let decimals = format!("{:06}", amount % 1_000_000);
        let kept = decimals.trim_end_matches('0').len().max(2);
        write!(f, "{sign}${}.{}", amount / 1_000_000, &decimals[..kept])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_a_megapixel_is_rounded_once() {
        let price = Micros(5_000);
        assert_eq!(price.times_millionths(1024 * 1024), Micros(5_243));
        assert_eq!(price.times_millionths(2 * 1024 * 1024), Micros(10_486));
        assert_eq!(price.times_millionths(0), Micros::ZERO);
    }

    #[test]
    fn amounts_are_shown_in_dollars() {
        let cases = [
            (5_243, "$0.005243"),
            (0, "$0.00"),
            (12_500_000, "$12.50"),
            (15_000, "$0.015"),
            (-1, "-$0.000001"),
        ];
        for (micros, shown) in cases {
            assert_eq!(Micros(micros).to_string(), shown);
        }
        assert_eq!(Micros::of_dollars(0.005), Some(Micros(5_000)));
        assert_eq!(Micros::of_dollars(f64::NAN), None);
    }
}
