//! A matrix that many threads fill, each its own rectangles, or an image and windows of it.
//!
//! `unsafe` stands here for that: slices cannot express a range of columns.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

/// Some rows and columns of a row-major matrix, which nobody else has.
pub(crate) struct Rectangle<'a> {
    /// The matrix's first value.
    values: *mut f32,
    /// Columns of the matrix.
    pub(crate) stride: usize,
    /// Which rows these are.
    pub(crate) rows: Range<usize>,
    /// Which columns these are.
    pub(crate) columns: Range<usize>,
    whole: PhantomData<&'a mut [f32]>,
}

// SAFETY: rectangles of one matrix do not overlap, so each is as a `&mut` of its own.
unsafe impl Send for Rectangle<'_> {}

impl Rectangle<'_> {
    /// Columns `columns` of `row`, both counted in the matrix.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(self.rows.contains(&row));
        assert!(self.columns.start <= columns.start && columns.end <= self.columns.end);
        // SAFETY: the rectangle lies inside the borrowed matrix and has no other owner; the range lies inside it.
        unsafe {
            let first = self.values.add(row * self.stride + columns.start);
            std::slice::from_raw_parts_mut(first, columns.len())
        }
    }
}

/// Where a matrix begins, for threads to compute their rectangles from.
#[derive(Clone, Copy)]
struct Start(*mut f32);

// SAFETY: the pointer is only handed on inside rectangles, which do not overlap.
unsafe impl Send for Start {}
// SAFETY: as above.
unsafe impl Sync for Start {}

impl Start {
    fn get(self) -> *mut f32 {
        self.0
    }
}

/// Cuts `rows` of `matrix`, which has `columns`, into rectangles of at most `tall` rows and `wide` columns, those of a
/// column range one after another.
pub(crate) fn rectangles(
    matrix: &mut [f32],
    columns: usize,
    rows: Range<usize>,
    (tall, wide): (usize, usize),
) -> impl IndexedParallelIterator<Item = Rectangle<'_>> {
    assert!(columns > 0 && rows.end * columns <= matrix.len() && tall > 0 && wide > 0);
    let (down, across) = (rows.len().div_ceil(tall), columns.div_ceil(wide));
    let start = Start(matrix.as_mut_ptr());
    (0..down * across).into_par_iter().map(move |i| {
        let (row, column) = (rows.start + i % down.max(1) * tall, i / down.max(1) * wide);
        Rectangle {
            values: start.get(),
            stride: columns,
            rows: row..(row + tall).min(rows.end),
            columns: column..(column + wide).min(columns),
            whole: PhantomData,
        }
    })
}

/// Some pixels and channels of an image, `[height, width, channels]`, which nobody else has.
pub(crate) struct Window<'a> {
    /// The image's first value.
    values: *mut f32,
    /// Pixels of the image's rows, and channels of its pixels.
    dims: [usize; 2],
    /// Which rows these are.
    pub(crate) rows: Range<usize>,
    /// Which pixels of them.
    pub(crate) xs: Range<usize>,
    /// Which channels of those.
    pub(crate) channels: Range<usize>,
    whole: PhantomData<&'a mut [f32]>,
}

// SAFETY: windows of one image do not overlap, so each is as a `&mut` of its own.
unsafe impl Send for Window<'_> {}

impl Window<'_> {
    /// Some channels of a pixel, all counted in the image.
    #[inline(always)]
    pub(crate) fn pixel(&mut self, row: usize, x: usize, channels: Range<usize>) -> &mut [f32] {
        assert!(self.rows.contains(&row) && self.xs.contains(&x));
        assert!(self.channels.start <= channels.start && channels.end <= self.channels.end);
        let [width, depth] = self.dims;
        // SAFETY: the window lies inside the borrowed image and has no other owner; the range lies inside it.
        unsafe {
            let first = self.values.add((row * width + x) * depth + channels.start);
            std::slice::from_raw_parts_mut(first, channels.len())
        }
    }
}

/// Cuts `image`, of `dims`, into windows of at most `size`: those of all channels of some pixels one after another.
pub(crate) fn windows(
    image: &mut [f32],
    dims: [usize; 3],
    size: [usize; 3],
) -> impl IndexedParallelIterator<Item = Window<'_>> {
    assert!(image.len() == dims.iter().product::<usize>() && !size.contains(&0));
    let [down, across, deep] = std::array::from_fn(|i| dims[i].div_ceil(size[i]));
    let start = Start(image.as_mut_ptr());
    (0..down * across * deep).into_par_iter().map(move |i| {
        let at = [i / deep / across, i / deep % across, i % deep];
        let [rows, xs, channels] =
            std::array::from_fn(|j| at[j] * size[j]..((at[j] + 1) * size[j]).min(dims[j]));
        let (values, dims) = (start.get(), [dims[1], dims[2]]);
        Window { values, dims, rows, xs, channels, whole: PhantomData }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_cover_a_matrix_once() {
        for (rows, columns, tall, wide) in [(0, 3, 2, 2), (5, 7, 2, 3), (4, 4, 4, 4), (1, 9, 8, 1)]
        {
            let mut matrix = vec![0f32; rows * columns];
            for rows in [0..rows / 3, rows / 3..rows] {
                rectangles(&mut matrix, columns, rows, (tall, wide)).for_each(|mut part| {
                    for row in part.rows.clone() {
                        let columns = part.columns.clone();
                        part.row(row, columns).iter_mut().for_each(|v| *v += 1.0);
                    }
                });
            }
            assert!(matrix.iter().all(|v| *v == 1.0), "{rows}x{columns} by {tall}x{wide}");
        }
    }

    #[test]
    fn windows_cover_an_image_once() {
        for (dims, size) in [([0, 3, 2], [1, 1, 1]), ([5, 7, 3], [2, 3, 2]), ([4, 4, 4], [4, 4, 9])]
        {
            let mut image = vec![0f32; dims.iter().product()];
            windows(&mut image, dims, size).for_each(|mut part| {
                for row in part.rows.clone() {
                    for x in part.xs.clone() {
                        let channels = part.channels.clone();
                        part.pixel(row, x, channels).iter_mut().for_each(|v| *v += 1.0);
                    }
                }
            });
            assert!(image.iter().all(|v| *v == 1.0), "{dims:?} by {size:?}");
        }
    }
}
