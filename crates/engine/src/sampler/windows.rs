//! Windows over latents that overlap and may reach over the edges: what the network sees of a picture that is to tile, or that is
//! larger than it draws in one piece.
//!
//! Every window is a picture to the network, with positions of its own. Velocities of all windows are averaged, each weighing least
//! at its edges (MultiDiffusion; Bar-Tal et al., 2023). Where edges meet, the windows start elsewhere at every step, so that
//! no place is at a window's edge twice.

use candle_core::{Device, Tensor};
use zoetrope_api::{Tiling, TilingMode};

use crate::Result;

/// A picture's windows.
pub(super) struct Windows {
    rows: Axis,
    columns: Axis,
    /// What each pixel of a window weighs, `[1, window rows, window columns]`.
    weights: Tensor,
    /// The weights of all windows together, `[1, rows, columns]`; before windows are moved.
    sums: Tensor,
}

/// Windows along one side.
#[derive(Clone, Debug, PartialEq)]
struct Axis {
    extent: usize,
    window: usize,
    starts: Vec<usize>,
    wraps: bool,
    /// How far windows move from one step to the next, as a share of the extent.
    pace: f64,
}

/// The plastic number's powers: points at multiples of these shares fill a square most evenly (Roberts, 2018).
const PACES: [f64; 2] = [0.754_877_666, 0.569_840_291];

impl Axis {
    /// `None` for `tiling` is one window.
    fn new(extent: usize, tiling: Option<Tiling>, wraps: bool, pace: f64) -> Self {
        let Some(Tiling { size, stride, .. }) = tiling else {
            return Self { extent, window: extent, starts: vec![0], wraps: false, pace };
        };
        let window = (size as usize).min(extent);
        // Where edges meet, a second window covers the edge of the first one.
        let most = if wraps { window / 2 } else { window };
        let stride = even((stride as usize).min(most)).max(2);
        let starts = match wraps {
            true => {
                let count = extent.div_ceil(stride);
                (0..count).map(|i| even(i * extent / count)).collect()
            }
            false => {
                let last = extent - window;
                let before = (0..last).step_by(stride);
                before.chain([last]).collect()
            }
        };
        Self { extent, window, starts, wraps, pace }
    }

    /// Where window `start` begins at step `step`.
    fn place(&self, start: usize, step: usize) -> usize {
        if !self.wraps {
            return start;
        }
        let share = (self.pace * step as f64).fract();
        (start + even((share * self.extent as f64) as usize)) % self.extent
    }

    /// What positions of a window weigh: more the farther they are from an edge that others reach over.
    fn weights(&self) -> Vec<f32> {
        let last = self.window - 1;
        match self.starts.len() {
            1 if !self.wraps => vec![1.0; self.window],
            _ => (0..self.window).map(|i| i.min(last - i) as f32 + 0.5).collect(),
        }
    }
}

/// A token covers two latent pixels.
fn even(n: usize) -> usize {
    n / 2 * 2
}

impl Windows {
    /// For latents of `height` × `width`.
    pub(super) fn new(
        tiling: Tiling,
        (height, width): (usize, usize),
        device: &Device,
    ) -> Result<Self> {
        let mode = tiling.mode;
        let along = |wraps: bool| (wraps || mode == TilingMode::Windows).then_some(tiling);
        let (down, across) = (mode.wraps_rows(), mode.wraps_columns());
        let rows = Axis::new(height, along(down), down, PACES[0]);
        let columns = Axis::new(width, along(across), across, PACES[1]);
        let weights: Vec<f32> = rows
            .weights()
            .iter()
            .flat_map(|down| columns.weights().into_iter().map(move |across| down * across))
            .collect();
        let weights = Tensor::from_vec(weights, (1, rows.window, columns.window), device)?;
        let sums = Tensor::zeros((1, height, width), weights.dtype(), device)?;
        let mut windows = Self { rows, columns, weights, sums };
        let ones = vec![windows.weights.clone(); windows.count()];
        windows.sums = windows.added(&ones, 0)?;
        Ok(windows)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.rows.starts.len() * self.columns.starts.len()
    }

    /// Height and width of each.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.rows.window, self.columns.window)
    }

    fn places(&self, step: usize) -> impl Iterator<Item = (usize, usize)> {
        self.rows.starts.iter().flat_map(move |row| {
            let row = self.rows.place(*row, step);
            self.columns.starts.iter().map(move |column| (row, self.columns.place(*column, step)))
        })
    }

    /// The windows of `latents`, `[channels, height, width]`, at step `step`.
    pub(super) fn cut(&self, latents: &Tensor, step: usize) -> Result<Vec<Tensor>> {
        let one = |(row, column): (usize, usize)| {
            let x = latents.roll(-(row as i32), 1)?.roll(-(column as i32), 2)?;
            x.narrow(1, 0, self.rows.window)?.narrow(2, 0, self.columns.window)?.contiguous()
        };
        Ok(self.places(step).map(one).collect::<candle_core::Result<_>>()?)
    }

    /// The picture's values from those of its windows.
    pub(super) fn joined(&self, parts: &[Tensor], step: usize) -> Result<Tensor> {
        let weighed = parts.iter().map(|part| part.broadcast_mul(&self.weights));
        let weighed = weighed.collect::<candle_core::Result<Vec<_>>>()?;
        let (down, across) = (self.rows.place(0, step), self.columns.place(0, step));
        let sums = self.sums.roll(down as i32, 1)?.roll(across as i32, 2)?;
        Ok(self.added(&weighed, step)?.broadcast_div(&sums)?)
    }

    /// The sum of windows, each at its place.
    fn added(&self, parts: &[Tensor], step: usize) -> Result<Tensor> {
        let place = |(part, (row, column)): (&Tensor, (usize, usize))| {
            let part = part.pad_with_zeros(1, 0, self.rows.extent - self.rows.window)?;
            let part = part.pad_with_zeros(2, 0, self.columns.extent - self.columns.window)?;
            part.roll(row as i32, 1)?.roll(column as i32, 2)
        };
        let mut sum: Option<Tensor> = None;
        for placed in parts.iter().zip(self.places(step)).map(place) {
            sum = Some(match sum {
                Some(sum) => (sum + placed?)?,
                None => placed?,
            });
        }
        Ok(sum.expect("there is always a window"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(extent: usize, size: u32, stride: u32, wraps: bool) -> Vec<usize> {
        let tiling = Tiling { mode: TilingMode::Both, size, stride };
        let axis = Axis::new(extent, Some(tiling), wraps, 0.0);
        assert!(axis.starts.iter().all(|start| start % 2 == 0), "{axis:?}");
        axis.starts
    }

    #[test]
    fn windows_cover_an_edge_where_edges_meet_and_end_with_the_picture_elsewhere() {
        // 1024 pixels by fal's defaults: the window, and one half a picture further.
        assert_eq!(axis(128, 128, 64, true), [0, 64]);
        assert_eq!(axis(256, 128, 64, true), [0, 64, 128, 192]);
        // Never a window's edge alone, however small the picture is.
        assert_eq!(axis(24, 128, 64, true), [0, 12]);
        assert_eq!(axis(26, 128, 128, true), [0, 8, 16]);
        assert_eq!(axis(2, 128, 64, true), [0]);
        assert_eq!(axis(256, 128, 96, false), [0, 96, 128]);
        assert_eq!(axis(128, 128, 64, false), [0]);
        assert_eq!(axis(64, 128, 64, false), [0]);
    }

    #[test]
    fn what_is_cut_is_joined_again_at_every_step() {
        let x = Tensor::arange(0f32, 3.0 * 26.0 * 44.0, &Device::Cpu).unwrap();
        let x = x.reshape((3, 26, 44)).unwrap();
        let modes =
            [TilingMode::Both, TilingMode::Horizontal, TilingMode::Vertical, TilingMode::Windows];
        for mode in modes {
            let tiling = Tiling { mode, size: 32, stride: 16 };
            let windows = Windows::new(tiling, (26, 44), &Device::Cpu).unwrap();
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
    fn edges_of_windows_are_elsewhere_at_every_step() {
        let tiling = Tiling::usual(TilingMode::Both);
        let axis = Axis::new(128, Some(tiling), true, PACES[0]);
        let mut places: Vec<_> = (0..8).map(|step| axis.place(0, step)).collect();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), 8);
    }
}
