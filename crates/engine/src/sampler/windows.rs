//! Windows over latents: what the network sees of a picture that is to tile, or that is larger than it draws in one piece.
//!
//! Every window is a picture to the network, with positions of its own, and the velocities of all windows are averaged
//! (MultiDiffusion; Bar-Tal et al., 2023). What a model knows of where things stand holds for the windows that lie in the picture, so
//! that they alone decide where no edge is near. Where edges meet, a window that reaches over them has the last word: it sees them
//! side by side in its middle, elsewhere at every step, and its own edges count for nothing.

use std::iter::once;

use candle_core::{Device, Tensor};
use zoetrope_api::{Tiling, TilingMode};

use crate::Result;

/// A picture's windows.
pub(super) struct Windows {
    rows: Axis,
    columns: Axis,
    device: Device,
}

/// Windows along one side.
#[derive(Clone, Debug, PartialEq)]
struct Axis {
    extent: usize,
    window: usize,
    /// Where windows begin that lie in the picture.
    starts: Vec<usize>,
    /// How far the window over the edges moves from one step to the next, as a share of its way; none where they do not meet.
    pace: Option<f64>,
}

/// A window at one step.
#[derive(Debug, PartialEq)]
struct Placed {
    start: usize,
    /// Of each of its pixels; those of all windows at a pixel of the picture are 1 together.
    weights: Vec<f32>,
}

/// The plastic number's powers: points at multiples of these shares fill a square most evenly (Roberts, 2018).
const PACES: [f64; 2] = [0.754_877_666, 0.569_840_291];

/// Where in its window the seam lies: about the middle, so that each side of it is seen with what belongs to it.
const SEAM: std::ops::Range<f64> = 0.3..0.7;

/// As shares of a window, measured on the embedded model: so near to edges that meet only the window over them counts, and so much farther only
/// those in the picture. With twice as much, things that stand near the edges are drawn once more upon them.
const NEAR: f64 = 1.0 / 24.0;
const RAMP: f64 = 1.0 / 12.0;

impl Axis {
    /// `None` for `tiling` is one window.
    fn new(extent: usize, tiling: Option<Tiling>, pace: Option<f64>) -> Self {
        let Some(Tiling { size, stride, .. }) = tiling else {
            return Self { extent, window: extent, starts: vec![0], pace: None };
        };
        let window = (size as usize).min(extent);
        let last = extent - window;
        let starts = (0..last).step_by(stride as usize).chain(once(last)).collect();
        Self { extent, window, starts, pace }
    }

    /// How many windows there are at each step.
    fn count(&self) -> usize {
        self.starts.len() + usize::from(self.pace.is_some())
    }

    /// The windows of step `step`.
    fn placed(&self, step: usize) -> Vec<Placed> {
        let sums = self.sums();
        let in_picture = self.starts.iter().map(|&start| {
            let weight = |i| self.rim(i) / sums[start + i] * (1.0 - self.share_of_seam(start + i));
            Placed { start, weights: (0..self.window).map(weight).collect() }
        });
        let over_edges = self.over_edges(step).map(|start| {
            let weight = |i| self.share_of_seam((start + i) % self.extent);
            Placed { start, weights: (0..self.window).map(weight).collect() }
        });
        in_picture.chain(over_edges).collect()
    }

    /// Where the window over the edges begins.
    fn over_edges(&self, step: usize) -> Option<usize> {
        let way = (0.5 + self.pace? * step as f64).fract();
        let seam = SEAM.start + (SEAM.end - SEAM.start) * way;
        Some(even(self.extent - (seam * self.window as f64) as usize) % self.extent)
    }

    /// What pixel `i` of a window weighs beside other windows in the picture: more the farther it is from an edge that others reach over.
    fn rim(&self, i: usize) -> f32 {
        if self.starts.len() == 1 { 1.0 } else { i.min(self.window - 1 - i) as f32 + 0.5 }
    }

    /// What windows in the picture weigh together at each of its pixels.
    fn sums(&self) -> Vec<f32> {
        let mut sums = vec![0.0; self.extent];
        for start in &self.starts {
            (0..self.window).for_each(|i| sums[start + i] += self.rim(i));
        }
        sums
    }

    /// How much of the picture's pixel `at` is the window's over the edges.
    fn share_of_seam(&self, at: usize) -> f32 {
        if self.pace.is_none() {
            return 0.0;
        }
        let distance = at.min(self.extent - 1 - at) as f64 + 0.5;
        let beyond = distance / self.window as f64 - NEAR;
        1.0 - (beyond / RAMP).clamp(0.0, 1.0) as f32
    }
}

/// A token covers two latent pixels.
fn even(n: usize) -> usize {
    n / 2 * 2
}

impl Windows {
    /// For latents of `height` × `width`.
    pub(super) fn new(tiling: Tiling, (height, width): (usize, usize), device: &Device) -> Self {
        let mode = tiling.mode;
        let along = |extent, wraps: bool, pace| {
            let tiling = (wraps || mode == TilingMode::Windows).then_some(tiling);
            Axis::new(extent, tiling, wraps.then_some(pace))
        };
        Self {
            rows: along(height, mode.wraps_rows(), PACES[0]),
            columns: along(width, mode.wraps_columns(), PACES[1]),
            device: device.clone(),
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.rows.count() * self.columns.count()
    }

    /// Height and width of each.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.rows.window, self.columns.window)
    }

    /// The windows of `latents`, `[channels, height, width]`, at step `step`.
    pub(super) fn cut(&self, latents: &Tensor, step: usize) -> Result<Vec<Tensor>> {
        let (height, width) = self.size();
        let mut parts = Vec::with_capacity(self.count());
        for row in self.rows.placed(step) {
            let rows = latents.roll(-(row.start as i32), 1)?.narrow(1, 0, height)?;
            for column in self.columns.placed(step) {
                let part = rows.roll(-(column.start as i32), 2)?.narrow(2, 0, width)?;
                parts.push(part.contiguous()?);
            }
        }
        Ok(parts)
    }

    /// The picture's values from those of its windows, each `[channels, height, width]`.
    pub(super) fn joined(&self, parts: &[Tensor], step: usize) -> Result<Tensor> {
        let mut parts = parts.iter();
        let mut sum: Option<Tensor> = None;
        for row in self.rows.placed(step) {
            let down = Tensor::new(&row.weights[..], &self.device)?.reshape((1, (), 1))?;
            for (column, part) in self.columns.placed(step).iter().zip(&mut parts) {
                let across = Tensor::new(&column.weights[..], &self.device)?;
                let part = part.broadcast_mul(&down)?.broadcast_mul(&across)?;
                let part = part.pad_with_zeros(1, 0, self.rows.extent - self.rows.window)?;
                let part = part.pad_with_zeros(2, 0, self.columns.extent - self.columns.window)?;
                let placed = part.roll(row.start as i32, 1)?.roll(column.start as i32, 2)?;
                sum = Some(match sum {
                    Some(sum) => (sum + placed)?,
                    None => placed,
                });
            }
        }
        Ok(sum.expect("there is always a window"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(extent: usize, size: u32, stride: u32, wraps: bool) -> Axis {
        let tiling = Tiling { mode: TilingMode::Both, size, stride };
        Axis::new(extent, Some(tiling), wraps.then_some(PACES[0]))
    }

    #[test]
    fn windows_end_with_the_picture_and_one_more_covers_edges_that_meet() {
        // 1024 pixels by fal's defaults: the picture, and the window over its edges.
        for (extent, size, stride, want) in [
            (128, 128, 64, &[0][..]),
            (256, 128, 64, &[0, 64, 128]),
            (256, 128, 96, &[0, 96, 128]),
            (26, 32, 16, &[0]),
            (2, 128, 64, &[0]),
        ] {
            for wraps in [false, true] {
                let axis = axis(extent, size, stride, wraps);
                assert_eq!(axis.starts, want);
                assert_eq!(axis.count(), want.len() + usize::from(wraps));
            }
        }
    }

    #[test]
    fn weights_of_all_windows_are_1_together_at_every_pixel() {
        for (extent, size, stride) in
            [(128, 128, 64), (256, 128, 96), (26, 32, 16), (2, 32, 16), (96, 32, 32)]
        {
            for (wraps, step) in [(false, 0), (true, 0), (true, 1), (true, 7)] {
                let axis = axis(extent, size, stride, wraps);
                let mut sums = vec![0.0; extent];
                for Placed { start, weights } in axis.placed(step) {
                    assert!(start % 2 == 0 && start < extent && weights.len() == axis.window);
                    (0..axis.window).for_each(|i| sums[(start + i) % extent] += weights[i]);
                }
                assert!(
                    sums.iter().all(|sum| (sum - 1.0).abs() < 1e-6),
                    "{axis:?} {step}: {sums:?}"
                );
            }
        }
    }

    #[test]
    fn no_window_s_edge_counts_where_edges_meet() {
        for (extent, size) in [(128, 128), (256, 128), (24, 128)] {
            let axis = axis(extent, size, 64, true);
            for placed in (0..8).flat_map(|step| axis.placed(step)) {
                let ends = [placed.weights[0], placed.weights[axis.window - 1]];
                let inside = [placed.start, (placed.start + axis.window - 1) % extent]
                    .map(|at| at > 0 && at < extent - 1);
                for (weight, inside) in ends.into_iter().zip(inside) {
                    // Windows in the picture blend into each other; there the edge of one is the middle of the next.
                    assert!(weight == 0.0 || (inside && weight < 0.05), "{extent}: {placed:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_cut_is_joined_again_at_every_step() {
        let x = Tensor::arange(0f32, 3.0 * 26.0 * 44.0, &Device::Cpu).unwrap();
        let x = x.reshape((3, 26, 44)).unwrap();
        let modes =
            [TilingMode::Both, TilingMode::Horizontal, TilingMode::Vertical, TilingMode::Windows];
        for mode in modes {
            let tiling = Tiling { mode, size: 32, stride: 16 };
            let windows = Windows::new(tiling, (26, 44), &Device::Cpu);
            for step in 0..5 {
                let parts = windows.cut(&x, step).unwrap();
                assert_eq!(parts.len(), windows.count());
                let joined = windows.joined(&parts, step).unwrap();
                let off = (joined - &x).unwrap().abs().unwrap().max_all().unwrap();
                assert!(off.to_scalar::<f32>().unwrap() < 1e-2, "{mode:?} {step}: {off}");
            }
        }
    }

    #[test]
    fn the_window_over_the_edges_moves_far_from_step_to_step() {
        let axis = axis(128, 128, 64, true);
        let mut places: Vec<_> = (0..8).map(|step| axis.over_edges(step).unwrap()).collect();
        assert!(places.iter().all(|place| (38..=90).contains(place)), "{places:?}");
        assert!(places.windows(2).all(|two| two[0].abs_diff(two[1]) > 8), "{places:?}");
        places.sort();
        places.dedup();
        assert!(places.len() > 4, "{places:?}");
    }
}
