//! Canny's edge detector (Canny, 1986), pixel for pixel as OpenCV has it with a 3 × 3 Sobel operator: control networks were trained on its
//! pictures.

use crate::Picture;

/// Strengths of an edge's weakest pixel and of one that every edge must have, as detectors for control networks take them.
pub const CANNY_THRESHOLDS: (i32, i32) = (100, 200);

/// tan 22.5°, with 15 bits after the point.
const TANGENT: i64 = 13573;

/// A pixel's change across and down in the channel where it is strongest, and how strong that is.
#[derive(Clone, Copy, Default)]
struct Slope {
    across: i32,
    down: i32,
    strength: i32,
}

/// What is known of a pixel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Nothing,
    /// A ridge that counts where it touches an edge.
    Weak,
    Edge,
}

impl Picture {
    /// The picture's edges, white on black. Pixels stronger than the second of `thresholds` are edges, and so are ridges above the first that
    /// lead to one.
    pub fn edges(&self, (low, high): (i32, i32)) -> Self {
        let (width, height) = (self.width as usize, self.height as usize);
        let slopes = slopes(self);
        let mut marks: Vec<Mark> = (0..width * height)
            .map(|i| mark(&slopes, (i % width, i / width), (width, height), (low, high)))
            .collect();
        follow(&mut marks, width);
        let rgb = marks.iter().flat_map(|mark| [if *mark == Mark::Edge { 255 } else { 0 }; 3]);
        Self { rgb: rgb.collect(), ..*self }
    }
}

/// Sobel's operator; beyond the picture its edge goes on.
fn slopes(picture: &Picture) -> Vec<Slope> {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let slope = |x: usize, y: usize| {
        let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
        let (up, below) = (y.saturating_sub(1), (y + 1).min(height - 1));
        let of_channel = |channel: usize| {
            let at = |x: usize, y: usize| i32::from(picture.rgb[3 * (y * width + x) + channel]);
            let column = |x: usize| at(x, up) + 2 * at(x, y) + at(x, below);
            let row = |y: usize| at(left, y) + 2 * at(x, y) + at(right, y);
            let (across, down) = (column(right) - column(left), row(below) - row(up));
            Slope { across, down, strength: across.abs() + down.abs() }
        };
        // The first of equals.
        (1..3).map(of_channel).fold(of_channel(0), |best, next| {
            if next.strength > best.strength { next } else { best }
        })
    };
    (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| slope(x, y)).collect()
}

/// A pixel counts where it is stronger than its neighbours along its slope, of which there are four directions.
fn mark(
    slopes: &[Slope],
    (x, y): (usize, usize),
    (width, height): (usize, usize),
    (low, high): (i32, i32),
) -> Mark {
    let strength = |dx: isize, dy: isize| {
        let (x, y) = (x.checked_add_signed(dx), y.checked_add_signed(dy));
        match (x.filter(|x| *x < width), y.filter(|y| *y < height)) {
            (Some(x), Some(y)) => slopes[y * width + x].strength,
            _ => 0,
        }
    };
    let Slope { across, down, strength: own } = slopes[y * width + x];
    if own <= low {
        return Mark::Nothing;
    }
    let (wide, tall) = (i64::from(across.abs()), i64::from(down.abs()) << 15);
    let ridge = if tall < wide * TANGENT {
        own > strength(-1, 0) && own >= strength(1, 0)
    } else if tall > wide * TANGENT + (wide << 16) {
        own > strength(0, -1) && own >= strength(0, 1)
    } else {
        let side = if (across ^ down) < 0 { -1 } else { 1 };
        own > strength(-side, -1) && own > strength(side, 1)
    };
    match ridge {
        true if own > high => Mark::Edge,
        true => Mark::Weak,
        false => Mark::Nothing,
    }
}

/// Weak ridges that lead to an edge become one.
fn follow(marks: &mut [Mark], width: usize) {
    let mut reached: Vec<usize> = (0..marks.len()).filter(|i| marks[*i] == Mark::Edge).collect();
    while let Some(i) = reached.pop() {
        let (x, y) = (i % width, i / width);
        for y in y.saturating_sub(1)..=(y + 1).min(marks.len() / width - 1) {
            for x in x.saturating_sub(1)..=(x + 1).min(width - 1) {
                let neighbour = y * width + x;
                if marks[neighbour] == Mark::Weak {
                    marks[neighbour] = Mark::Edge;
                    reached.push(neighbour);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_has_four_edges_and_a_flat_picture_none() {
        let flat = Picture { width: 5, height: 4, rgb: vec![90; 60] };
        assert!(flat.edges(CANNY_THRESHOLDS).rgb.iter().all(|value| *value == 0));
        let side = 20;
        let inside = |i: usize| (5..15).contains(&(i % side)) && (5..15).contains(&(i / side));
        let rgb = (0..side * side).flat_map(|i| [if inside(i) { 255 } else { 0 }; 3]).collect();
        let square = Picture { width: side as u32, height: side as u32, rgb };
        let edges = square.edges(CANNY_THRESHOLDS);
        let white = edges.rgb.chunks(3).filter(|pixel| pixel[0] == 255).count();
        assert!((36..=44).contains(&white), "{white}");
        // One pixel wide: nothing in the middle of the square, nothing far from it.
        let at = |x: usize, y: usize| edges.rgb[3 * (y * side + x)];
        assert_eq!((at(10, 10), at(1, 1), at(18, 10)), (0, 0, 0));
    }

    #[test]
    fn a_picture_of_one_pixel_has_no_edges() {
        let one = Picture { width: 1, height: 1, rgb: vec![255; 3] };
        assert_eq!(one.edges(CANNY_THRESHOLDS).rgb, [0; 3]);
    }
}
