//! Numbers in 8 bits: blocks with their largest as a scale, and codes that are dense where numbers are small (dynamic tree
//! quantisation, Dettmers, 2016; block-wise for optimisers, Dettmers et al., 2022).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::{take, unfitting};
use crate::Result;
use crate::state::Array;

/// A tensor's values in codes.
pub(super) struct Codes {
    table: &'static [f32],
    codes: Vec<u8>,
    scales: Vec<f32>,
}

static SIGNED: LazyLock<Vec<f32>> = LazyLock::new(|| table(true));
static UNSIGNED: LazyLock<Vec<f32>> = LazyLock::new(|| table(false));

/// The 256 values, rising, of −1..=1 or 0..=1: seven decades, the next higher with twice as many values as the one below, each in the middle
/// of its part of the decade; and 0 and 1.
fn table(signed: bool) -> Vec<f32> {
    const DECADES: i32 = 7;
    let mut values = vec![0.0, 1.0];
    for i in 0..DECADES {
        let parts = if signed { 1 << i } else { 2 << i };
        let size = 10f64.powi(i - (DECADES - 1));
        for part in 0..parts {
            let middle = 0.1 + 0.9 * (f64::from(part) + 0.5) / f64::from(parts);
            values.push((size * middle) as f32);
            if signed {
                values.push((-size * middle) as f32);
            }
        }
    }
    values.sort_by(f32::total_cmp);
    values
}

impl Codes {
    /// Values that share a scale.
    pub(super) const BLOCK: usize = 256;

    /// `count` zeros that may become anything.
    pub(super) fn signed(count: usize) -> Self {
        Self::zeros(&SIGNED, count)
    }

    /// `count` zeros that never become negative.
    pub(super) fn unsigned(count: usize) -> Self {
        Self::zeros(&UNSIGNED, count)
    }

    fn zeros(table: &'static [f32], count: usize) -> Self {
        let codes = vec![nearest(table, 0.0); count];
        Self { table, codes, scales: vec![0.0; count.div_ceil(Self::BLOCK)] }
    }

    /// Block `i` as numbers.
    pub(super) fn block(&self, i: usize) -> Vec<f32> {
        let codes = self.codes.chunks(Self::BLOCK).nth(i).unwrap_or_default();
        codes.iter().map(|code| self.table[usize::from(*code)] * self.scales[i]).collect()
    }

    /// Puts `values` in the place of block `i`. Where none is negative, those above 0 stay above it: Adam divides by their root, and would throw
    /// a value whose gradients are a thousandth of its block's as soon as one of them is smaller still.
    pub(super) fn set_block(&mut self, i: usize, values: &[f32]) {
        let largest = values.iter().fold(0f32, |most, v| most.max(v.abs()));
        let up = if largest > 0.0 { 1.0 / largest } else { 0.0 };
        let codes = &mut self.codes[i * Self::BLOCK..][..values.len()];
        for (code, v) in codes.iter_mut().zip(values) {
            let least = u8::from(self.table[0] == 0.0 && *v > 0.0);
            *code = nearest(self.table, v * up).max(least);
        }
        self.scales[i] = largest;
    }

    pub(super) fn save(&self, name: &str, tensors: &mut BTreeMap<String, Array>) {
        tensors.insert(format!("{name}.codes"), Array::U8(self.codes.clone()));
        tensors.insert(format!("{name}.scales"), Array::F32(self.scales.clone()));
    }

    pub(super) fn restore(&mut self, name: &str, tensors: &BTreeMap<String, Array>) -> Result<()> {
        let codes = format!("{name}.codes");
        match tensors.get(&codes) {
            Some(Array::U8(values)) if values.len() == self.codes.len() => {
                self.codes.copy_from_slice(values);
            }
            _ => return Err(unfitting(&codes)),
        }
        take(tensors, &format!("{name}.scales"), &mut self.scales)
    }
}

/// The code of what is nearest to `value`.
fn nearest(table: &[f32], value: f32) -> u8 {
    let above = table.partition_point(|v| *v < value).min(table.len() - 1);
    let below = above.saturating_sub(1);
    let closer = if value - table[below] <= table[above] - value { below } else { above };
    closer as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_have_a_value_for_every_code() {
        for (table, least) in [(&*SIGNED, -0.992_968_75), (&*UNSIGNED, 0.0)] {
            assert_eq!(table.len(), 256);
            assert!(table.windows(2).all(|w| w[0] < w[1]));
            assert_eq!((table[0], table[255]), (least, 1.0));
            assert!(table.contains(&0.0));
        }
    }

    #[test]
    fn both_tables_are_bitsandbytes() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded/adamw8bit.safetensors");
        let bytes = std::fs::read(file).unwrap();
        let recorded = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (name, table) in [("signed", &*SIGNED), ("unsigned", &*UNSIGNED)] {
            let wanted = recorded.tensor(name).unwrap();
            let wanted = wanted.data().chunks_exact(4);
            let wanted = wanted.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            for (code, (got, want)) in table.iter().zip(wanted).enumerate() {
                assert!((got - want).abs() <= 2e-7 * want.abs(), "{name} {code}: {got} {want}");
            }
        }
    }

    #[test]
    fn what_is_divided_by_does_not_become_nothing() {
        let mut codes = Codes::unsigned(256);
        codes.set_block(0, &[1.0, 1e-12, 0.0]);
        let values = codes.block(0);
        assert!(values[1] > 0.0 && values[1] < 1e-6, "{}", values[1]);
        assert_eq!((values[0], values[2]), (1.0, 0.0));
    }

    #[test]
    fn numbers_come_back_within_a_part_of_their_decade() {
        let mut codes = Codes::signed(300);
        let values: Vec<f32> = (0..256).map(|i| (i as f32 - 128.0) * 0.013).collect();
        codes.set_block(0, &values);
        for (got, want) in codes.block(0).iter().zip(&values) {
            assert!(
                (got - want).abs() <= 0.0075 * 128.0 * 0.013 + 0.02 * want.abs(),
                "{got} {want}"
            );
        }
        assert!(codes.block(1).iter().all(|v| *v == 0.0));
    }
}
