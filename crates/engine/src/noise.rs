//! torch's CPU generator: the same seed gives the numbers that it gives in the reference, on every device.

use candle_core::{Device, Tensor};
use rand_mt::Mt;
use zoetrope_api::Seed;

use crate::{Error, Result};

/// mt19937 with torch's conversions to uniform and normal numbers.
pub struct Generator {
    words: Mt,
    /// The second number of a pair that the scalar path drew and did not use yet.
    spare: Option<f64>,
}

/// Values that torch's vectorised Box–Muller takes at once; shorter draws take the scalar path.
const BLOCK: usize = 16;

impl Generator {
    /// Only the low 32 bits of a seed count, as in torch.
    pub fn new(seed: Seed) -> Self {
        Self { words: Mt::new(seed.0 as u32), spare: None }
    }

    /// `torch.randn(shape, generator=self)`, float32.
    pub fn normal(&mut self, shape: &[usize], device: &Device) -> Result<Tensor> {
        let count = shape.iter().product();
        let values = if count < BLOCK { self.few(count) } else { self.many(count) };
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_device(device)?)
    }

    /// All uniforms first, then Box–Muller across the halves of each block; the last 16 are drawn again when the
    /// count is no multiple of 16.
    fn many(&mut self, count: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform24()).collect();
        for block in values.chunks_exact_mut(BLOCK) {
            box_muller(block);
        }
        if count % BLOCK != 0 {
            let last = &mut values[count - BLOCK..];
            last.fill_with(|| self.uniform24());
            box_muller(last);
        }
        values
    }

    /// Pairs from 53-bit uniforms in float64; the sine of a pair waits for the next draw.
    fn few(&mut self, count: usize) -> Vec<f32> {
        let mut draw = || {
            if let Some(spare) = self.spare.take() {
                return spare;
            }
            let (u1, u2) = (self.uniform53(), self.uniform53());
            let (radius, angle) = ((-2.0 * (-u2).ln_1p()).sqrt(), std::f64::consts::TAU * u1);
            self.spare = Some(radius * angle.sin());
            radius * angle.cos()
        };
        (0..count).map(|_| draw() as f32).collect()
    }

    /// A number between 0 and 1, 1 left out.
    pub fn uniform(&mut self) -> f64 {
        self.uniform53()
    }

    fn uniform24(&mut self) -> f32 {
        (self.words.next_u32() & 0xff_ffff) as f32 / (1 << 24) as f32
    }

    fn uniform53(&mut self) -> f64 {
        let word = u64::from(self.words.next_u32()) << 32 | u64::from(self.words.next_u32());
        (word & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }
}

/// Eight radii from the first half, eight angles from the second; cosines, then sines.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        // 1 − u is exact, and never 0.
        let radius = (-2.0 * f64::from(1.0 - *a).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * f64::from(*b)).sin_cos();
        (*a, *b) = ((radius * cos) as f32, (radius * sin) as f32);
    }
}

/// Noise between `a` and `b`, `[pictures, …]`: on the arc between the two, on which it stays as strong as noise is (Shoemake, 1985).
pub fn between(a: &Tensor, b: &Tensor, share: f64) -> Result<Tensor> {
    let one = |i: usize| -> Result<Tensor> {
        let (a, b) = (a.get(i)?, b.get(i)?);
        let dot = |x: &Tensor, y: &Tensor| {
            Ok::<_, Error>(f64::from((x * y)?.sum_all()?.to_scalar::<f32>()?))
        };
        let cosine = dot(&a, &b)? / (dot(&a, &a)? * dot(&b, &b)?).sqrt();
        let angle = cosine.clamp(-1.0, 1.0).acos();
        // Where the two point the same way there is no arc.
        let (of_a, of_b) = match angle.sin() < 1e-6 {
            true => (1.0 - share, share),
            false => {
                (((1.0 - share) * angle).sin() / angle.sin(), (share * angle).sin() / angle.sin())
            }
        };
        Ok(((a * of_a)? + (b * of_b)?)?)
    };
    let all = (0..a.dim(0)?).map(one).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::stack(&all, 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seed: u64, count: usize, want: &[f32]) {
        let got = Generator::new(Seed(seed))
            .normal(&[count], &Device::Cpu)
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        for (got, want) in got[count - want.len()..].iter().zip(want) {
            assert!((got - want).abs() < 2e-6, "seed {seed}, {count} values: {got} is not {want}");
        }
    }

    /// Values printed by torch 2.15, `torch.randn(count, generator=torch.Generator().manual_seed(seed))`.
    #[test]
    fn draws_are_torch_s_for_every_length() {
        check(0, 1, &[1.540996]);
        check(0, 5, &[1.540996, -0.2934289, -2.178789, 0.5684313, -1.084522]);
        check(42, 15, &[1.11029, -1.689799, -0.9889599]);
        check(42, 16, &[-0.5594302, -0.7688389, 0.7624454]);
        check(42, 17, &[0.04175949, -0.2515753, 0.8598585, -0.3097268]);
        check(7, 31, &[-1.056684, -0.2615867, -0.2501326, 0.5011215]);
        check(4294967338, 16, &[-0.5594302, -0.7688389, 0.7624454]);
    }

    #[test]
    fn noise_between_two_seeds_is_as_strong_as_theirs() {
        let of = |seed| Generator::new(Seed(seed)).normal(&[2, 4, 32, 32], &Device::Cpu).unwrap();
        let (a, b) = (of(1), of(2));
        let length = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        for share in [0.0, 0.3, 0.5, 1.0] {
            let between = between(&a, &b, share).unwrap();
            let relative = length(&between) / length(&a);
            assert!((relative - 1.0).abs() < 0.03, "{share}: {relative}");
        }
        let off = |x: &Tensor, y: &Tensor| length(&(x - y).unwrap());
        assert!(off(&between(&a, &b, 0.0).unwrap(), &a) < 1e-6);
        assert!(off(&between(&a, &b, 1.0).unwrap(), &b) < 1e-6);
        assert!(off(&between(&a, &a, 0.5).unwrap(), &a) < 1e-6);
    }

    #[test]
    fn a_number_left_over_is_used_by_the_next_short_draw() {
        let mut generator = Generator::new(Seed(3));
        let mut draw = |count: usize| {
            generator.normal(&[count], &Device::Cpu).unwrap().to_vec1::<f32>().unwrap()
        };
        let got = [draw(3), draw(2), draw(16)].concat();
        let want = [0.8032761, 0.1748334, 0.0889781, -0.613718, 0.04618245, -0.3397902, 0.2225253];
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 2e-6, "{got} is not {want}");
        }
    }
}
